"""What the plugin changes in vLLM, and when it keeps its hands off."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from server.engine.patches import cpu_lora, cpu_ops, plugin, seeded_sampling, stacked_slots

vllm = pytest.importorskip("vllm")


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run `register` as a fresh process would, without changing this one's vLLM for good."""
    from vllm.lora.worker_manager import WorkerLoRAManager
    from vllm.platforms import current_platform

    calls: list[str] = []
    monkeypatch.setattr(plugin, "_done", False)
    monkeypatch.setattr(WorkerLoRAManager, "_load_adapter", WorkerLoRAManager._load_adapter)
    monkeypatch.setattr(cpu_lora, "install", lambda: calls.append("kernel"))
    monkeypatch.setattr(cpu_ops, "install", lambda: calls.append("ops"))
    monkeypatch.setattr(seeded_sampling, "install", lambda: calls.append("seeds"))
    monkeypatch.setattr(stacked_slots, "install", lambda: calls.append("slots"))
    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: True)
    monkeypatch.delenv("T2L_CPU_LORA_KERNEL", raising=False)
    monkeypatch.delenv("T2L_CPU_OPS", raising=False)
    monkeypatch.delenv("T2L_STACKED_SLOTS", raising=False)
    return calls


def test_vllm_finds_the_plugin() -> None:
    (entry,) = (e for e in entry_points(group="vllm.general_plugins") if e.name == "t2l")
    assert entry.load() is plugin.register


def test_registering_twice_patches_once(installs: list[str]) -> None:
    from vllm.lora.worker_manager import WorkerLoRAManager

    plugin.register()
    patched = WorkerLoRAManager._load_adapter
    plugin.register()
    assert WorkerLoRAManager._load_adapter is patched
    assert installs == ["kernel", "ops", "seeds", "slots"]


def test_an_unknown_release_keeps_its_operator_and_says_so(
    installs: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vllm, "__version__", "0.33.0")
    plugin.register()
    assert installs == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "vLLM 0.33.0 is not 0.32.x" in caplog.text


def test_the_kernel_can_be_switched_off(installs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2L_CPU_LORA_KERNEL", "0")
    plugin.register()
    assert installs == ["ops", "seeds", "slots"]


def test_a_gpu_keeps_vllms_operator(installs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _: False)
    plugin.register()
    assert installs == ["slots"]


def test_stacked_slots_can_be_switched_off(installs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2L_STACKED_SLOTS", "0")
    plugin.register()
    assert installs == ["kernel", "ops", "seeds"]


def test_vllms_own_kernels_can_be_switched_off(installs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2L_CPU_OPS", "0")
    plugin.register()
    assert installs == ["kernel", "seeds", "slots"]
