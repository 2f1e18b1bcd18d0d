"""Limits of an encoder: long descriptions, unknown characters, other languages.

    python -m hypernet.analysis.encoder_limits TASKS docs/data/translated_descriptions.json

The measure is the nearest task. A task is the mean embedding of some of its descriptions. A
description that the encoder reads has its own task as the nearest of all. docs/decisions.md has the
numbers and what they decided.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from hypernet.data.tasks import Task, load_tasks
from hypernet.encoder import Encoder

PROTOTYPE_DESCRIPTIONS = 6
"""Descriptions whose mean embedding stands for a task."""
MIN_DESCRIPTIONS = 20
"""A task needs this many descriptions: the rest makes long ones."""
WORDS = (300, 800)
"""Words of a long description."""
UNREAD = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
"""Shares of a description's characters that become unknown."""
PREAMBLE = (
    "Thank you for your time. This text was copied from the wiki of our team, and several people maintain it. "
    "Colleagues in three offices use the tool every day, and the results are stored for thirty days. The "
    "office is closed on public holidays. Last year we moved to a building near the river. "
)


def long_text(kind: str, task: Task, descriptions: Sequence[str], words: int) -> str:
    """A description of at least so many words, of one kind: preamble, paraphrases or examples."""
    if kind == "preamble":
        return PREAMBLE * (words // len(PREAMBLE.split())) + descriptions[0]
    if kind == "paraphrases":
        parts = list(descriptions)
    else:
        parts = [f"Input: {i.input} Output: {i.output[0]}" for i in task.instances]
    while len(" ".join(parts).split()) < words:
        parts += parts
    text = " ".join(" ".join(parts).split()[:words])
    return text if kind == "paraphrases" else f"{text} {descriptions[0]}"


def nearest(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    """[n, e], [tasks, e] -> index of the nearest task, [n]"""
    return (F.normalize(embeddings, dim=-1) @ prototypes.T).argmax(dim=1)


def share(equal: Tensor) -> float:
    """Share of True. [n] -> 0 to 1"""
    return equal.float().mean().item()


class Limits:
    """An encoder and the tasks that it is measured on."""

    def __init__(self, encoder: Encoder, tasks: list[Task], seed: int = 0) -> None:
        self._encoder = encoder
        self._tasks = [t for t in tasks if len(set(t.descriptions)) >= MIN_DESCRIPTIONS]
        self._rng = random.Random(seed)
        shuffled = [
            self._rng.sample(sorted(set(t.descriptions)), len(set(t.descriptions))) for t in self._tasks
        ]
        self._others = [texts[PROTOTYPE_DESCRIPTIONS:] for texts in shuffled]
        means = [encoder.encode(texts[:PROTOTYPE_DESCRIPTIONS]).mean(dim=0) for texts in shuffled]
        self._prototypes = F.normalize(torch.stack(means), dim=-1)  # [tasks, e]

    def long(self, count: int) -> None:
        """Long descriptions of `count` tasks: cut at the window, and whole."""
        chosen = range(0, len(self._tasks), max(1, len(self._tasks) // count))
        own = torch.tensor(list(chosen))
        short = self._encoder.encode([self._others[i][0] for i in chosen])
        print(f"short: own task {share(nearest(short, self._prototypes) == own):.2f}")
        for kind in ("preamble", "paraphrases", "examples"):
            for words in WORDS:
                texts = [long_text(kind, self._tasks[i], self._others[i], words) for i in chosen]
                for name, form in (("cut", self._cut), ("whole", str)):
                    z = self._encoder.encode([form(text) for text in texts])
                    right = share(nearest(z, self._prototypes) == own)
                    cosine = F.cosine_similarity(z, short).mean()
                    print(
                        f"{kind}, {words} words, {name}: own task {right:.2f}, cosine {cosine:.3f}", flush=True
                    )

    def _cut(self, text: str) -> str:
        """The words that fit into the encoder's window."""
        window = self._encoder.tokenizer.window
        words = text.split()
        while window is not None and len(self._encoder.tokenizer(" ".join(words)).token_ids) > window:
            words.pop()
        return " ".join(words)

    def unread(self) -> None:
        """Descriptions of which a growing share of the words is replaced by unknown characters."""
        own = torch.arange(len(self._tasks))
        texts = [others[0] for others in self._others]
        whole = self._encoder.encode(texts)
        for wanted in (0.0, *UNREAD):
            changed = [self._replace_words(text, wanted) for text in texts]
            z = self._encoder.encode(changed)
            found = nearest(z, self._prototypes)
            unread = sum(self._encoder.tokenizer(text).unread for text in changed) / len(changed)
            same = share(found == nearest(whole, self._prototypes))
            cosine = F.cosine_similarity(z, whole).mean()
            print(
                f"unread {unread:.2f}: same task as whole {same:.2f}, own task {share(found == own):.2f}, "
                f"cosine {cosine:.3f}",
                flush=True,
            )

    def languages(self, translations: list[dict[str, str]]) -> None:
        """Translations of English descriptions, one language after the other."""
        english = self._encoder.encode([row["en"] for row in translations])
        for language in translations[0]:
            texts = [row[language] for row in translations]
            z = self._encoder.encode(texts)
            likeness = F.normalize(z, dim=-1) @ F.normalize(english, dim=-1).T  # [n, n]
            retrieved = share(likeness.argmax(dim=1) == torch.arange(len(texts)))
            same = share(nearest(z, self._prototypes) == nearest(english, self._prototypes))
            read = [self._encoder.tokenizer(text) for text in texts]
            print(
                f"{language}: cosine to own English {likeness.diagonal().mean():.3f}, own English is nearest "
                f"{retrieved:.2f}, same task {same:.2f}, unread {sum(r.unread for r in read) / len(read):.2f}, "
                f"split words {sum(r.split_words for r in read) / len(read):.2f}",
                flush=True,
            )

    def _replace_words(self, text: str, wanted: float) -> str:
        words = text.split()
        left = round(wanted * sum(map(len, words)))
        for i in self._rng.sample(range(len(words)), len(words)):
            if len(words[i]) <= left:
                left -= len(words[i])
                words[i] = "\U0001f622" * len(words[i])
        return " ".join(words)


def main(tasks: Path, translations: Path) -> None:
    """Print all measurements of the bundled encoder."""
    encoder = Encoder.load()
    limits = Limits(encoder, load_tasks(tasks))
    limits.languages(json.loads(translations.read_text()))
    limits.unread()
    limits.long(count=24)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
