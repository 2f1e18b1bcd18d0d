"""Synthetic tasks: many over the same inputs, which differ only in what is asked.

If every training task has its own inputs, a hypernetwork may ignore the description: the input
identifies the task. Here "pick the second of four", "pick the longest of four" and "reverse the
four" share their inputs, so only the description tells them apart. The network has to read it.

Everything is built from the training instances of given tasks: word lists with labelled categories,
single words, word pairs and number pairs, as function-vectors (Todd et al. 2024) and
instruction-induction (Honovich et al. 2023) have them. Given tasks of these kinds get dozens of
paraphrases instead of their two or three (`paraphrases.py`).

Evaluation tasks stay unseen under any name: a template is not built if its rule gives their
answers to their questions, and a pair of theirs is never shown (`hypernet.data.overlap`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hypernet.data.overlap import EvaluationAnswers
from hypernet.data.synthetic.compositions import compositions
from hypernet.data.synthetic.numbers import numbers
from hypernet.data.synthetic.pairs import inverses, reworded
from hypernet.data.synthetic.picking import LONGEST_LIST, odd_one_out, orders, positions
from hypernet.data.synthetic.rewriting import letters, lists
from hypernet.data.synthetic.sentences import sentences
from hypernet.data.synthetic.task_template import TaskTemplate
from hypernet.data.tasks import Task

Material = Mapping[str, list[tuple[str, str]]]
"""A task's name -> questions with their answers."""


def derive(
    tasks: Sequence[Task], evaluation: Sequence[Task], *, instances: int = 200, seed: int = 0
) -> list[Task]:
    """Build every task that the given tasks have material for, except those that evaluation tasks
    ask for.

    Args:
        tasks: training tasks; only what their `split_instances` gives to training is used.
        evaluation: tasks that have to stay unseen. No task is built whose rule answers their
            questions or that has the name of one, and no pair of theirs is shown.
        instances: how many to draw per task; duplicates are dropped.
        seed: of the draws; each task has a stream of its own.
    """
    unseen = EvaluationAnswers(evaluation)
    material = material_of(tasks)
    words = words_of_lists(material)
    categories = word_categories(material)
    templates: list[TaskTemplate] = []
    if words:
        templates += [*positions(words), *lists(words), *letters(words)]
    if len(set(map(len, words))) >= LONGEST_LIST:
        templates += [*orders(words), *compositions(words, categories, unseen)]
    templates += [*odd_one_out(categories), *inverses(material), *numbers(material), *sentences(material)]
    templates += reworded(material)
    return build(templates, unseen, instances, seed)


def build(
    templates: Iterable[TaskTemplate], unseen: EvaluationAnswers, instances: int, seed: int
) -> list[Task]:
    """The templates as tasks, except those that an evaluation task asks for."""
    new = (t for t in templates if t.name not in unseen.names and not unseen.same_task(t.answer, t.same_share))
    drawn = (template.task(instances, seed, unseen) for template in new)
    return [task for task in drawn if task is not None]


def material_of(tasks: Sequence[Task]) -> Material:
    """Name -> the pairs that training may show."""
    return {t.name: [(i.input, i.output[0]) for i in t.split_instances()[0]] for t in tasks}


def words_of_lists(material: Material) -> list[str]:
    """Every word that stands in a list ("a, b, c") among the questions."""
    return sorted({w for pairs in material.values() for text, _ in pairs for w in _listed(text)})


def word_categories(material: Material) -> dict[str, list[str]]:
    """Category -> words, read off the answers of the "animal_v_object_3" tasks."""
    found: dict[str, set[str]] = {}
    for name, pairs in material.items():
        if match := re.fullmatch(r"([a-z]+)_v_[a-z]+_\d", name):
            found.setdefault(match[1], set()).update(answer for _, answer in pairs)
    return {category: sorted(words) for category, words in found.items()}


def _listed(text: str) -> list[str]:
    """The words of "a, b, c"; nothing for other texts."""
    parts = text.split(", ")
    return parts if len(parts) > 2 and all(re.fullmatch(r"[a-z-]+", p) for p in parts) else []
