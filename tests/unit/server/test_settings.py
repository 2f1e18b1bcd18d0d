from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from server import settings as settings_module
from server.cli import app
from server.settings import RENAMED, SECTIONS, Settings, env_variable, settings_page

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(env_variable(name), raising=False)


def test_defaults_listen_on_this_machine_only():
    settings = Settings()
    assert (settings.host, settings.port, settings.redis_url) == ("127.0.0.1", 8000, None)


def test_arguments_take_precedence_over_the_environment(monkeypatch):
    monkeypatch.setenv("T2L_PORT", "9000")
    monkeypatch.setenv("T2L_REDIS_URL", "")
    assert Settings().port == 9000
    assert Settings(port=1).port == 1
    assert Settings().redis_url is None


def test_misspelt_variable_is_refused_with_the_nearest(monkeypatch):
    monkeypatch.setenv("T2L_REDIS_URI", "redis://x")
    with pytest.raises(ValidationError, match="T2L_REDIS_URI; the nearest is T2L_REDIS_URL"):
        Settings()


def test_misspelt_lower_case_variable_is_refused_too(monkeypatch):
    monkeypatch.setenv("t2l_prot", "1")
    with pytest.raises(ValidationError, match="t2l_prot; the nearest is T2L_PORT"):
        Settings()


@pytest.mark.parametrize("former", ["T2L_LISTEN_PORT", "t2l_listen_port"])
def test_former_variable_fails_and_names_its_replacement(monkeypatch, former):
    monkeypatch.setitem(settings_module.RENAMED, "T2L_LISTEN_PORT", "T2L_PORT")
    monkeypatch.setenv(former, "9000")
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert f"{former} is now T2L_PORT: set that variable instead" in line


def test_replacements_of_former_variables_are_settings():
    settings = {env_variable(name) for name in Settings.model_fields}
    assert set(RENAMED.values()) <= settings
    assert not set(RENAMED) & settings


def test_variables_of_a_kubernetes_service_are_recognised(monkeypatch):
    monkeypatch.setenv("T2L_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("T2L_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(ValidationError, match="enableServiceLinks: false"):
        Settings()


@pytest.mark.parametrize(
    ("device", "choice", "compiles"),
    [("cpu", "auto", False), ("cuda", "auto", True), ("cuda:1", "0", False), ("cpu", "1", True)],
)
def test_hypernetwork_is_compiled_on_a_gpu_or_on_request(device, choice, compiles):
    settings = Settings(hypernetwork_device=device, hypernetwork_compile=choice)
    assert settings.compiles_hypernetwork is compiles


def test_device_memory_is_shared_with_one_device_only():
    assert Settings(share_device_memory="1").share_device_memory == "1"
    with pytest.raises(ValidationError, match="T2L_TENSOR_PARALLEL=1"):
        Settings(share_device_memory="1", tensor_parallel=2)


def test_settings_are_frozen_and_secrets_do_not_print():
    settings = Settings(cache_key="hush")
    with pytest.raises(ValidationError):
        settings.port = 1
    assert "hush" not in repr(settings)


def test_every_setting_has_a_description():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_page_is_what_the_code_prints():
    """`t2l settings > docs/settings.md` writes it anew."""
    printed = CliRunner().invoke(app, ["settings"]).output
    assert (ROOT / "docs" / "settings.md").read_text() == printed


def test_settings_page_lists_every_setting_under_a_heading():
    assert set(SECTIONS) <= set(Settings.model_fields)
    assert next(iter(SECTIONS)) == next(iter(Settings.model_fields))
    page = settings_page()
    assert [name for name in Settings.model_fields if f"| `{env_variable(name)}` |" not in page] == []


@pytest.mark.parametrize("variable", ["T2L_CACHE", "T2L_CHECKPOINT"])
def test_home_directory_in_paths_is_expanded(monkeypatch, variable):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv(variable, "~/x")
    value = getattr(Settings(), variable.removeprefix("T2L_").lower())
    assert value == Path("/home/someone/x")


def test_home_directory_of_nobody_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("T2L_CACHE", "~no-such-user/x")
    with pytest.raises(ValidationError, match="~no-such-user/x"):
        Settings()


def test_wrong_setting_is_named_and_exits_with_2(monkeypatch):
    monkeypatch.setenv("T2L_PORT", "many")
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 2
    assert result.output == "t2l: T2L_PORT must be an integer\n"
