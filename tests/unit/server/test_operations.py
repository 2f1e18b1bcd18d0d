import asyncio
import json
import logging
import signal

import pytest
from prometheus_client import REGISTRY, Gauge

from server.observability.formatters import JsonFormatter, TextFormatter
from server.observability.metrics import Metrics
from tests.support.server_fakes import FakeEngine, eventually


async def ask(running, **body):
    return await running.http.post("/v1/generate", json={"prompt": "hot", "max_tokens": 3} | body)


async def test_loading_server_is_alive_but_not_ready(launch):
    engine = FakeEngine()
    engine.ready.clear()
    async with launch(engine=engine, wait=False) as running:
        assert (await running.http.get("/health")).status_code == 200
        for response in (await running.http.get("/ready"), await ask(running)):
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "starting"
            assert "retry-after" in response.headers
        engine.ready.set()
        await eventually(lambda: running.app.state.lifecycle.phase == "ready")
        ready = await running.http.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "ok")
    assert engine.stopped


async def test_failed_start_ends_the_server_with_its_reason(launch, caplog):
    engine = FakeEngine()
    engine.start_failure = ValueError("no such model")
    async with launch(engine=engine, wait=False) as running:
        await asyncio.wait_for(asyncio.shield(running.done), 5)
        assert running.app.state.lifecycle.failure == "no such model"
    assert engine.stopped
    assert "could not start" in caplog.text


async def test_engine_death_is_reported_and_ends_the_server(launch):
    async with launch(exit_after_death_s=0.5) as running:
        running.engine.die()
        assert (await running.http.get("/health")).status_code == 503
        await asyncio.wait_for(asyncio.shield(running.done), 5)
        assert running.app.state.lifecycle.failure == "the inference engine has died: killed"
    assert running.engine.stopped


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_signal_lets_requests_in_flight_finish_and_admits_no_others(running, sig):
    running.engine.gate.clear()
    asking = asyncio.create_task(ask(running, task_description="x"))
    await eventually(lambda: running.engine.running)
    signal.raise_signal(sig)
    ready, late = await running.http.get("/ready"), await ask(running)
    assert ready.status_code == late.status_code == 503
    assert ready.json()["error"]["code"] == late.json()["error"]["code"] == "draining"
    assert (await running.http.get("/health")).status_code == 200
    running.engine.gate.set()
    assert (await asking).status_code == 200
    await asyncio.wait_for(running.done, 5)
    assert running.engine.stopped


async def test_draining_and_stopping_are_logged(launch, caplog):
    caplog.set_level(logging.INFO)
    async with launch() as running:
        running.engine.gate.clear()
        asking = asyncio.create_task(ask(running))
        await eventually(lambda: running.engine.running)
        signal.raise_signal(signal.SIGTERM)
        await eventually(lambda: "draining" in caplog.messages)
        running.engine.gate.set()
        assert (await asking).status_code == 200
        await asyncio.wait_for(asyncio.shield(running.done), 8)
    fields = {record.message: getattr(record, "fields", {}) for record in caplog.records}
    assert fields["draining"] == {"in_flight": 1, "timeout_s": 30}
    assert fields["stopped"]["unfinished"] == 0
    assert fields["stopped"]["drain_seconds"] >= 0
    assert caplog.messages.count("draining") == 1


async def test_requests_in_flight_are_ended_at_the_drain_deadline(launch):
    async with launch(drain_timeout_s=0.2) as running:
        running.engine.gate.clear()
        asking = asyncio.create_task(ask(running))
        await eventually(lambda: running.engine.running)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(asyncio.shield(running.done), 8)
        with pytest.raises(Exception):  # noqa: B017 - whatever httpx says of a cut connection
            (await asking).raise_for_status()
        assert running.engine.running == 0
        assert running.engine.stopped


async def test_second_signal_ends_the_drain(launch):
    async with launch(drain_timeout_s=60) as running:
        running.engine.gate.clear()
        asking = asyncio.create_task(ask(running))
        await eventually(lambda: running.engine.running)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        await asyncio.wait_for(asyncio.shield(running.done), 8)
        await asyncio.wait([asking])


