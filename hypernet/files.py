"""Atomic writes of files, whose mode follows the process's umask.

The temporary files of the standard library, and those of safetensors, have mode 0600 whatever the
umask is. Renamed to their final name, they are unreadable for another user, such as a container
image's.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file, in UTF-8 where the content is text. A reader sees the old content or the new
    one.

    Several processes may write the same path: the last one to finish wins. The mode follows the
    umask.

    Raises:
        OSError: the folder is absent or cannot be written to, or the disk is full.
    """
    partial = partial_path(path)
    try:
        # "x" creates the file with the mode that the umask leaves of 0666.
        with partial.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """A path beside another one, to write to before the file or folder gets its final name."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def apply_umask(folder: Path) -> None:
    """Give every file in a folder the mode of a newly created file,
    for libraries that write mode 0600.
    """
    new = partial_path(folder / "mode")
    new.touch()
    mode = new.stat().st_mode & 0o777
    new.unlink()
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(mode)
