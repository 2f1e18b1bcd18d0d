"""The ten benchmarks of the paper as eval_tasks: seven of multiple choice, GSM8K, HumanEval, MBPP.

Asked as the paper asks them, zero-shot through the chat template, with greedy answers: multiple choice
answers with an option's label and nothing else, GSM8K reasons first and is read at its last number, code is
run against its tests. The wording of the prompts is ours. One thing is stricter: an answer to a multiple
choice must begin with a label that stands by itself; neither "Ants" nor "A plant" is taken for option A, nor
"There is no doubt" for a no.

A folder holds, per benchmark, `NAME.jsonl` with `question`, `context`, `choices`, `answer_index`, `answer` and
for code `test`, `entry_point` or `test_setup`; where there are training rows, `NAME.train.jsonl`, from which
examples are shown; and for all `descriptions.json` with `train_descriptions` and `eval_descriptions`.
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
from hypernet.evaluation.eval_task import MAX_PROMPT_CHARACTERS, MAX_SHOT_CHARACTERS, SHOTS, EvalTask, Sample
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
    """A benchmark's entry in `descriptions.json`."""

    train_descriptions: list[str] = Field(min_length=1)
    eval_descriptions: list[str] = Field(min_length=1)


@dataclass(frozen=True)
class BenchmarkFormat:
    """How one benchmark is asked and graded.

    Attributes:
        metric: what the score is called.
        ask: a question's prompt.
        solve: its answer, as an example shows it.
        grade: an answer's score.
        can_stop: whether the beginning of an answer decides the score.
        max_tokens: of an answer.
        answer_prefix: how every answer begins.
        target: whether `solve` is the one right answer, whose likelihood means something.
    """

    metric: str
    ask: Callable[[Question], str]
    solve: Callable[[Question], str]
    grade: Callable[[Question, str], float]
    can_stop: Callable[[Question, str], bool]
    max_tokens: int
    answer_prefix: str = ""
    target: bool = False


def choice(labels: str, task: str) -> BenchmarkFormat:
    """A multiple choice whose options are labelled with the characters of `labels`."""

    def ask(q: Question) -> str:
        options = "\n".join(f"{label}: {text.strip()}" for label, text in zip(labels, q.choices, strict=False))
        used = ", ".join(labels[: len(q.choices)])
        return f"{task}\n\n{q.question.strip()}\n\n{options}\n\nReply with one of {used} and nothing else."

    def label(q: Question) -> str:
        assert q.answer_index is not None
        return labels[q.answer_index]

    return BenchmarkFormat(
        metric="accuracy",
        ask=ask,
        solve=label,
        grade=lambda q, answer: float(_label(answer) == label(q)),
        can_stop=lambda _, beginning: bool(_LABEL_SETTLED.search(beginning)),
        max_tokens=6,
        target=True,
    )


# The first word, if its line ends there or it is closed by a sign that one puts behind a label: "B", "(B) air",
# "**B**: air"; not "B air", "1.5 litres", "A, B or C".
_LABEL = re.compile(r"\W*(\w+)[^\S\n]*(?:\Z|\n|[:.;!)\]}>*`'\"](?!\w))")
# The first word and what decides about it: a line's end, a sign and what follows it, or another word.
_LABEL_SETTLED = re.compile(r"\w[^\S\n]*(?:\n|[^\w\s][\s\S])|\w[^\S\n]+\w")


def _label(text: str) -> str:
    """The label that an answer begins with, in capitals; empty if it begins otherwise."""
    found = _LABEL.match(text)
    return found[1].upper() if found else ""


_TRUTHS = {"true": "true", "yes": "true", "false": "false", "no": "false"}


def _truth(text: str) -> str:
    """The first word, if it says yes or no, as BoolQ's labels say it; else empty."""
    found = re.search(r"\w+", text)
    return _TRUTHS.get(found[0].lower(), "") if found else ""


