"""The load generator: the load it draws, and what it reports of a real server over fakes."""

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
from server.bench.client import Sample, ask
from server.bench.mix import Mix, schedule
from server.bench.report import percentile, summarise, table
from server.cli import app as t2l
from tests.support.server_launch import Running

QUICK = Mix(rate=400, seconds=0.1, descriptions=3, new_share=0.3, base_share=0.2, max_tokens=4)


def test_a_mix_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert schedule(Mix()) == schedule(Mix())
    assert not {a.description for a in schedule(Mix(seed=1))} & {
        a.description for a in schedule(Mix()) if a.description
    }


def test_shares_and_rate_are_as_asked() -> None:
    arrivals = schedule(Mix(rate=100, seconds=100, new_share=0.2, base_share=0.3, descriptions=8))
    assert len(arrivals) == pytest.approx(10_000, rel=0.05)
    assert [a.at for a in arrivals] == sorted(a.at for a in arrivals)
    seen = Counter(a.description for a in arrivals)
    assert seen.pop(None) / len(arrivals) == pytest.approx(0.3, abs=0.02)
    assert sum(n == 1 for n in seen.values()) / len(arrivals) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("zipf", [0.0, 1.0, 2.0])
def test_popularity_falls_by_zipfs_law(zipf: float) -> None:
    arrivals = schedule(Mix(rate=200, seconds=100, new_share=0, base_share=0, descriptions=4, zipf=zipf))
    counts = sorted(Counter(a.description for a in arrivals).values(), reverse=True)
    assert counts[0] / counts[3] == pytest.approx(4**zipf, rel=0.15)


@given(st.lists(st.floats(0, 1e3), min_size=1), st.floats(0, 100))
def test_a_percentile_lies_among_the_values(values: list[float], p: float) -> None:
    assert min(values) <= percentile(values, p) <= max(values)


def test_percentiles_of_known_values() -> None:
    assert percentile([4, 1, 3, 2, 5], 50) == 3
    assert percentile([0, 10], 90) == 9


async def test_a_run_reports_every_request_and_where_adapters_were(running: Running) -> None:
    summary = summarise(await load.run(str(running.http.base_url), QUICK))
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


async def test_refused_requests_are_counted_by_code(launch) -> None:
    async with launch(max_requests=1) as server:
        server.engine.gate.clear()
        asking = asyncio.create_task(load.run(str(server.http.base_url), QUICK))
        await asyncio.sleep(0.3)
        server.engine.gate.set()
        summary = summarise(await asking)
    assert summary["rejected"]["too_many_requests"] == summary["requests"] - summary["answered"] > 0


async def test_a_server_that_is_not_there_is_an_error_of_each_request() -> None:
    samples = await load.run("http://127.0.0.1:1", QUICK)
    assert {s.error for s in samples} == {"ConnectError"}
    assert summarise(samples)["answered"] == 0


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
async def test_streams_that_end_in_other_ways(events: list[str], error: str | None) -> None:
    body = "".join(f"data: {event}\n\n" for event in events)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=body))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        sample = await ask(http, {"prompt": "hot"}, time.perf_counter)
    assert sample.error == error
    assert len(sample.pieces) == 1


async def test_a_refusal_without_our_body_is_named_by_its_status() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(502, text="<html>"))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await ask(http, {}, time.perf_counter)).error == "http_502"


def test_answers_of_one_piece_have_no_gaps_to_report() -> None:
    summary = summarise([Sample(1.0, [1.5], end=1.5, tokens=1)])
    assert summary["between_tokens_ms"] == {}
    assert "between tokens" not in table(summary)
    json.dumps(summary, allow_nan=False)


def test_waiting_counts_from_when_the_request_was_due() -> None:
    sample = Sample(1.0, [1.5, 1.6, 1.8], end=2.0, tokens=3)
    assert sample.first == 0.5
    assert sample.gaps == pytest.approx([0.1, 0.2])
    assert sample.whole == 1.0


async def test_the_command_prints_a_table_and_writes_json(running: Running, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "load.json"
    options = ["--rate", "200", "--seconds", "0.1", "--max-tokens", "2", "--out", str(out)]
    command = ["bench", "serve", "--url", str(running.http.base_url), *options]
    done = await asyncio.to_thread(CliRunner().invoke, t2l, command)
    assert done.exit_code == 0, done.output
    assert "| between tokens |" in done.output
    assert json.loads(out.read_text())["mix"]["rate"] == 200


def test_the_command_fails_where_nothing_answers() -> None:
    done = CliRunner().invoke(t2l, ["bench", "serve", "--url", "http://127.0.0.1:1", "--seconds", "0.5"])
    assert done.exit_code == 1
    assert "ConnectError" in done.output


def test_shares_of_more_than_everything_are_refused() -> None:
    done = CliRunner().invoke(t2l, ["bench", "serve", "--new-share", "0.8", "--base-share", "0.3"])
    assert done.exit_code == 2
