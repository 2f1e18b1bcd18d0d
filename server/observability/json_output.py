"""Makes every line of the process's output a JSON object, whatever its source.

Not everything goes through `logging`: C++ libraries print, child processes print tracebacks,
warnings come before any configuration. So stdout and stderr become a pipe, which child processes
inherit. A thread reads the pipe, passes lines of JSON through and wraps all others.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from server.observability.formatters import iso_time

_CHUNK_BYTES = 1 << 16
_GATHER_S = 0.02
"""Seconds to wait for the rest of a text that is written in pieces, such as a traceback."""
_MAX_GATHERED_BYTES = 1 << 20
_CLOSE_S = 2.0
"""Seconds that the process waits at its exit for the pipe's reader."""


def capture_output() -> TextIO:
    """Redirect stdout and stderr of this process and its future children through the wrapper.

    Returns:
        The original stderr, for lines that are JSON already.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    original = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    read_end, write_end = os.pipe()
    for number in (1, 2):
        os.dup2(write_end, number)
    os.close(write_end)
    stopping = threading.Event()
    arguments = (read_end, original, stopping)
    reader = threading.Thread(target=_copy, args=arguments, name="t2l-output", daemon=True)
    reader.start()

    def restore() -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        stopping.set()
        os.write(1, b"\n")  # wakes the reader; child processes may hold the pipe open for longer
        for number in (1, 2):
            os.dup2(original.fileno(), number)
        reader.join(_CLOSE_S)

    atexit.register(restore)
    return original


def _copy(read_end: int, output: TextIO, stopping: threading.Event) -> None:
    rest = b""
    while gathered := _gather(read_end):
        *lines, rest = (rest + gathered).split(b"\n")
        for line in wrap(lines):
            output.write(f"{line}\n")
        if stopping.is_set() and not _has_more(read_end, 0):
            return


def _gather(read_end: int) -> bytes:
    """The bytes of one burst of output. Empty when all writers have closed the pipe."""
    gathered = os.read(read_end, _CHUNK_BYTES)
    while gathered and len(gathered) < _MAX_GATHERED_BYTES and _has_more(read_end, _GATHER_S):
        piece = os.read(read_end, _CHUNK_BYTES)
        if not piece:
            break
        gathered += piece
    return gathered


def _has_more(read_end: int, wait_s: float) -> bool:
    return bool(select.select([read_end], [], [], wait_s)[0])


def wrap(lines: list[bytes]) -> Iterator[str]:
    """Lines of JSON as they are; other lines as JSON objects.

    Consecutive other lines share one object.
    """
    text: list[str] = []
    for line in lines:
        if _is_json_object(line):
            yield from _wrap_text(text)
            text = []
            yield line.decode()
        else:
            text.append(line.decode(errors="replace").rstrip("\r"))
    yield from _wrap_text(text)


def _wrap_text(lines: list[str]) -> Iterator[str]:
    message = "\n".join(lines).strip("\n")
    if message.strip():
        level = "ERROR" if "Traceback (most recent call last)" in message else "INFO"
        yield json.dumps(
            {"time": iso_time(time.time()), "level": level, "logger": "output", "message": message},
            ensure_ascii=False,
        )


def _is_json_object(line: bytes) -> bool:
    try:
        return line.startswith(b"{") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def configure_vllm() -> None:
    """Have vLLM log JSON in all its processes: through its own variable, which it reads when it is
    imported.

    A logging configuration file that the operator has set is kept.
    """
    if "VLLM_LOGGING_CONFIG_PATH" in os.environ:
        return
    level = os.environ.get("VLLM_LOGGING_LEVEL", "ERROR")
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "server.observability.formatters.JsonFormatter"}},
        "handlers": {
            "vllm": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}
        },
        "loggers": {"vllm": {"handlers": ["vllm"], "level": level, "propagate": False}},
    }
    handle, name = tempfile.mkstemp(prefix="t2l-vllm-logging-", suffix=".json")
    with os.fdopen(handle, "w") as file:
        json.dump(config, file)
    os.environ["VLLM_LOGGING_CONFIG_PATH"] = name
    atexit.register(Path(name).unlink, missing_ok=True)