def last_number(text: str) -> float | None:
    """The last number of a text: "so 1,200 cents, or $12.50." -> 12.5."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return float(found[-1].replace(",", "")) if found else None


def extract_code(answer: str) -> str:
    """The program in an answer that begins inside a code block, or opens one of its own at once."""
    inside, *rest = answer.split("```")
    return inside if inside.strip() or not rest else rest[0].removeprefix("python")


def _humaneval(q: Question, answer: str) -> float:
    code = extract_code(answer)
    # The prompt is a whole function by itself, of which the answer is the body, or a better definition.
    between = "\n" if f"def {q.entry_point}" in code else ""
    return float(passes(f"{q.question}{between}{code}\n\n{q.test}\n\ncheck({q.entry_point})\n"))


def _mbpp(q: Question, answer: str) -> float:
    return float(passes(f"{q.test_setup}\n{extract_code(answer)}\n\n{q.test}\n"))


def _never(_: Question, __: str) -> bool:
    return False


def _closed(_: Question, beginning: str) -> bool:
    """The code block has been closed."""
    inside, *rest = beginning.split("```")
    return bool(rest) and (bool(inside.strip()) or len(rest) > 1)


_SCIENCE = choice("ABCDE", "Which option answers the question?")
BENCHMARKS = {
    "arc_challenge": _SCIENCE,
    "arc_easy": _SCIENCE,
    "boolq": BenchmarkFormat(
        metric="accuracy",
        ask=lambda q: f"{q.context}\n\nQuestion: {q.question}?\n\nReply with true or false and nothing else.",
        solve=lambda q: q.answer,
        grade=lambda q, answer: float(_truth(answer) == q.answer),
        can_stop=lambda _, beginning: bool(re.search(r"\w\W", beginning)),
        max_tokens=16,
        target=True,
    ),
    "gsm8k": BenchmarkFormat(
        metric="accuracy",
        ask=lambda q: q.question,
        solve=lambda q: q.rationale,
        grade=lambda q, answer: float(last_number(answer) == last_number(q.answer)),
        can_stop=_never,
        max_tokens=256,
        answer_prefix=STEPS,
    ),
    "hellaswag": choice("0123", "Which of the numbered endings continues the passage?"),
    "humaneval": BenchmarkFormat(
        metric="pass@1",
        ask=lambda q: f"Complete this Python function.\n\n{CODE}{q.question}```",
        solve=lambda q: f"{q.question}{q.answer}\n```",
        grade=_humaneval,
        can_stop=_closed,
        max_tokens=256,
        answer_prefix=CODE,
    ),
    "mbpp": BenchmarkFormat(
        metric="pass@1",
        ask=lambda q: f"{q.question} It must pass these tests:\n\n{CODE}{q.test}\n```",
        solve=lambda q: f"{q.answer}\n```",
        grade=_mbpp,
        can_stop=_closed,
        max_tokens=256,
        answer_prefix=CODE,
    ),
    "openbookqa": choice("ABCD", "Which option answers the question or completes the sentence?"),
    "piqa": choice("01", "Which option solves the problem, or is the more usual variant to do it?"),
    "winogrande": choice("12", "Which option belongs where the sentence has a gap (_)?"),
}


def load_benchmarks(
    folder: Path, n: int, seed: int, needed: Collection[str] = tuple(BENCHMARKS)
) -> list[EvalTask]:
    """Draw up to n questions of each benchmark that is there.

    Raises:
        BenchmarkError: a needed file is missing, or one is malformed.
    """
    try:
        wordings = TypeAdapter(dict[str, BenchmarkDescriptions]).validate_json(
            (folder / DESCRIPTIONS_FILE).read_bytes()
        )
        there = {name for name in wordings if _file(folder, name).exists()}
        return [
            _benchmark_task(folder, name, wordings[name], n, seed)
            for name in BENCHMARKS
            if name in there | {*needed}
        ]
    except (OSError, KeyError) as error:
        raise BenchmarkError(f"{folder} is no folder of the ten benchmarks: {error}") from error
    except ValidationError as error:
        raise BenchmarkError(f"{folder / DESCRIPTIONS_FILE}: {first_problem(error)}") from error


def _benchmark_task(folder: Path, name: str, wordings: BenchmarkDescriptions, n: int, seed: int) -> EvalTask:
    style, rng = BENCHMARKS[name], random.Random(f"{seed}:{name}")
    rows = _read(_file(folder, name))
    fitting = [q for q in rng.sample(rows, len(rows)) if len(style.ask(q)) <= MAX_PROMPT_CHARACTERS]
    asked = fitting[:n]
    training = _file(folder, f"{name}.train")
    seen = _read(training) if training.exists() else []
    solved = [(style.ask(q), style.answer_prefix + style.solve(q)) for q in rng.sample(seen, len(seen))]
    fresh = [pair for pair in solved if pair[0] not in {style.ask(q) for q in asked}]
    return EvalTask(
        task=name,
        metric=style.metric,
        samples=[_sample(style, q) for q in asked],
        examples=sorted(fresh, key=lambda pair: sum(map(len, pair)) > MAX_SHOT_CHARACTERS)[:SHOTS],
        eval_descriptions=wordings.eval_descriptions[:3],
        training_descriptions=wordings.train_descriptions[:3],
        max_tokens=style.max_tokens,
        answer_prefix=style.answer_prefix,
    )


def _sample(style: BenchmarkFormat, q: Question) -> Sample:
    return Sample(
        prompt=style.ask(q),
        target=style.solve(q) if style.target else None,
        grade=lambda answer: style.grade(q, answer),
        key=q.model_dump_json(),
        can_stop=lambda beginning: style.can_stop(q, beginning),
    )


def _file(folder: Path, name: str) -> Path:
    packed = folder / f"{name}.jsonl.gz"
    return packed if packed.exists() else folder / f"{name}.jsonl"


def _read(path: Path) -> list[Question]:
    rows = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                rows.append(Question.model_validate_json(line))
            except ValidationError as error:
                raise BenchmarkError(f"{path}, line {number}: {first_problem(error, 'the line')}") from error
    return rows
