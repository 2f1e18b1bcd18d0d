"""The paper's ten benchmarks as eval tasks: seven of multiple choice, GSM8K, HumanEval, MBPP.

As in the paper, questions are zero-shot, in the chat template, and decoding is greedy. A
multiple-choice answer is a label and nothing else. GSM8K reasons first, and its last number is
graded. Code is run against its tests. The wording of the prompts is ours. Grading of multiple
choice is stricter than the paper's: the answer must begin with a label that stands by itself.
Neither "Ants" nor "A plant" is option A, and "There is no doubt" is not a no.

A folder holds one `NAME.jsonl` per benchmark with `question`, `context`, `choices`, `answer_index`,
`answer`, and for code `test`, `entry_point` or `test_setup`. Training rows, from which the few-shot
examples are drawn, are in `NAME.train.jsonl`. `descriptions.json` holds `train_descriptions` and
`eval_descriptions` of each benchmark. Files may be gzipped.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hypernet.config import first_problem
from hypernet.data.tasks import open_text
from hypernet.errors import T2lError
from hypernet.evaluation.eval_task import (
    MAX_PROMPT_CHARACTERS,
    MAX_SHOT_CHARACTERS,
    NUM_SHOTS,
    EvalTask,
    Sample,
)
from hypernet.evaluation.sandbox import passes

DESCRIPTIONS_FILE = "descriptions.json"
CODE = "```python\n"
STEPS = "Let's think step by step."


class BenchmarkError(T2lError):
    """A benchmark folder that cannot be read; the message names file, line and field."""


class Question(BaseModel):
    """One line of a benchmark file."""

    model_config = ConfigDict(frozen=True)

    question: str
    context: str = ""
    choices: list[str] = Field(default_factory=list)
    answer_index: int | None = None
    answer: str
    rationale: str = ""
    test: str = ""
    test_setup: str = ""
    entry_point: str = ""


class BenchmarkDescriptions(BaseModel):
    """The entry of a benchmark in `descriptions.json`."""

    train_descriptions: list[str] = Field(min_length=1)
    eval_descriptions: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class BenchmarkFormat:
    """How a benchmark is prompted and graded.

    Attributes:
        metric: name of the score.
        prompt: question -> the user's message.
        solution: question -> its answer in a few-shot example.
        grade: question and answer -> score, 0..1.
        can_stop: question and beginning of an answer -> True if no further token can change the
            score.
        max_tokens: limit of an answer.
        answer_prefix: the beginning that every answer is given.
        has_target: whether `solution` is the only right answer, so that its likelihood is measured.
        fault: question -> why it cannot be graded; empty if it can.
    """

    metric: str
    prompt: Callable[[Question], str]
    solution: Callable[[Question], str]
    grade: Callable[[Question, str], float]
    can_stop: Callable[[Question, str], bool]
    max_tokens: int
    answer_prefix: str = ""
    has_target: bool = False
    fault: Callable[[Question], str] = lambda _: ""


def multiple_choice(labels: str, instruction: str) -> BenchmarkFormat:
    """Multiple choice. The options are labelled with the characters of `labels`."""

    def prompt(q: Question) -> str:
        options = "\n".join(f"{label}: {text.strip()}" for label, text in zip(labels, q.choices, strict=False))
        used = ", ".join(labels[: len(q.choices)])
        return (
            f"{instruction}\n\n{q.question.strip()}\n\n{options}\n\nReply with one of {used} and nothing else."
        )

    def label(q: Question) -> str:
        return labels[q.answer_index or 0]

    def fault(q: Question) -> str:
        if not 2 <= len(q.choices) <= len(labels):
            return f"choices: has {len(q.choices)} options, needs 2 to {len(labels)}"
        if q.answer_index is None or not 0 <= q.answer_index < len(q.choices):
            return f"answer_index: is {q.answer_index}, needs 0 to {len(q.choices) - 1}"
        return ""

    return BenchmarkFormat(
        metric="accuracy",
        prompt=prompt,
        solution=label,
        grade=lambda q, answer: float(_label(answer) == label(q)),
        can_stop=lambda _, beginning: bool(_LABEL_DECIDED.search(beginning)),
        max_tokens=6,
        has_target=True,
        fault=fault,
    )


# The first word, if its line ends there or a closing sign follows: "B", "(B) air", "**B**: air".
# No match: "B air", "1.5 litres", "A, B or C".
_LABEL = re.compile(r"\W*(\w+)[^\S\n]*(?:\Z|\n|[:.;!)\]}>*`'\"](?!\w))")
# The first word and what decides whether it is a label: a line end, a sign and its successor, or a
# word.
_LABEL_DECIDED = re.compile(r"\w[^\S\n]*(?:\n|[^\w\s][\s\S])|\w[^\S\n]+\w")


def _label(text: str) -> str:
    """The label at the beginning of an answer, in capitals; empty if there is none."""
    found = _LABEL.match(text)
    return found[1].upper() if found else ""


_BOOLEANS = {"true": "true", "yes": "true", "false": "false", "no": "false"}


def _boolean(text: str) -> str:
    """`true` or `false` if the first word says so; else empty."""
    found = re.search(r"\w+", text)
    return _BOOLEANS.get(found[0].lower(), "") if found else ""


def last_number(text: str) -> float | None:
    """The last number of a text: "so 1,200 cents, or $12.50." -> 12.5."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return float(found[-1].replace(",", "")) if found else None


