"""The base class of every error that a user can fix.

A module defines its own errors beside the code that raises them. Commands and the server's start
catch the base class: see `hypernet.cli_support.user_errors`.
"""

from __future__ import annotations


class T2lError(Exception):
    """An error in what the user gave: a path, an option, a file or a model.

    The message is complete without a traceback. It says what is wrong, where, and how to fix it.
    """
