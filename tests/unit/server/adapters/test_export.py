"""An exported adapter unpacks to files that every user can read."""

from __future__ import annotations

import io
import zipfile

from server.adapters.export import zip_files


def test_files_of_an_export_are_readable_for_all() -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}
    with zipfile.ZipFile(io.BytesIO(zip_files(files))) as archive:
        assert {info.filename: oct(info.external_attr >> 16) for info in archive.infolist()} == dict.fromkeys(
            files, "0o644"
        )
        assert {name: archive.read(name) for name in files} == files