def extract_code(answer: str) -> str:
    """The program in an answer that continues a code block.

    It may also open a code block of its own.
    """
    inside, *rest = answer.split("```")
    return inside if inside.strip() or not rest else rest[0].removeprefix("python")


def _humaneval(q: Question, answer: str) -> float:
    code = extract_code(answer)
    # The question is the head of a function. The answer is its body, or a new definition on lines
    # of its own.
    separator = "\n" if f"def {q.entry_point}" in code else ""
    return float(passes(f"{q.question}{separator}{code}\n\n{q.test}\n\ncheck({q.entry_point})\n"))


def _mbpp(q: Question, answer: str) -> float:
    return float(passes(f"{q.test_setup}\n{extract_code(answer)}\n\n{q.test}\n"))


def _never(_: Question, __: str) -> bool:
    return False


def _code_block_closed(_: Question, beginning: str) -> bool:
    """Whether the answer has closed its code block."""
    inside, *rest = beginning.split("```")
    return bool(rest) and (bool(inside.strip()) or len(rest) > 1)


_SCIENCE = multiple_choice("ABCDE", "Which option answers the question?")
BENCHMARKS = {
    "arc_challenge": _SCIENCE,
    "arc_easy": _SCIENCE,
    "boolq": BenchmarkFormat(
        metric="accuracy",
        prompt=lambda q: (
            f"{q.context}\n\nQuestion: {q.question}?\n\nReply with true or false and nothing else."
        ),
        solution=lambda q: q.answer,
        grade=lambda q, answer: float(_boolean(answer) == q.answer),
        can_stop=lambda _, beginning: bool(re.search(r"\w\W", beginning)),
        max_tokens=16,
        has_target=True,
        fault=lambda q: "" if q.answer in ("true", "false") else "answer: must be true or false",
    ),
    "gsm8k": BenchmarkFormat(
        metric="accuracy",
        prompt=lambda q: q.question,
        solution=lambda q: q.rationale,
        grade=lambda q, answer: float(last_number(answer) == last_number(q.answer)),
        can_stop=_never,
        max_tokens=256,
        answer_prefix=STEPS,
        fault=lambda q: "answer: holds no number" if last_number(q.answer) is None else "",
    ),
    "hellaswag": multiple_choice("0123", "Which of the numbered endings continues the passage?"),
    "humaneval": BenchmarkFormat(
        metric="pass@1",
        prompt=lambda q: f"Complete this Python function.\n\n{CODE}{q.question}```",
        solution=lambda q: f"{q.question}{q.answer}\n```",
        grade=_humaneval,
        can_stop=_code_block_closed,
        max_tokens=256,
        answer_prefix=CODE,
        fault=lambda q: "" if q.test and q.entry_point else "test and entry_point: one of them is empty",
    ),
    "mbpp": BenchmarkFormat(
        metric="pass@1",
        prompt=lambda q: f"{q.question} It must pass these tests:\n\n{CODE}{q.test}\n```",
        solution=lambda q: f"{q.answer}\n```",
        grade=_mbpp,
        can_stop=_code_block_closed,
        max_tokens=256,
        answer_prefix=CODE,
        fault=lambda q: "" if q.test else "test: is empty",
    ),
    "openbookqa": multiple_choice("ABCD", "Which option answers the question or completes the sentence?"),
    "piqa": multiple_choice("01", "Which option solves the problem, or is the more usual way to do it?"),
    "winogrande": multiple_choice("12", "Which option belongs where the sentence has a gap (_)?"),
}


