import io
import zipfile

import pytest
import torch
from safetensors import safe_open

from hypernet.peft_io import read_provenance
from tests.support.server_fakes import weights_for


async def make(running, text):
    return await running.http.post("/v1/adapters", json={"task_description": text})


async def test_creation_is_201_for_a_new_adapter_and_200_for_an_existing_one(running):
    first, second = await make(running, "x"), await make(running, " x ")
    assert (first.status_code, first.json()["source"]) == (201, "generated")
    assert (second.status_code, second.json()["source"]) == (200, "memory")
    assert first.json()["id"] == second.json()["id"]
    assert first.headers["location"] == f"/v1/adapters/{first.json()['id']}"
    answer = await running.http.post(
        "/v1/generate", json={"task_description": "x", "prompt": "p", "max_tokens": 1}
    )
    assert answer.json()["adapter"] == {
        "id": first.json()["id"],
        "source": "memory",
        "unread": 0,
        "warnings": [],
    }


async def test_get_returns_description_and_spec(running):
    made = (await make(running, "Say  the opposite.")).json()
    found = (await running.http.get(f"/v1/adapters/{made['id']}")).json()
    assert found.items() <= made.items()
    assert set(made) - set(found) == {"source", "unread", "warnings"}
    assert found["task_description"] == "Say the opposite."
    assert found["spec"]["rank"] == 2
    assert found["spec"]["modules"][0]["path"] == "self_attn.q_proj"


async def test_pages_list_every_adapter_once_newest_first(running):
    made = [(await make(running, str(i))).json()["id"] for i in range(7)]
    listed, after, pages = [], None, 0
    while True:
        params = {"limit": 3} | ({"after": after} if after else {})
        page = (await running.http.get("/v1/adapters", params=params)).json()
        listed += [a["id"] for a in page["data"]]
        pages, after = pages + 1, page["next"]
        assert page["complete"]
        if after is None:
            break
    assert listed == made[::-1]
    assert pages == 3


async def test_export_is_a_zip_and_reproducible(running):
    made = (await make(running, "x")).json()
    first = await running.http.get(f"/v1/adapters/{made['id']}/export")
    assert first.headers["content-type"] == "application/zip"
    assert made["id"] in first.headers["content-disposition"]
    assert (await running.http.get(f"/v1/adapters/{made['id']}/export")).content == first.content


async def test_export_contains_the_generated_weights_and_their_provenance(running, tmp_path):
    made = (await make(running, "x")).json()
    export = await running.http.get(f"/v1/adapters/{made['id']}/export")
    with zipfile.ZipFile(io.BytesIO(export.content)) as archive:
        assert sorted(archive.namelist()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
        archive.extractall(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        name = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
        assert file.get_tensor(name).equal(weights_for("x").b["v_proj"][1].to(torch.bfloat16))
    assert read_provenance(tmp_path)["t2l.checkpoint"] == "hypernetwork"
    assert read_provenance(tmp_path)["t2l.base_model"] == "base"


async def test_deleted_adapter_is_gone_everywhere_and_can_be_created_again(running):
    made = (await make(running, "x")).json()
    assert (await running.http.delete(f"/v1/adapters/{made['id']}")).status_code == 204
    assert running.engine.evicted == [made["id"]]
    for response in (
        await running.http.get(f"/v1/adapters/{made['id']}"),
        await running.http.get(f"/v1/adapters/{made['id']}/export"),
        await running.http.delete(f"/v1/adapters/{made['id']}"),
    ):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "adapter_not_found"
    assert (await make(running, "x")).status_code == 201


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/adapters/nonsense", "adapter_id"),
        ("/v1/adapters?limit=0", "limit"),
        ("/v1/adapters?limit=101", "limit"),
        ("/v1/adapters?after=yesterday", "after"),
        ("/v1/adapters?after=9999999999999999999.x", "after"),
    ],
)
async def test_wrong_id_and_page_parameters_are_named(running, path, param):
    refused = await running.http.get(path)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "body", [{}, {"task_description": ""}, {"task_description": " \n"}, {"description": "x"}]
)
async def test_creation_without_a_description_is_refused(running, body):
    refused = await running.http.post("/v1/adapters", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] in ("task_description", "description")


async def test_memory_is_bounded_in_bytes_and_evicted_adapters_are_generated_again(launch):
    size = weights_for("x").spec.num_parameters * 2
    async with launch(memory_bytes=2 * size) as running:
        for text in "abc":
            await make(running, text)
        metrics = await running.metrics()
        assert metrics['t2l_adapters_resident{tier="memory"}'] == 2
        assert metrics["t2l_adapters_resident_bytes"] == 2 * size
        assert (await make(running, "a")).json()["source"] == "generated"
