"""Datasets of the Hugging Face hub in the formats of this project.

Datasets `Lots-of-LoRAs/task...` (Super-NaturalInstructions, Wang et al. 2022, as Bruel-Gabrielsson
et al. 2024 published it) become lines of a task file. The ten benchmarks of T2L (Charakorn et al.
2025) become rows of a benchmark file: `id`, `question`, `context`, `choices`, `answer_index`,
`answer`; code also `test` and what it needs. The converters are functions of rows. Only `download`
needs the `datasets` package and the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hypernet.data.tasks import Instance, Task
from hypernet.errors import T2lError

Row = Mapping[str, Any]
_QUESTION = "Now complete the following example"
"""Text before the input in a Super-NaturalInstructions prompt,
after the definition and its examples.
"""


class HubError(T2lError):
    """A dataset that cannot be downloaded or has another format. The message says what to do."""


def download(name: str, subset: str | None, split: str) -> list[dict[str, Any]]:
    """All rows of one split, from the hub or its local cache.

    Raises:
        HubError: `datasets` is not installed, or the dataset cannot be downloaded.
    """
    try:
        from datasets import load_dataset  # type: ignore[import-not-found]
    except ImportError as error:
        raise HubError("the hub is read with the datasets package: pip install datasets") from error
    try:
        return [dict(row) for row in load_dataset(name, subset, split=split)]
    except (OSError, ValueError, RuntimeError) as error:
        raise HubError(f"{name} ({subset or 'default'}, {split}) could not be read: {error}") from error


def natural_instruction(name: str, rows: Iterable[Row]) -> Task:
    """A `Lots-of-LoRAs/taskNNN_...` dataset as a task.

    Every row repeats the definition and solved examples before its input. Both are removed, and the
    definition becomes the task's `definition`.

    Args:
        name: the dataset's name, with or without `Lots-of-LoRAs/`.
        rows: with `input` and `output` (a string or several).

    Raises:
        HubError: there is no row, or one has no input or output.
    """
    short = name.rsplit("/", 1)[-1]
    instances, definition = [], ""
    for number, row in enumerate(rows):
        if not isinstance(row.get("input"), str) or not row.get("output"):
            raise HubError(f"{name}: row {number} has no input or no output")
        from_prompt, question = _split_prompt(row["input"])
        definition = definition or from_prompt
        output = [row["output"]] if isinstance(row["output"], str) else list(row["output"])
        instances.append(Instance(input=question, output=output))
    if not instances:
        raise HubError(f"{name} holds no row")
    return Task(
        task=f"lol_{short.split('_')[0].removeprefix('task')}",
        name=short,
        metric=metric(instances),
        definition=definition,
        # A task needs a description. Without a definition, the name is the only text about it.
        descriptions=[] if definition else [short.replace("_", " ")],
        instances=instances,
    )


def _split_prompt(prompt: str) -> tuple[str, str]:
    """(definition, input) of a Super-NaturalInstructions prompt; ("",
    prompt) if it has another form.
    """
    head, mark, tail = prompt.rpartition(_QUESTION)
    if not mark:
        return "", prompt.strip()
    definition = head.split("Positive Example", 1)[0].removeprefix("Definition:").strip()
    question = tail.split("Input:", 1)[-1].strip()
    return definition, question.removesuffix("Output:").strip()


def metric(instances: Sequence[Instance]) -> Literal["exact_match", "rougeL"]:
    """Exact match where answers are few or short (labels, single words), else ROUGE-L."""
    answers = [i.output[0] for i in instances]
    few = len(set(answers)) <= max(2, len(answers) // 10)
    short = sum(len(a.split()) for a in answers) / len(answers) <= 3
    return "exact_match" if few or short else "rougeL"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Dataset of a benchmark on the hub, and how a row of it is read."""

    name: str
    subset: str | None
    split: str
    """Split to evaluate on: test, or validation where the labels of test are not public."""
    read: Callable[[Row], dict[str, Any]]


def _choice(question: str, choices: Sequence[str], index: int, context: str = "") -> dict[str, Any]:
    return {
        "question": question,
        "context": context,
        "choices": list(choices),
        "answer_index": index,
        "answer": choices[index],
    }


def _open(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"question": question, "context": "", "choices": [], "answer_index": None, "answer": answer, **more}


def _lettered(row: Row, question: str) -> dict[str, Any]:
    """ARC and OpenBookQA: parallel lists of texts and labels. The key is a label."""
    return _choice(row[question], row["choices"]["text"], list(row["choices"]["label"]).index(row["answerKey"]))


BENCHMARKS: Mapping[str, Benchmark] = {
    "arc_challenge": Benchmark("allenai/ai2_arc", "ARC-Challenge", "test", lambda r: _lettered(r, "question")),
    "arc_easy": Benchmark("allenai/ai2_arc", "ARC-Easy", "test", lambda r: _lettered(r, "question")),
    "boolq": Benchmark(
        "google/boolq",
        None,
        "validation",
        lambda r: _choice(r["question"], ("false", "true"), int(r["answer"]), r["passage"]),
    ),
    "gsm8k": Benchmark(
        "openai/gsm8k",
        "main",
        "test",
        lambda r: _open(r["question"], r["answer"].rpartition("####")[2].strip(), rationale=r["answer"]),
    ),
    "hellaswag": Benchmark(
        "Rowan/hellaswag", None, "validation", lambda r: _choice(r["ctx"], r["endings"], int(r["label"]))
    ),
    "openbookqa": Benchmark("allenai/openbookqa", "main", "test", lambda r: _lettered(r, "question_stem")),
    "piqa": Benchmark(
        "ybisk/piqa", None, "validation", lambda r: _choice(r["goal"], (r["sol1"], r["sol2"]), int(r["label"]))
    ),
    "winogrande": Benchmark(
        "allenai/winogrande",
        "winogrande_xl",
        "validation",
        lambda r: _choice(r["sentence"], (r["option1"], r["option2"]), int(r["answer"]) - 1),
    ),
    "humaneval": Benchmark(
        "openai/openai_humaneval",
        None,
        "test",
        lambda r: _open(r["prompt"], r["canonical_solution"], entry_point=r["entry_point"], test=r["test"]),
    ),
    "mbpp": Benchmark(
        "google-research-datasets/mbpp",
        "full",
        "test",
        lambda r: _open(r["text"], r["code"], test="\n".join(r["test_list"]), test_setup=r["test_setup_code"]),
    ),
}


def benchmark_rows(name: str, rows: Iterable[Row], split: str | None = None) -> list[dict[str, Any]]:
    """Rows of one of the ten benchmarks in the format that evaluation reads.

    Args:
        name: a key of `BENCHMARKS`.
        rows: as the hub gives them.
        split: their split; None is the one to evaluate on.

    Raises:
        HubError: a row lacks a column, or its answer is not among its choices.
    """
    source = BENCHMARKS[name]
    made = []
    for number, row in enumerate(rows):
        try:
            read = source.read(row)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise HubError(f"{source.name}: row {number} has not the format of {name}: {error!r}") from error
        about = {"id": f"{name}-{split or source.split}-{number}", "benchmark": name}
        made.append({**about, "split": split or source.split, **read, "source": {"repo": source.name}})
    return made
