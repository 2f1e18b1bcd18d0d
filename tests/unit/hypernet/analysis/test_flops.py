from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, BertConfig, BertModel, DynamicCache

from hypernet.analysis.flops import Cost, Decoder, Lengths, compare, hypernetwork, sentence_encoder, table
from hypernet.base_model import BaseModelError, lora_spec, read_config
from hypernet.lora import LoraWeights
from hypernet.lora_injector import LoraInjector
from tests.unit.hypernet.test_model import SPEC, VARIANTS, make


def counted(run: Callable[[], object]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> torch.nn.Module:
    # Eager: torch's counter has no formula for the CPU's fused attention.
    return AutoModelForCausalLM.from_pretrained(tiny_base, attn_implementation="eager").eval()


@pytest.mark.parametrize(("new", "past", "logits"), [(7, 0, 7), (5, 9, 1), (1, 12, 1)])
def test_flops_of_a_pass_match_torchs_count(
    model: torch.nn.Module, tiny_base: Path, new: int, past: int, logits: int
) -> None:
    cache = DynamicCache()
    if past:
        with torch.inference_mode():
            model(torch.ones(1, past, dtype=torch.long), past_key_values=cache)
    ids = torch.ones(1, new, dtype=torch.long)
    measured = counted(lambda: model(ids, past_key_values=cache, logits_to_keep=logits))
    assert Decoder.of(read_config(tiny_base)).forward(new, past, logits) == measured


def test_flops_of_an_adapter_match_torchs_count(model: torch.nn.Module, tiny_base: Path) -> None:
    spec = lora_spec(tiny_base, rank=3, alpha=6, target_modules=("q_proj", "v_proj", "down_proj"))
    lora = LoraWeights.unflatten(spec, torch.randn(spec.num_parameters))
    injector = LoraInjector(model, spec)
    ids = torch.ones(1, 6, dtype=torch.long)
    plain = counted(lambda: model(ids))
    with injector.use({n: t[None] for n, t in lora.a.items()}, {n: t[None] for n, t in lora.b.items()}):
        adapted = counted(lambda: model(ids))
    injector.remove()
    base = Decoder.of(read_config(tiny_base))
    assert adapted - plain == base.forward(6, lora=spec) - base.forward(6)


def test_an_answer_is_one_prefill_and_then_single_tokens(model: torch.nn.Module, tiny_base: Path) -> None:
    ids = torch.full((1, 9), 20)
    measured = counted(
        lambda: model.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False, use_cache=True)
    )
    assert Decoder.of(read_config(tiny_base)).answer(9, 4) == measured


@pytest.mark.parametrize(("variant", "position"), VARIANTS)
def test_flops_of_the_hypernetwork_match_torchs_count(variant: str, position: str) -> None:
    net = make(variant, position).eval()
    assert hypernetwork(net.config) == counted(lambda: net(torch.randn(1, 16)))
    assert len(SPEC.modules) == 3  # of unlike shapes: heads differ


def test_flops_of_bert_match_torchs_count() -> None:
    config = BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    bert = BertModel(config, add_pooling_layer=True).eval()
    bert.set_attn_implementation("eager")
    measured = counted(lambda: bert(torch.ones(1, 11, dtype=torch.long)))
    assert sentence_encoder(config.to_dict(), 11) == measured


def test_other_encoders_are_refused_by_name() -> None:
    with pytest.raises(BaseModelError, match="t5"):
        sentence_encoder({"model_type": "t5"}, 3)
    with pytest.raises(BaseModelError, match="vocab_size"):
        Decoder.of({"model_type": "llama"})


@given(st.integers(0, 10**6), st.integers(1, 10**4), st.integers(0, 10**6), st.integers(1, 10**4))
def test_break_even_is_the_first_cheaper_request(
    per_task: int, per_request: int, per_task2: int, per_request2: int
) -> None:
    ours, other = Cost("a", per_task, per_request), Cost("b", per_task2, per_request2)
    n = ours.break_even(other)
    if n is None:
        assert all(ours.total(k) >= other.total(k) for k in (1, 10**7))
        return
    assert ours.total(n) < other.total(n)
    assert n == 1 or ours.total(n - 1) >= other.total(n - 1)


def test_table_compares_every_method(tiny_base: Path) -> None:
    base = Decoder.of(read_config(tiny_base))
    costs = compare(base, lora_spec(tiny_base, rank=2, alpha=2), 10**6, Lengths())
    assert [c.name for c in costs][:3] == ["T2L", "3-shot ICL", "3-shot ICL, prefix cached"]
    icl, cached = costs[1], costs[2]
    # Caching saves the prefix's own pass, not the attention of later tokens to it. A dense kernel
    # over the whole prompt also computes scores of the prefix towards the question, which the mask
    # then hides.
    assert cached.per_request < icl.per_request
    prefix, question, queries, layers = 3 * 64, 48, 32, 2
    assert icl.total(1) - cached.total(1) == layers * 4 * prefix * question * queries
    assert table(costs).count("\n") == len(costs) + 2
