"""A user's mistake at the start is one line and exit status 2, before a port opens."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from hypernet.errors import T2lError
from server import app as composition
from server import uvicorn_server
from server.cli import app
from server.errors import UnavailableError
from server.settings import Settings, env_variable
from server.startup import describe_failure
from server.uvicorn_server import listen, url

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(env_variable(name), raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("T2L_PORT", "0")


@pytest.fixture
def no_server(monkeypatch):
    def reached(*_):
        raise AssertionError("the server started")

    monkeypatch.setattr(composition, "create_app", reached)
    monkeypatch.setattr(uvicorn_server, "serve", reached)


@pytest.fixture
def empty_folder(tmp_path):
    return str(tmp_path)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"T2L_CHECKPOINT": "/nope"}, "the checkpoint /nope lacks config.json and hypernet.safetensors: "),
        ({"T2L_CHECKPOINT": "EMPTY"}, "the checkpoint EMPTY lacks config.json and hypernet.safetensors: "),
        ({"T2L_BASE_MODEL": "/nope"}, "/nope is not a folder: name a folder or hub id with --base-model"),
        ({"T2L_BASE_MODEL": "./nope"}, "./nope is not a folder: "),
        ({"T2L_BASE_MODEL": "~/nope"}, "~/nope is not a folder: "),
        ({"T2L_BASE_MODEL": "EMPTY"}, "T2L_BASE_MODEL: the folder EMPTY has no config.json"),
        ({"T2L_BASE_MODEL": "a/b/c"}, "T2L_BASE_MODEL: a/b/c: no such folder"),
        ({"T2L_ENCODER": "/nope"}, "/nope is not a folder: name a folder or hub id with --encoder"),
        ({"T2L_ENCODER": "remote-code:/nope"}, "/nope is not a folder: "),
        ({"T2L_ENCODER": "last-token:/nope"}, "/nope is not a folder: "),
        ({"T2L_HYPERNETWORK_DEVICE": "gpu"}, "T2L_HYPERNETWORK_DEVICE: gpu cannot be used: "),
        ({"T2L_HYPERNETWORK_DEVICE": "cuda:99"}, "T2L_HYPERNETWORK_DEVICE: cuda:99 cannot be used: "),
        ({"HOME": "/proc/nobody"}, "the base model cannot be unpacked to /proc/nobody/.cache/t2l: "),
        ({"T2L_CACHE": "/proc/nobody"}, "the base model cannot be unpacked to /proc/nobody: "),
        ({"T2L_HOST": "no-such-host.invalid"}, "the host no-such-host.invalid has no address"),
        ({"T2L_HOST": "192.0.2.1"}, "192.0.2.1 is not an address of this machine"),
        ({"T2L_PORT": "70000"}, "T2L_PORT must be at most 65535, not 70000"),
        ({"T2L_PORT": "many"}, "T2L_PORT must be an integer"),
        ({"T2L_LOG_LEVEL": "loud"}, "T2L_LOG_LEVEL must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ({"T2L_REQUEST_TIMEOUT_S": "long"}, "T2L_REQUEST_TIMEOUT_S must be a number"),
        ({"T2L_REDIS_URL": "http://x"}, "T2L_REDIS_URL must be a URL that begins with 'redis' or 'rediss'"),
        ({"T2L_REDIS_URL": "x"}, "T2L_REDIS_URL must be a URL"),
    ],
)
@pytest.mark.usefixtures("no_server")
def test_mistake_at_the_start_is_one_line_and_exit_status_2(monkeypatch, empty_folder, variables, message):
    monkeypatch.setenv("T2L_CACHE", empty_folder)
    if "HOME" in variables:
        monkeypatch.delenv("T2L_CACHE")
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("EMPTY", empty_folder))
    result = CliRunner().invoke(app, ["serve"])
    assert result.exit_code == 2
    (line,) = result.output.splitlines()
    assert line.startswith(f"t2l: {message.replace('EMPTY', empty_folder)}")


@pytest.mark.usefixtures("no_server")
def test_port_in_use_is_one_line_and_exit_status_2(monkeypatch, empty_folder):
    monkeypatch.setenv("T2L_CACHE", empty_folder)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = CliRunner().invoke(app, ["serve", "--port", str(port)])
    assert result.exit_code == 2
    assert result.output.startswith(f"t2l: port {port} of 127.0.0.1 is in use: ")


@pytest.mark.usefixtures("no_server")
def test_every_wrong_setting_has_its_own_line(monkeypatch):
    monkeypatch.setenv("T2L_PORT", "many")
    monkeypatch.setenv("T2L_MAX_LORAS", "0")
    lines = CliRunner().invoke(app, ["serve"]).output.splitlines()
    assert lines == ["t2l: T2L_PORT must be an integer", "t2l: T2L_MAX_LORAS must be at least 1, not 0"]


def test_error_of_the_start_is_json_where_the_log_is():
    environment = os.environ | {"T2L_LOG_FORMAT": "json", "T2L_PORT": "many", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "server.cli", "serve"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert json.loads(line)["message"] == "T2L_PORT must be an integer"


def test_listening_takes_one_free_port_for_all_addresses_of_a_name():
    sockets = listen("localhost", 0)
    try:
        assert len({listener.getsockname()[1] for listener in sockets}) == 1
    finally:
        for listener in sockets:
            listener.close()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::]:8000"),
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_url_of_an_ipv6_address_has_brackets(host, expected):
    assert url(host, 8000) == expected


def validation_error():
    class Config(BaseModel):
        length: int

    with pytest.raises(ValidationError) as caught:
        Config(length="x")
    return caught.value


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (T2lError("the checkpoint\n is torn"), "the checkpoint is torn"),
        (PermissionError(13, "Permission denied", "/models"), "/models: Permission denied"),
        (UnavailableError("no engine"), "no engine"),
        (ValueError("max_model_len is\n too large"), "max_model_len is too large"),
        (KeyError("x"), None),
        (RuntimeError("x"), None),
    ],
)
def test_failure_to_load_is_one_line_unless_the_program_is_at_fault(error, line):
    assert describe_failure(error) == line


def test_validation_error_of_a_library_is_one_line():
    line = describe_failure(validation_error())
    assert line == "Input should be a valid integer, unable to parse string as an integer"
