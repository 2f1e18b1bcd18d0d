"""The `t2l` command. Each subcommand is a few lines over a module that does the work."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from hypernet.cli import app as hypernet_app
from hypernet.cli_options import BaseModel, EncoderName
from hypernet.cli_support import USAGE_ERROR, echo_error, user_errors
from hypernet.preflight import ModelChoice, check_serve
from server.bench.cli import app as bench_app

app = typer.Typer(
    name="t2l",
    help="Text-to-LoRA: a task description in, a specialised model out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(hypernet_app)  # train, eval, import-reference: at the top level, beside serve
app.add_typer(bench_app, name="bench")


@app.callback()
def _commands(context: typer.Context) -> None:
    """Text-to-LoRA: a task description in, a specialised model out."""
    if context.invoked_subcommand != "serve":  # which has its own log settings
        logging.basicConfig(format="%(message)s")
        logging.getLogger("hypernet").setLevel(logging.INFO)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on. 0: any free port.", show_default="8000")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Hypernetwork checkpoint.", show_default="the shipped checkpoint")
    ] = None,
    base_model: BaseModel = None,
    encoder: EncoderName = None,
) -> None:
    """Run the server until SIGTERM or SIGINT.

    Every setting is an environment variable too: see `t2l settings`. An option takes precedence.
    """
    from server.observability.logging import configure
    from server.settings import Settings, problems

    options = {
        "host": host,
        "port": port,
        "checkpoint": checkpoint,
        "base_model": base_model,
        "encoder": encoder,
    }
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        _configure_for_errors()
        for problem in problems(error):
            _report(problem)
        raise typer.Exit(USAGE_ERROR) from None
    configure(settings.log_level, settings.log_format)

    with user_errors(_report):
        choice = ModelChoice(settings.checkpoint, settings.encoder, settings.base_model, settings.cache)
        check_serve(choice)
        # These import torch. Missing packages have been reported before.
        from server.startup import check_startup
        from server.uvicorn_server import listen

        check_startup(settings)
        sockets = listen(settings.host, settings.port)
    from server.app import create_app
    from server.uvicorn_server import serve as serve_app

    raise typer.Exit(serve_app(create_app(settings), sockets, settings.drain_timeout_s))


def _configure_for_errors() -> None:
    """Configure the log although the settings are wrong: where JSON is wanted,
    errors are JSON too.
    """
    from server.observability.logging import configure

    if os.environ.get("T2L_LOG_FORMAT", "").strip() == "json":
        configure("INFO", "json")


def _report(message: str) -> None:
    """Report why the server does not start: as a log line in JSON,
    as other commands do otherwise.
    """
    from server.observability.logging import is_json

    if is_json():
        logging.getLogger("t2l").error(message)
    else:
        echo_error(message)


@app.command("settings")
def show_settings() -> None:
    """Print every setting with its default and meaning, as Markdown (docs/settings.md)."""
    from server.settings import settings_page

    typer.echo(settings_page())


def main() -> None:
    """Entry point of the `t2l` command."""
    app()


if __name__ == "__main__":
    main()
