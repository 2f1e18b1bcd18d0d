import asyncio

import pytest
import torch

from tests.support.server_fakes import FakeEngine, FakeGenerator, eventually, weights_for

OPPOSITE = "Given a word, say its opposite."


async def post(running, **body):
    return await running.http.post("/v1/generate", json={"prompt": "hot", "max_tokens": 3} | body)


async def test_description_and_prompt_give_an_adapted_completion(running):
    answer = (await post(running, task_description=OPPOSITE)).json()
    adapter = answer["adapter"]
    assert adapter["source"] == "generated"
    assert answer["completion"] == f"{adapter['id'][:8]} 1 2"
    assert answer["object"] == "generation"
    assert answer["model"] == "tiny"
    assert answer["finish_reason"] == "length"
    prompt_tokens = len("<user>hot")
    assert answer["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 3,
        "total_tokens": prompt_tokens + 3,
    }
    timings = answer["timings"]
    assert set(timings) == {"queue_s", "embed_s", "generate_s", "register_s", "first_token_s", "total_s"}
    assert 0 < timings["embed_s"] < timings["first_token_s"] <= timings["total_s"]


async def test_repeated_description_reuses_its_adapter_whatever_its_white_space(running):
    first = (await post(running, task_description=OPPOSITE)).json()
    second = (await post(running, task_description=f"\n {OPPOSITE.replace(' ', '   ')}")).json()
    assert second["adapter"] == {"id": first["adapter"]["id"], "source": "memory", "unread": 0, "warnings": []}
    assert second["timings"]["generate_s"] == 0
    assert running.generator.generated == [OPPOSITE]


@pytest.mark.parametrize("description", [None, ""])
async def test_without_a_description_the_base_model_answers(running, description):
    answer = (await post(running, task_description=description)).json()
    assert answer["completion"] == "base 1 2"
    assert answer["adapter"] is None
    assert running.generator.generated == []


async def test_prompt_and_messages_use_the_chat_template_and_raw_does_not(running):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    await post(running)
    await post(running, raw=True)
    await post(running, prompt=None, messages=chat)
    texts = ["".join(map(chr, tokens)) for tokens in running.engine.prompts]
    assert texts == ["<user>hot", "hot", "<system>s<user>u"]


async def test_sampling_parameters_reach_the_engine(running):
    await post(running, temperature=0.5, top_p=0.9, stop="x", seed=7)
    await post(running, stop=["x", "y"], max_tokens=None)
    first, second = running.engine.samplings
    assert (first.temperature, first.top_p, first.stop, first.seed) == (0.5, 0.9, ("x",), 7)
    assert second.stop == ("x", "y")
    assert second.temperature == 0
    assert second.max_tokens == 200 - len("<user>hot")  # what the context holds, as it is less than 256


async def test_hundred_concurrent_requests_for_one_new_description_generate_one_adapter(running):
    answers = await asyncio.gather(*(post(running, task_description=OPPOSITE) for _ in range(100)))
    assert {a.status_code for a in answers} == {200}
    assert running.generator.generated == [OPPOSITE]
    assert len({a.json()["adapter"]["id"] for a in answers}) == 1


async def test_descriptions_that_arrive_during_a_batch_share_the_next_one(running):
    running.generator.gate.clear()
    first = asyncio.create_task(post(running, task_description="0"))
    await eventually(lambda: running.generator.batches)
    rest = [asyncio.create_task(post(running, task_description=str(i))) for i in range(1, 6)]
    library = running.app.state.lifecycle
    await eventually(lambda: library.in_flight == 6)
    await asyncio.sleep(0.05)
    running.generator.gate.set()
    answers = await asyncio.gather(first, *rest)
    assert len({a.json()["adapter"]["id"] for a in answers}) == 6
    assert len(running.generator.batches) < 6
    assert max(a.json()["timings"]["queue_s"] for a in answers) > 0


async def test_failing_hypernetwork_is_a_500_and_the_next_request_retries(running, caplog):
    running.generator.failure = RuntimeError("out of memory")
    refused = await post(running, task_description=OPPOSITE)
    assert refused.status_code == 500
    assert refused.json()["error"]["code"] == "adapter_generation_failed"
    assert "memory" not in refused.text
    assert "RuntimeError: out of memory" in caplog.text  # the operator is told why
    running.generator.failure = None
    assert (await post(running, task_description=OPPOSITE)).status_code == 200


