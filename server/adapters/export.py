"""A zip archive of the two files of a PEFT adapter folder."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Date of every file: the earliest that zip allows.

A constant date makes the archive reproducible.
"""


def zip_files(files: Mapping[str, bytes]) -> bytes:
    """Pack files without compression, because bf16 weights do not compress."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o644 << 16  # the default is 0600, which `unzip` applies
            archive.writestr(info, data)
    return buffer.getvalue()
