"""With JSON logs, every line that the process or its children write is one JSON object."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.observability.json_output import wrap

ROOT = Path(__file__).parents[4]
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

PROGRAM = """
import logging, os, subprocess, sys, threading, warnings
from server.observability.logging import configure

configure("INFO", "json")
logging.getLogger("t2l").info("ready", extra={"fields": {"seconds": 1}})
logging.getLogger("vllm.engine").warning("of vLLM")
logging.getLogger("uvicorn.error").error("of uvicorn")
warnings.warn("of Python")
print("printed")
os.write(2, b"of a C++ library\\n")
subprocess.run([sys.executable, "-c", "import sys; print('of a child'); sys.exit(1 / 0)"])
thread = threading.Thread(target=lambda: {}["of a thread"])
thread.start()
thread.join()
os.write(1, b"without a newline")
raise RuntimeError("uncaught")
"""


@pytest.fixture(scope="module")
def output():
    """All lines that PROGRAM wrote."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stdout == b""
    return done.stderr.decode().splitlines()


def test_every_line_is_a_json_object_with_an_iso_time(output):
    for line in output:
        assert ISO.fullmatch(json.loads(line)["time"]), line


@pytest.mark.parametrize(
    ("logger", "level", "message"),
    [
        ("t2l", "INFO", "ready"),
        ("vllm.engine", "WARNING", "of vLLM"),
        ("uvicorn.error", "ERROR", "of uvicorn"),
        ("py.warnings", "WARNING", "of Python"),
        ("output", None, "printed"),
        ("output", None, "of a C++ library"),
        ("output", None, "of a child"),
        ("output", None, "ZeroDivisionError"),
        ("output", None, "without a newline"),
        ("t2l", "CRITICAL", "uncaught exception"),
    ],
)
def test_every_source_of_output_is_included(output, logger, level, message):
    lines = [json.loads(line) for line in output]
    found = [line for line in lines if line["logger"] == logger and message in line["message"]]
    assert found
    assert level in (None, found[0]["level"])


def test_uncaught_exceptions_carry_their_traceback(output):
    exceptions = [json.loads(line).get("exception", "") for line in output]
    assert any("RuntimeError: uncaught" in text for text in exceptions)
    assert any("KeyError: 'of a thread'" in text for text in exceptions)


def test_lines_of_json_pass_and_a_traceback_is_one_object():
    traceback = [b"Traceback (most recent call last):", b'  File "x", line 1', b"ValueError: x"]
    first, second, third = wrap([b'{"message": "a"}', *traceback, b"{", b'{"message": "b"}'])
    assert (first, third) == ('{"message": "a"}', '{"message": "b"}')
    wrapped = json.loads(second)
    assert wrapped["message"] == b"\n".join([*traceback, b"{"]).decode()
    assert wrapped["level"] == "ERROR"


def test_blank_lines_are_dropped():
    assert list(wrap([b"", b"  ", b"\r"])) == []