def load_benchmarks(
    folder: Path, n: int, seed: int, needed: Collection[str] = tuple(BENCHMARKS)
) -> list[EvalTask]:
    """Draw up to n samples of each benchmark that the folder holds.

    Args:
        folder: the benchmark files.
        n: samples per benchmark.
        seed: of the draw.
        needed: names of the benchmarks that must be there.

    Raises:
        BenchmarkError: a needed file is missing, or one is malformed.
    """
    path = folder / DESCRIPTIONS_FILE
    try:
        described = TypeAdapter(dict[str, BenchmarkDescriptions]).validate_json(path.read_bytes())
        present = {name for name in described if _file(folder, name).exists()}
        return [
            _benchmark_task(folder, name, described[name], n, seed)
            for name in BENCHMARKS
            if name in present | {*needed}
        ]
    except OSError as error:
        raise BenchmarkError(f"{folder} is no folder of benchmarks: {error}") from error
    except KeyError as error:
        raise BenchmarkError(f"{path}: has no entry {error}") from error
    except ValidationError as error:
        raise BenchmarkError(f"{path}: {first_problem(error)}") from error


def _benchmark_task(
    folder: Path, name: str, descriptions: BenchmarkDescriptions, n: int, seed: int
) -> EvalTask:
    form, rng = BENCHMARKS[name], random.Random(f"{seed}:{name}")
    questions = _read(_file(folder, name), form)
    questions = rng.sample(questions, len(questions))
    sampled = [q for q in questions if len(form.prompt(q)) <= MAX_PROMPT_CHARACTERS][:n]
    path = _file(folder, f"{name}.train")
    training = _read(path, form) if path.exists() else []
    solved = [
        (form.prompt(q), form.answer_prefix + form.solution(q)) for q in rng.sample(training, len(training))
    ]
    prompts = {form.prompt(q) for q in sampled}
    unused = [pair for pair in solved if pair[0] not in prompts]
    return EvalTask(
        task=name,
        metric=form.metric,
        samples=[_sample(form, q) for q in sampled],
        examples=sorted(unused, key=lambda pair: sum(map(len, pair)) > MAX_SHOT_CHARACTERS)[:NUM_SHOTS],
        eval_descriptions=descriptions.eval_descriptions[:3],
        training_descriptions=descriptions.train_descriptions[:3],
        max_tokens=form.max_tokens,
        answer_prefix=form.answer_prefix,
    )


def _sample(form: BenchmarkFormat, q: Question) -> Sample:
    return Sample(
        prompt=form.prompt(q),
        target=form.solution(q) if form.has_target else None,
        grade=lambda answer: form.grade(q, answer),
        key=q.model_dump_json(),
        can_stop=lambda beginning: form.can_stop(q, beginning),
    )


def _file(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.jsonl.gz"
    return packed if packed.exists() else folder / f"{name}.jsonl"


def _read(path: Path, form: BenchmarkFormat) -> list[Question]:
    questions = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                question = Question.model_validate_json(line)
            except ValidationError as error:
                raise BenchmarkError(f"{path}, line {number}: {first_problem(error, 'the line')}") from error
            if fault := form.fault(question):
                raise BenchmarkError(f"{path}, line {number}: {fault}")
            questions.append(question)
    return questions
