"""`make demo`: start a server, send the same prompts with several descriptions,
and print the answers.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

PROMPTS = ["hot", "cheap", "I loved this film"]
DESCRIPTIONS = [
    None,
    "Give a word with the opposite meaning.",
    "Write the first letter of the word.",
    "Say whether the sentiment of the text is positive or negative.",
    "Write a question about the text.",
]
START_LIMIT_S = 600.0
HEARTBEAT_S = 15.0
"""Maximum seconds without output while the server starts."""
STEP = re.compile(r"\S+Z INFO (?:t2l|hypernet\S*) (.*)")
"""A line of the server's log about the begin or end of a step."""
console = Console(width=118)


def main() -> None:
    """Run the demonstration; exit status 1 if the server does not start."""
    started = time.monotonic()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = Path("runs/demo-server.log")
    log.parent.mkdir(exist_ok=True)
    console.print(f"Starting the server (all of its log: {log}) ...")
    with log.open("wb") as out:
        environment = os.environ | {"T2L_PORT": str(port), "T2L_LOG_LEVEL": "INFO", "T2L_LOG_FORMAT": "text"}
        command = [sys.executable, "-m", "server", "serve"]
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            wait_until_ready(client, server, log)
            console.print(f"Ready after {time.monotonic() - started:.0f} s.")
            show(client)
            console.print(f"All processes together: {resident_gib(server.pid):.2f} GiB resident.")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    console.print(
        f"Server stopped with exit status {server.returncode}; {time.monotonic() - started:.0f} s in all."
    )


def wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    """Poll /ready and show the steps of the start. On failure show the end of the log and exit."""
    begun = last = time.monotonic()
    with log.open(errors="replace") as lines:
        while time.monotonic() - begun < START_LIMIT_S and server.poll() is None:
            for step in filter(None, map(STEP.match, lines)):
                console.print(f"  {step[1]}", markup=False, highlight=False)
                last = time.monotonic()
            if time.monotonic() - last > HEARTBEAT_S:
                console.print(f"  {time.monotonic() - begun:.0f} s so far")
                last = time.monotonic()
            try:
                if client.get("/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.25)
    console.print(f"The server did not start. The end of {log}:")
    console.print("\n".join(log.read_text(errors="replace").splitlines()[-25:]), markup=False)
    sys.exit(1)


def show(client: httpx.Client) -> None:
    """One row per description, one column per prompt."""
    table = Table(title="One base model, one adapter per sentence", show_lines=True)
    for column in ("task description", *(f'"{prompt}"' for prompt in PROMPTS), "adapter", "first token, ms"):
        table.add_column(column, min_width=9, max_width=34)
    for description in DESCRIPTIONS:
        answers = []
        for prompt in PROMPTS:
            body = {"task_description": description, "prompt": prompt, "max_tokens": 12, "temperature": 0}
            reply = client.post("/v1/generate", json=body)
            reply.raise_for_status()
            answers.append(reply.json())
        sources = [a["adapter"]["source"] if a["adapter"] else "-" for a in answers]
        table.add_row(
            description or "(none: the base model)",
            *(a["completion"].strip() for a in answers),
            "\n".join(sources),
            "\n".join(f"{1000 * a['timings']['first_token_s']:.0f}" for a in answers),
        )
    console.print(table)


def resident_gib(pid: int) -> float:
    """Resident memory of a process and all its descendants."""
    root = psutil.Process(pid)
    return sum(p.memory_info().rss for p in [root, *root.children(recursive=True)]) / 2**30


if __name__ == "__main__":
    main()