async def test_unusable_weights_never_reach_the_engine_and_leave_others_unaffected(launch):
    generator = FakeGenerator()
    generator.nan_for = "bad"
    async with launch(generator=generator) as running:
        refused = await post(running, task_description="bad")
        assert refused.status_code == 500
        assert refused.json()["error"]["code"] == "adapter_rejected"
        assert not running.engine.leases
        assert (await post(running, task_description="good")).status_code == 200


async def test_engine_death_is_reported_to_every_waiting_request(launch):
    engine = FakeEngine()
    engine.die_after = 1
    async with launch(engine=engine) as running:
        answers = await asyncio.gather(*(post(running, task_description=str(i % 2)) for i in range(6)))
        assert {a.status_code for a in answers} == {503}
        assert {a.json()["error"]["code"] for a in answers} == {"engine_dead"}
        health = await running.http.get("/health")
        assert health.status_code == 503
        assert health.json()["error"]["code"] == "engine_dead"
        assert (await running.http.get("/ready")).status_code == 503
    assert sum(engine.leases.values()) == 0


async def test_disconnect_aborts_the_generation_and_releases_the_lease(running):
    running.engine.gate.clear()
    asking = asyncio.create_task(post(running, task_description=OPPOSITE))
    await eventually(lambda: running.engine.running)
    asking.cancel()
    await eventually(lambda: running.engine.aborted == 1)
    await eventually(lambda: running.app.state.lifecycle.in_flight == 0)
    assert sum(running.engine.leases.values()) == 0
    await eventually(lambda: running.engine.running == 0)
    metrics = await running.metrics()
    assert metrics['t2l_requests_total{method="POST",route="/v1/generate",status="499"}'] == 1


async def test_disconnect_during_batch_leaves_others_unaffected(running):
    running.generator.gate.clear()
    leaver = asyncio.create_task(post(running, task_description=OPPOSITE))
    await eventually(lambda: running.generator.batches)
    stayer = asyncio.create_task(post(running, task_description=OPPOSITE))
    await eventually(lambda: running.app.state.lifecycle.in_flight == 2)
    leaver.cancel()
    await eventually(lambda: running.app.state.lifecycle.in_flight == 1)
    running.generator.gate.set()
    assert (await stayer).status_code == 200
    assert running.generator.generated == [OPPOSITE]


async def test_requests_beyond_the_maximum_get_429_with_retry_after(launch):
    async with launch(max_requests=2) as running:
        running.engine.gate.clear()
        held = [asyncio.create_task(post(running)) for _ in range(2)]
        await eventually(lambda: running.engine.running == 2)
        refused = await post(running)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "too_many_requests"
        running.engine.gate.set()
        assert {a.status_code for a in await asyncio.gather(*held)} == {200}


async def test_full_description_queue_is_429(launch):
    async with launch(max_queue=1) as running:
        running.generator.gate.clear()
        first = asyncio.create_task(post(running, task_description="0"))
        await eventually(lambda: running.generator.batches)
        second = asyncio.create_task(post(running, task_description="1"))
        await eventually(lambda: running.app.state.lifecycle.in_flight == 2)
        await asyncio.sleep(0.05)
        refused = await post(running, task_description="2")
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "queue_full"
        running.generator.gate.set()
        assert {a.status_code for a in await asyncio.gather(first, second)} == {200}


async def test_request_beyond_the_timeout_is_503_and_aborted(launch):
    async with launch(request_timeout_s=0.1) as running:
        running.engine.gate.clear()
        refused = await post(running)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "timeout"
        assert running.engine.aborted == 1


@pytest.mark.parametrize("share", ["0", "1"])
async def test_engine_gets_device_weights_only_if_device_memory_is_shared(launch, share):
    async with launch(share_device_memory=share) as running:
        await post(running, task_description="x")
        await post(running, task_description="x")
        page = (await running.http.get("/v1/adapters")).json()
        assert page["data"][0]["nbytes"] == 2 * weights_for("x").spec.num_parameters
        loaded, reloaded = running.engine.loaded
    # Shared weights have the dtype of the hypernetwork, here float32. Cached weights are always
    # bf16.
    assert loaded.a["q_proj"].dtype == (torch.float32 if share == "1" else torch.bfloat16)
    assert reloaded.flatten().equal(weights_for("x").flatten().bfloat16())
    assert loaded.flatten().bfloat16().equal(reloaded.flatten())
