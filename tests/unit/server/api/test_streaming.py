import asyncio
import json

from tests.support.server_fakes import FakeEngine, eventually

OPPOSITE = "Given a word, say its opposite."


def body(**changes):
    return {"task_description": OPPOSITE, "prompt": "hot", "max_tokens": 4, "stream": True} | changes


async def events(response):
    got = []
    async for line in response.aiter_lines():
        if line:
            assert line.startswith("data: ")
            got.append(line.removeprefix("data: "))
    assert got.pop() == "[DONE]"
    return [json.loads(event) for event in got]


async def test_final_event_has_all_fields_of_the_completion(running):
    async with running.http.stream("POST", "/v1/generate", json=body()) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        *pieces, last = await events(response)
    assert [p["object"] for p in pieces] == ["generation.chunk"] * 4
    assert "".join(p["delta"] for p in pieces) == last["completion"] == f"{last['adapter']['id'][:8]} 1 2 3"
    assert last["delta"] == ""
    assert {e["id"] for e in [*pieces, last]} == {last["id"]}
    whole = (await running.http.post("/v1/generate", json=body(stream=False))).json()
    assert set(last) == set(whole) | {"delta"}


async def test_each_piece_is_sent_before_the_next_is_generated(running):
    running.engine.gate.clear()
    async with running.http.stream("POST", "/v1/generate", json=body()) as response:
        lines = response.aiter_lines()
        assert json.loads((await anext(lines)).removeprefix("data: "))["delta"]
        assert running.engine.running == 1
        running.engine.gate.set()
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"


async def test_error_before_the_first_piece_has_its_own_status(running):
    refused = await running.http.post("/v1/generate", json=body(prompt="x" * 300))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"


async def test_error_in_mid_stream_is_an_event_in_the_error_shape(launch):
    engine = FakeEngine()
    engine.die_after = 2
    async with launch(engine=engine) as running:
        async with running.http.stream("POST", "/v1/generate", json=body()) as response:
            *pieces, last = await events(response)
        assert len(pieces) == 2
        assert set(last) == {"error"}
        assert last["error"]["code"] == "engine_dead"
        assert (await running.metrics())['t2l_rejections_total{reason="engine_dead"}'] == 1
    assert sum(engine.leases.values()) == 0


async def test_unexpected_exception_in_mid_stream_reveals_nothing(launch):
    engine = FakeEngine()
    async with launch(engine=engine) as running:
        engine.gate.clear()
        async with running.http.stream("POST", "/v1/generate", json=body()) as response:
            await eventually(lambda: engine.running)
            engine.crash = KeyError("secret")
            engine.gate.set()
            *_, last = await events(response)
        assert last["error"]["code"] == "internal_error"
        assert "secret" not in json.dumps(last)


async def test_disconnect_in_mid_stream_aborts_the_generation(running):
    running.engine.gate.clear()
    async with running.http.stream("POST", "/v1/generate", json=body()) as response:
        await anext(response.aiter_lines())
    await eventually(lambda: running.engine.aborted == 1)
    assert sum(running.engine.leases.values()) == 0
    assert running.app.state.lifecycle.in_flight == 0


async def test_disconnect_before_the_first_piece_cancels_the_request(running):
    running.generator.gate.clear()
    asking = asyncio.create_task(running.http.post("/v1/generate", json=body()))
    await eventually(lambda: running.generator.batches)
    asking.cancel()
    await eventually(lambda: running.app.state.lifecycle.in_flight == 0)
    assert running.engine.samplings == []
