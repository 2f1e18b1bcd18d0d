"""The `t2l` command, and `python -m server`: the command line, if its packages are installed."""

from __future__ import annotations

import sys

from hypernet.preflight import NotReadyError, check_command_line, explain_import


def main() -> None:
    """Run the command line.

    Where a package is missing, say what to install and exit with status 2.
    """
    try:
        check_command_line()
        try:
            from server.cli import main as command_line

            command_line()
        except ModuleNotFoundError as error:  # in a command without a check of its own
            raise explain_import(error) from error
    except NotReadyError as error:
        print(f"t2l: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
