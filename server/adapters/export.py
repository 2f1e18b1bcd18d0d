"""An adapter as a zip of the two files that PEFT and vLLM read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date a zip can hold: without the time of day, the same adapter is the same bytes."""


def zip_files(files: Mapping[str, bytes]) -> bytes:
    """Pack files, uncompressed: bf16 weights do not shrink."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue()
