"""The load generator: the workloads it draws, and its summary of a real server over fakes."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from server.bench import load
from server.bench.client import RequestRecord, send_request
from server.bench.report import percentile, summarise, table
from server.bench.workload import Workload, schedule
from server.cli import app as t2l
from tests.support.server_launch import Running

QUICK = Workload(rate=400, seconds=0.1, descriptions=3, new_share=0.3, base_share=0.2, max_tokens=4)


def test_seed_determines_the_workload() -> None:
    assert schedule(Workload()) == schedule(Workload())
    assert not {a.description for a in schedule(Workload(seed=1))} & {
        a.description for a in schedule(Workload()) if a.description
    }


def test_schedule_has_the_requested_shares_and_rate() -> None:
    arrivals = schedule(Workload(rate=100, seconds=100, new_share=0.2, base_share=0.3, descriptions=8))
    assert len(arrivals) == pytest.approx(10_000, rel=0.05)
    assert [a.at for a in arrivals] == sorted(a.at for a in arrivals)
    seen = Counter(a.description for a in arrivals)
    assert seen.pop(None) / len(arrivals) == pytest.approx(0.3, abs=0.02)
    assert sum(n == 1 for n in seen.values()) / len(arrivals) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("zipf", [0.0, 1.0, 2.0])
def test_popularity_falls_by_zipfs_law(zipf: float) -> None:
    arrivals = schedule(Workload(rate=200, seconds=100, new_share=0, base_share=0, descriptions=4, zipf=zipf))
    counts = sorted(Counter(a.description for a in arrivals).values(), reverse=True)
    assert counts[0] / counts[3] == pytest.approx(4**zipf, rel=0.15)


@given(st.lists(st.floats(0, 1e3), min_size=1), st.floats(0, 100))
def test_percentile_lies_between_minimum_and_maximum(values: list[float], p: float) -> None:
    assert min(values) <= percentile(values, p) <= max(values)


def test_percentiles_of_known_values() -> None:
    assert percentile([4, 1, 3, 2, 5], 50) == 3
    assert percentile([0, 10], 90) == 9


async def test_summary_covers_every_request_and_adapter_source(running: Running) -> None:
    summary = summarise(await load.run_workload(str(running.http.base_url), QUICK))
    arrivals = schedule(QUICK)
    made = len({a.description for a in arrivals if a.description})
    described = sum(a.description is not None for a in arrivals)
    assert summary["answered"] == summary["requests"] == len(arrivals)
    assert summary["rejected"] == {}
    assert sum(summary["tiers"].values()) == pytest.approx(1)
    assert summary["tiers"]["generated"] >= made / described - 1e-9
    assert summary["tokens_per_second"] > 0
    assert {"all", "base", "generated"} <= set(summary["first_token_ms"])
    assert "tokens/s" in table(summary)


async def test_rejected_requests_are_counted_by_error_code(launch) -> None:
    async with launch(max_requests=1) as server:
        server.engine.gate.clear()
        run = asyncio.create_task(load.run_workload(str(server.http.base_url), QUICK))
        async with asyncio.timeout(10):
            while not any('"429"' in name for name in await server.metrics()):
                pass
        server.engine.gate.set()
        summary = summarise(await run)
    assert summary["rejected"]["too_many_requests"] == summary["requests"] - summary["answered"] > 0


async def test_unreachable_server_is_an_error_of_each_request() -> None:
    records = await load.run_workload("http://127.0.0.1:1", QUICK)
    assert {s.error for s in records} == {"ConnectError"}
    assert summarise(records)["answered"] == 0


@pytest.mark.parametrize(
    ("events", "error"),
    [
        (['{"delta": "a"}'], "cut_off"),
        (['{"delta": "a"}', '{"error": {"code": "engine_dead"}}', "[DONE]"], "engine_dead"),
        (['{"usage": {"completion_tokens": 1}, "adapter": null}', "[DONE]"], None),
        (['{"delta": "a"}', '{"usage": {}}'], "bad_event"),
        (['{"delta": "a"}', '{"usage": '], "bad_event"),
    ],
)
async def test_incomplete_and_invalid_streams_are_errors(events: list[str], error: str | None) -> None:
    body = "".join(f"data: {event}\n\n" for event in events)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=body))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        record = await send_request(http, {"prompt": "hot"}, time.perf_counter)
    assert record.error == error
    assert len(record.chunk_times) == 1


async def test_foreign_error_body_is_reported_by_status() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(502, text="<html>"))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await send_request(http, {}, time.perf_counter)).error == "http_502"


def test_single_chunk_has_no_inter_token_latency() -> None:
    summary = summarise([RequestRecord(1.0, [1.5], end=1.5, tokens=1)])
    assert summary["between_tokens_ms"] == {}
    assert "between tokens" not in table(summary)
    json.dumps(summary, allow_nan=False)


def test_latency_counts_from_the_scheduled_time() -> None:
    record = RequestRecord(1.0, [1.5, 1.6, 1.8], end=2.0, tokens=3)
    assert record.time_to_first_token == 0.5
    assert record.inter_token_latencies == pytest.approx([0.1, 0.2])
    assert record.total_latency == 1.0


async def test_command_prints_a_table_and_writes_json(running: Running, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "load.json"
    options = ["--rate", "200", "--seconds", "0.1", "--max-tokens", "2", "--out", str(out)]
    command = ["bench", "serve", "--url", str(running.http.base_url), *options]
    done = await asyncio.to_thread(CliRunner().invoke, t2l, command)
    assert done.exit_code == 0, done.output
    assert "| between tokens |" in done.output
    assert json.loads(out.read_text())["workload"]["rate"] == 200


def test_command_fails_and_names_the_error_if_every_request_fails() -> None:
    done = CliRunner().invoke(t2l, ["bench", "serve", "--url", "http://127.0.0.1:1", "--seconds", "0.5"])
    assert done.exit_code == 1
    assert "ConnectError" in done.output


def test_shares_above_one_are_refused() -> None:
    done = CliRunner().invoke(t2l, ["bench", "serve", "--new-share", "0.8", "--base-share", "0.3"])
    assert done.exit_code == 2
