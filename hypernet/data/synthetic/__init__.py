"""Families of small tasks over the same inputs that differ only in what is asked.

If every training task has inputs of its own, a hypernetwork may ignore the
description: the input gives the task away. Here "pick the second of four", "pick
the longest of four" and "reverse the four" share their inputs, so nothing but the
description tells them apart. That is the pressure to read.

Everything is built from the training instances of given tasks (word lists with
labelled categories, single words, word pairs, number pairs in the manner of
function-vectors, Todd et al. 2024, and instruction-induction, Honovich et al.
2023). Given tasks that a family contains are built too, and others get more paraphrases
(`paraphrases.py`): they bring two or three, a built task has dozens. Tasks whose names
are in `taken` are not built, nor what differs from them in case and punctuation only:
pass the names of the evaluation tasks, so that none of them is ever trained on.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

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


def derive(tasks: Sequence[Task], taken: Collection[str], *, instances: int = 200, seed: int = 0) -> list[Task]:
    """Build every family that the given tasks have material for.

    Args:
        tasks: training tasks; only what their `split_instances` gives to training is used.
        taken: names (`Task.name`) that must not be built: those of evaluation tasks.
        instances: how many to draw per task; duplicates are dropped.
        seed: of the draws; each task has a stream of its own.
    """
    material = material_of(tasks)
    words = words_of_lists(material)
    categories = word_categories(material)
    templates: list[TaskTemplate] = []
    if words:
        templates += [*positions(words), *lists(words), *letters(words)]
    if len(set(map(len, words))) >= LONGEST_LIST:
        templates += [*orders(words), *compositions(words, categories, taken)]
    templates += [*odd_one_out(categories), *inverses(material), *numbers(material), *sentences(material)]
    templates += reworded(material)
    return [template.task(instances, seed) for template in templates if template.name not in taken]


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
