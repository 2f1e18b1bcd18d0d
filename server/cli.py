"""`t2l`: the command line. Each command is a few lines over a module that does the work."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from hypernet.cli import app as hypernet_app
from hypernet.cli_support import user_errors
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
    if context.invoked_subcommand != "serve":  # which has log settings of its own
        logging.basicConfig(format="%(message)s")
        logging.getLogger("hypernet").setLevel(logging.INFO)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder of the hypernetwork.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Folder or hub id of the base model.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id of the description encoder.")] = None,
) -> None:
    """Run the server. Options win over `T2L_*` in the environment; `t2l settings` lists those."""
    from server.settings import Settings

    options = {
        "host": host,
        "port": port,
        "checkpoint": checkpoint,
        "base_model": base_model,
        "encoder": encoder,
    }
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        for problem in error.errors():
            place = "".join(f"{part}: " for part in problem["loc"])
            typer.echo(f"t2l: {place}{problem['msg']}", err=True)
        raise typer.Exit(2) from None
    with user_errors():
        choice = ModelChoice(settings.checkpoint, settings.encoder, settings.base_model, settings.cache)
        check_serve(choice)
    # After the check: the app imports torch.
    from server.app import create_app
    from server.observability.logging import configure
    from server.uvicorn_server import serve as run_server

    configure(settings.log_level, settings.log_format)
    raise typer.Exit(run_server(create_app(settings), settings.host, settings.port, settings.drain_timeout_s))


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
