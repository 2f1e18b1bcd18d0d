"""`t2l bench`: measure a running server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Measure a running server.")


@app.callback()
def _commands() -> None:
    """Measure a running server."""


@app.command()
def serve(
    url: Annotated[str, typer.Option(help="URL of the server.")] = "http://127.0.0.1:8000",
    rate: Annotated[float, typer.Option(min=0.001, help="Mean arrivals per second (Poisson process).")] = 4.0,
    seconds: Annotated[float, typer.Option(min=0.001, help="Seconds in which requests arrive.")] = 30.0,
    descriptions: Annotated[int, typer.Option(min=1, help="Number of known descriptions.")] = 32,
    zipf: Annotated[float, typer.Option(min=0, help="The k-th most popular one has weight k^-zipf.")] = 1.0,
    new_share: Annotated[float, typer.Option(min=0, max=1, help="Share with a new description.")] = 0.1,
    base_share: Annotated[float, typer.Option(min=0, max=1, help="Share without a description.")] = 0.1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Completion tokens of each request.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of descriptions, prompts and arrival times.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file to write the results to.")] = None,
) -> None:
    """Send a random workload to a server and report latencies.

    Exit status 1 if every request failed.
    """
    from server.bench.load import run_workload
    from server.bench.report import summarise, table
    from server.bench.workload import Workload

    if new_share + base_share > 1:
        raise typer.BadParameter(
            f"--new-share {new_share} and --base-share {base_share} add up to more than 1: lower one of them"
        )
    workload = Workload(
        rate=rate,
        seconds=seconds,
        descriptions=descriptions,
        zipf=zipf,
        new_share=new_share,
        base_share=base_share,
        max_tokens=max_tokens,
        seed=seed,
    )
    summary = summarise(asyncio.run(run_workload(url, workload)))
    if summary["answered"]:
        typer.echo(table(summary))
    else:
        errors = ", ".join(f"{count} x {code}" for code, count in summary["rejected"].items())
        typer.echo(f"every request to {url} failed ({errors}). Check --url and the server's log", err=True)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"workload": asdict(workload), **summary}, indent=2) + "\n")
    if not summary["answered"]:
        raise typer.Exit(1)
