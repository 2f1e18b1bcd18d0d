"""Programs that a test needs beside Python packages.

An absent one skips the test, or fails it in CI.
"""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRE_ALL = "TEST_REQUIRE_ALL"
"""Set to 1 where every program must be present, as in CI. An absent program then fails the test."""

INSTALL = {"g++": "apt-get install g++", "curl": "apt-get install curl"}


def require_program(name: str) -> str:
    """The path of a program.

    Skips the test if the program is absent, and says how to install it.
    """
    path = shutil.which(name)
    if path is not None:
        return path
    message = f"{name} is not installed: {INSTALL[name]}"
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(message)
    pytest.skip(message)
