"""Selects the patches of vLLM that are active, by the variable `T2L_VLLM_PATCHES`.

The server reads the variable once, as a setting, and writes it for the processes that vLLM starts:
the plugin runs in each of them and has no other access to the server's settings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Literal, Self

VARIABLE = "T2L_VLLM_PATCHES"


@dataclass(frozen=True, slots=True)
class PatchSelection:
    """One field per optional patch of vLLM. The default activates all of them.

    As text: the active patches, comma-separated. `all` and `none` stand for themselves. `all` may
    be refined: `all,cpu_lora=products`.
    """

    cpu_lora: Literal["native", "products", "off"] = "native"
    """`native` compiles the LoRA kernel, if the machine has a C++ compiler.

    `products` never does.
    """
    cpu_ops: bool = True
    seeded_sampling: bool = True
    stacked_slots: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the textual form.

        Raises:
            ValueError: a name or a value is unknown; the message lists the known ones.
        """
        names = [item.strip() for item in text.split(",")]
        if names == ["none"]:
            return cls(cpu_lora="off", cpu_ops=False, seeded_sampling=False, stacked_slots=False)
        selection = cls() if "all" in names else cls.parse("none")
        for name in names:
            match name:
                case "all":
                    continue
                case "cpu_lora" | "cpu_lora=native":
                    selection = replace(selection, cpu_lora="native")
                case "cpu_lora=products":
                    selection = replace(selection, cpu_lora="products")
                case "cpu_ops":
                    selection = replace(selection, cpu_ops=True)
                case "seeded_sampling":
                    selection = replace(selection, seeded_sampling=True)
                case "stacked_slots":
                    selection = replace(selection, stacked_slots=True)
                case "none":
                    raise ValueError("`none` stands alone: remove it, or the other names")
                case _:
                    raise ValueError(_unknown(name))
        return selection

    def __str__(self) -> str:
        """The textual form, as short as it can be."""
        if self == type(self)():
            return "all"
        names = {"native": ["cpu_lora"], "products": ["cpu_lora=products"], "off": []}[self.cpu_lora]
        names += [field.name for field in fields(self) if getattr(self, field.name) is True]
        return ",".join(names) or "none"

    @classmethod
    def from_environment(cls) -> Self:
        """The selection of this process. An unset variable selects all patches.

        Raises:
            ValueError: the variable does not parse.
        """
        try:
            return cls.parse(os.environ.get(VARIABLE) or "all")
        except ValueError as error:
            raise ValueError(f"{VARIABLE}: {error}") from None

    @contextmanager
    def exported(self) -> Iterator[None]:
        """Set the variable for the processes that are started inside the context."""
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = str(self)
        try:
            yield
        finally:
            del os.environ[VARIABLE]
            if before is not None:
                os.environ[VARIABLE] = before


def _unknown(name: str) -> str:
    known = [field.name for field in fields(PatchSelection)]
    nearest = get_close_matches(name.partition("=")[0], known, n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest and nearest[0] != name else ""
    return (
        f"{name!r} is not a patch of vLLM.{hint} Give `all`, `none`, or a comma-separated list of "
        f"{', '.join(known)} and cpu_lora=products"
    )
