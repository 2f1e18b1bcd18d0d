"""The shipped checkpoint behind a real server: documented examples work,
and exports equal what is served.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from hypernet.bundled_models import base_model_path
from hypernet.peft_io import read_provenance

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
WORDS = (
    *("hot", "big", "happy", "up", "cheap", "fast", "old", "light", "open", "early"),
    *("true", "rich", "hard", "wet", "loud", "full", "north", "win", "love", "day"),
)
FIRST_TOKENS = 6


@pytest.mark.parametrize(("page", "least"), [("README.md", 1), ("docs/api.md", 6)])
def test_curl_lines_of_the_page_work_as_pasted(
    default_server: str, tmp_path: Path, page: str, least: int
) -> None:
    examples = re.findall(
        r"```bash\n([^`]*?curl[^`]*)```(?:\n\n```\w*\n(.*?)```)?", (ROOT / page).read_text(), re.DOTALL
    )
    assert len(examples) >= least
    for block, shown in examples:
        script = block.replace("http://", "").replace("localhost:8000", default_server.removeprefix("http://"))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        shows_error = shown.startswith('{"error":')
        assert (b'{"error":' in done.stdout) == shows_error, done.stdout.decode()
    if page == "docs/api.md":  # it exports an adapter
        names = set(zipfile.ZipFile(tmp_path / "adapter.zip").namelist())
        assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors"}


def test_exported_adapter_in_peft_generates_the_served_tokens(default_server: str, tmp_path: Path) -> None:
    description = "Give a word with the opposite meaning."
    with httpx.Client(base_url=default_server, timeout=120) as http:
        made = http.post("/v1/adapters", json={"task_description": description}).json()
        (tmp_path / "a.zip").write_bytes(http.get(f"/v1/adapters/{made['id']}/export").content)
        served = [
            http.post(
                "/v1/generate",
                json={"task_description": description, "prompt": word, "max_tokens": FIRST_TOKENS},
            ).json()["completion"]
            for word in WORDS
        ]
    zipfile.ZipFile(tmp_path / "a.zip").extractall(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(base_model_path(), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base_model_path())
    model = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    for word, completion in zip(WORDS, served, strict=True):
        turn = [{"role": "user", "content": word}]
        ids = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = model.generate(**ids, max_new_tokens=FIRST_TOKENS, do_sample=False)
        answer = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer == completion, f"{word}: PEFT says {answer!r}, the server {completion!r}"


def test_model_cards_and_checkpoints_agree_and_are_small() -> None:
    folders = sorted((ROOT / "checkpoints").iterdir())
    assert [folder.name for folder in folders] == [f"smollm2-135m{s}" for s in ("", "-m", "-multitask", "-s")]
    assert sum(f.stat().st_size for folder in folders for f in folder.iterdir()) < 40_000_000
    baseline = folders.pop(2)
    provenance = read_provenance(baseline)
    assert f"{int(provenance['t2l.steps']):,} steps" in (baseline / "README.md").read_text()
    assert f"{float(provenance['t2l.validation_nll']):.3f}" in (baseline / "README.md").read_text()
    for folder in folders:
        training = json.loads((folder / "config.json").read_text())["training"]
        card = (folder / "README.md").read_text()
        assert f"{training['steps']:,} steps" in card
        assert f"{training['validation_nll']:.3f}" in card


def test_load_generator_measures_a_real_server(default_server: str, tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    options = ["--rate", "4", "--seconds", "3", "--max-tokens", "4", "--new-share", "0.5", "--out", str(out)]
    command = [sys.executable, "-m", "server.cli", "bench", "serve", "--url", default_server, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(out.read_text())
    assert numbers["answered"] == numbers["requests"] > 0
    assert numbers["rejected"] == {}
    assert numbers["tiers"]["generated"] > 0
    assert 0 < numbers["first_token_ms"]["all"]["p50"] <= numbers["whole_ms"]["p50"]
