"""`t2l generate` reads a description by the rules of the server."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from hypernet.peft_io import read_provenance
from server.cli import app


@pytest.fixture
def generate(tiny_checkpoint: Path, tiny_encoder: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    def run(description: str) -> Result:
        options = ["--checkpoint", str(tiny_checkpoint), "--encoder", str(tiny_encoder)]
        return CliRunner().invoke(app, ["generate", description, "--out", str(tmp_path / "out"), *options])

    return run


def test_adapter_is_generated_for_the_normalised_description(generate, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = generate(" Say\u200b  the opposite.\n")
    assert result.exit_code == 0, result.output
    digest = sha256(b"Say the opposite.").hexdigest()
    assert read_provenance(tmp_path / "out")["t2l.description_sha256"] == digest


def test_partly_unread_description_is_warned_about(generate) -> None:  # type: ignore[no-untyped-def]
    result = generate("Reply with a sad face: 😢")
    assert result.exit_code == 0
    assert "warning: the encoder's vocabulary lacks" in result.stderr


@pytest.mark.parametrize(
    ("description", "said"), [("\u200b", "is empty"), ("😢", "lacks 100%"), ("x" * 300, "300 tokens")]
)
def test_unreadable_description_is_one_line_and_status_2(generate, description: str, said: str) -> None:  # type: ignore[no-untyped-def]
    result = generate(description)
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output
