"""The `t2l` command, and `python -m server`: the command line, if its packages are installed."""

from __future__ import annotations

import sys

from hypernet.preflight import NotReadyError, check_command_line, not_importable


def main() -> None:
    """Run the command line. Without its packages, say what to install and exit with status 2."""
    try:
        check_command_line()
        try:
            from server.cli import main as command_line
        except ModuleNotFoundError as error:  # a repository on PYTHONPATH has no metadata to check
            raise not_importable(error) from error
    except NotReadyError as error:
        print(f"t2l: {error}", file=sys.stderr)
        sys.exit(2)
    command_line()


if __name__ == "__main__":
    main()
