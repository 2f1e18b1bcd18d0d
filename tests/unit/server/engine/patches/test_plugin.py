"""Which patches the plugin installs, by device, vLLM release and selection."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import pytest

from server.engine.patches import cpu_lora, cpu_ops, plugin, seeded_sampling, stacked_slots
from server.engine.patches.selection import VARIABLE

vllm = pytest.importorskip("vllm")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the patches that `register` installs, as in a fresh process on a CPU.

    This process's vLLM stays as it is.
    """
    from vllm.lora.worker_manager import WorkerLoRAManager
    from vllm.platforms import current_platform

    calls: list[str] = []

    def record(name: str) -> Any:
        return lambda **options: calls.append("=".join([name, *(str(value) for value in options.values())]))

    monkeypatch.setattr(plugin, "_registered", False)
    monkeypatch.setattr(WorkerLoRAManager, "_load_adapter", WorkerLoRAManager._load_adapter)
    monkeypatch.setattr(cpu_lora, "install", record("cpu_lora"))
    monkeypatch.setattr(cpu_ops, "install", record("cpu_ops"))
    monkeypatch.setattr(seeded_sampling, "install", record("seeded_sampling"))
    monkeypatch.setattr(stacked_slots, "install", record("stacked_slots"))
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: True)
    monkeypatch.delenv(VARIABLE, raising=False)
    return calls


def test_vllm_finds_the_plugin() -> None:
    (entry,) = (e for e in entry_points(group="vllm.general_plugins") if e.name == "t2l")
    assert entry.load() is plugin.register


def test_registering_twice_patches_once(installed: list[str]) -> None:
    from vllm.lora.worker_manager import WorkerLoRAManager

    plugin.register()
    patched = WorkerLoRAManager._load_adapter
    plugin.register()
    assert WorkerLoRAManager._load_adapter is patched
    assert installed == ["cpu_lora=True", "cpu_ops", "seeded_sampling", "stacked_slots"]


def test_unknown_release_stays_unpatched_and_is_reported(
    installed: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    plugin.register()
    assert installed == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "vLLM 0.33.0 is not 0.32.x" in caplog.text


def test_gpu_keeps_vllms_own_operators(installed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: False)
    plugin.register()
    assert installed == ["stacked_slots"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("none", []),
        ("cpu_ops,seeded_sampling,stacked_slots", ["cpu_ops", "seeded_sampling", "stacked_slots"]),
        ("cpu_lora=products", ["cpu_lora=False"]),
        ("cpu_lora,stacked_slots", ["cpu_lora=True", "stacked_slots"]),
    ],
)
def test_selection_decides_which_patches_are_installed(
    installed: list[str], monkeypatch: pytest.MonkeyPatch, selection: str, expected: list[str]
) -> None:
    monkeypatch.setenv(VARIABLE, selection)
    plugin.register()
    assert installed == expected
