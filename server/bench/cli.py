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
    url: Annotated[str, typer.Option(help="The server.")] = "http://127.0.0.1:8000",
    rate: Annotated[float, typer.Option(min=0.001, help="Mean arrivals per second (Poisson).")] = 4.0,
    seconds: Annotated[float, typer.Option(min=0.001, help="How long requests arrive.")] = 30.0,
    descriptions: Annotated[int, typer.Option(min=1, help="Descriptions in circulation.")] = 32,
    zipf: Annotated[float, typer.Option(min=0, help="The k-th most popular has weight k^-zipf.")] = 1.0,
    new_share: Annotated[float, typer.Option(min=0, max=1, help="Share of never-seen descriptions.")] = 0.1,
    base_share: Annotated[float, typer.Option(min=0, max=1, help="Share without a description.")] = 0.1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Completion tokens of each.")] = 32,
    seed: Annotated[int, typer.Option(help="Another seed is other descriptions, prompts and times.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers here, as JSON.")] = None,
) -> None:
    """Send a realistic load and report what clients waited for. Exit status 1 if nothing was answered."""
    from server.bench.load import run
    from server.bench.mix import Mix
    from server.bench.report import summarise, table

    if new_share + base_share > 1:
        raise typer.BadParameter("--new-share and --base-share are more than 1 together")
    mix = Mix(
        rate=rate,
        seconds=seconds,
        descriptions=descriptions,
        zipf=zipf,
        new_share=new_share,
        base_share=base_share,
        max_tokens=max_tokens,
        seed=seed,
    )
    summary = summarise(asyncio.run(run(url, mix)))
    typer.echo(table(summary) if summary["answered"] else f"nothing answered: {summary['rejected']}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"mix": asdict(mix), **summary}, indent=2) + "\n")
    if not summary["answered"]:
        raise typer.Exit(1)