async def test_metrics_count_requests_stages_and_adapters(running):
    await ask(running, task_description="Say the opposite.")
    await ask(running, task_description="Say the opposite.")
    await ask(running, temperature=9)
    metrics = await running.metrics()
    expected = {
        't2l_requests_total{method="POST",route="/v1/generate",status="200"}': 2,
        't2l_request_seconds_count{method="POST",route="/v1/generate"}': 3,
        't2l_stage_seconds_count{stage="generate"}': 1,
        't2l_stage_seconds_count{stage="embed"}': 1,
        't2l_stage_seconds_count{stage="queue"}': 1,
        't2l_stage_seconds_count{stage="register"}': 2,
        't2l_stage_seconds_count{stage="first_token"}': 2,
        't2l_stage_seconds_count{stage="total"}': 2,
        "t2l_batch_size_count": 1,
        "t2l_batch_wait_seconds_count": 1,
        "t2l_batch_queue_depth": 0,
        't2l_cache_lookups_total{outcome="miss",tier="memory"}': 1,
        't2l_cache_lookups_total{outcome="hit",tier="memory"}': 1,
        't2l_adapters_resident{tier="memory"}': 1,
        't2l_adapters_resident{tier="engine"}': 1,
        "t2l_adapters_made_total": 1,
        't2l_rejections_total{reason="invalid_value"}': 1,
        't2l_tokens_total{kind="completion"}': 6,
        "t2l_requests_in_flight": 1,  # the scrape itself
    }
    assert {name: metrics.get(name) for name in expected} == expected
    assert any(name.startswith("t2l_build_info{") for name in metrics)


async def test_metric_labels_contain_nothing_that_a_client_chose(running):
    made = (await ask(running, task_description="very secret words")).json()["adapter"]["id"]
    await running.http.get(f"/v1/adapters/{made}")
    await running.http.get("/very/secret/path")
    await running.http.request("BREW", "/v1/generate")
    text = (await running.http.get("/metrics")).text
    assert made not in text
    assert "secret" not in text
    assert "BREW" not in text
    assert 'route="/v1/adapters/{adapter_id}"' in text
    assert 'route="unmatched"' in text


def test_metrics_of_other_libraries_are_rendered():
    shown = Gauge("vllm:t2l_test_running", "x")
    try:
        shown.set(1)
        text = Metrics().render().decode()
    finally:
        REGISTRY.unregister(shown)
    assert "vllm:t2l_test_running 1.0" in text


async def test_request_is_logged_once_without_description_or_prompt(running, caplog):
    caplog.set_level(logging.INFO)
    answer = await ask(running, task_description="very secret words", prompt="hidden prompt")
    await eventually(lambda: any(r.name == "t2l.request" for r in caplog.records))
    (record,) = [r for r in caplog.records if r.name == "t2l.request"]
    assert record.fields["route"] == "/v1/generate"
    assert record.fields["status"] == 200
    assert record.fields["adapter"] == answer.json()["adapter"]["id"]
    assert record.fields["source"] == "generated"
    everything = " ".join(JsonFormatter().format(r) for r in caplog.records)
    assert "secret" not in everything
    assert "hidden" not in everything


async def test_valid_request_id_of_the_client_is_kept(running):
    for given, kept in [("abc-1.2_3", True), ("x" * 65, False), ("a b", False)]:
        answer = await running.http.get("/health", headers={"x-request-id": given})
        assert (answer.headers["x-request-id"] == given) is kept


def test_both_log_formats_contain_the_fields():
    record = logging.LogRecord("t2l.request", logging.INFO, "", 0, "request", None, None)
    record.fields, record.request_id = {"status": 200}, "abc"
    assert TextFormatter().format(record).endswith("INFO t2l.request [abc] request status=200")
    line = json.loads(JsonFormatter().format(record))
    assert (line["status"], line["request_id"], line["message"]) == (200, "abc", "request")
