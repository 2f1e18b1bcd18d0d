"""The frozen base model with packed rows equals the model with eager attention and single
examples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from hypernet.attention import attention_implementation
from hypernet.base_model import BaseModelError, lora_spec
from hypernet.encoder import LastTokenEncoder
from hypernet.evaluation.decoding import answer
from hypernet.frozen import FrozenBase
from hypernet.packing import Example, pack

pytestmark = pytest.mark.slow

WINDOW = 3  # shorter than every example
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,  # large, so that attention is far from uniform
}
# Caps are low, so that they bend the scores of random weights.
CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {"sliding_window": None}),
    "mistral-window": (MistralConfig, {"sliding_window": WINDOW}),
    "gemma2": (
        Gemma2Config,
        {
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 3,
            "attn_logit_softcapping": 0.5,
            "final_logit_softcapping": 0.5,
        },
    ),
    "gemma2-uncapped": (Gemma2Config, {"sliding_window": WINDOW, "attn_logit_softcapping": None}),
    "qwen2": (Qwen2Config, {}),
    "qwen2-window": (
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "qwen3": (Qwen3Config, {}),
    "qwen3-window": (
        Qwen3Config,
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
}


@pytest.fixture(params=CONFIGS)
def family(request: pytest.FixtureRequest, tmp_path: Path, tiny_base: Path) -> Path:
    """A tiny model of each supported family, with the tokenizer of the tiny Llama."""
    make, fields = CONFIGS[request.param]
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    torch.manual_seed(0)
    config = make(vocab_size=len(tokenizer), **SIZES, **fields)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture(params=["cpu", "cuda"])
def base(request: pytest.FixtureRequest, family: Path, monkeypatch: pytest.MonkeyPatch) -> FrozenBase:
    """The family's model with the attention that each device gets, computed here on the CPU."""
    monkeypatch.setattr(
        "hypernet.frozen.attention_implementation",
        lambda config, _: attention_implementation(config, request.param),
    )
    return FrozenBase(family, lora_spec(family, rank=2, alpha=4), "cpu", torch.float32)


def examples(base: FrozenBase) -> list[Example]:
    texts = (("cat dog", "bird"), ("sun", "moon star"), ("one two three", "four five six"))
    return [base.chat.example(*pair) for pair in texts]


def test_packed_rows_score_as_eager_attention_scores_each_example(base: FrozenBase, family: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(family, attn_implementation="eager", dtype=torch.float32)
    with torch.inference_mode():
        packed = base.logits(pack([examples(base)]), None)  # [S, vocabulary]
        alone = []
        for example in examples(base):
            tokens = torch.tensor([[*example.prompt, *example.response]])
            alone.append(model(tokens).logits[0, len(example.prompt) - 1 : -1])
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_decoding_from_the_cache_answers_as_eager_attention_does(base: FrozenBase, family: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(family, attn_implementation="eager", dtype=torch.float32)
    limit = 6
    found = answer(base, [examples(base)], None, [limit] * 3).tokens
    for example, tokens in zip(examples(base), found, strict=True):
        ids = list(example.prompt)
        for _ in range(limit):
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == base.chat.end_of_turn:
                ids.pop()
                break
        assert tokens == ids[len(example.prompt) :]


def test_last_token_encoder_computes_eager_attention(family: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(family, attn_implementation="eager", dtype=torch.float32)
    text = "one two three four five."
    ids = AutoTokenizer.from_pretrained(family)(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        state = model.model(ids).last_hidden_state[0, -1]
    z = LastTokenEncoder(family, f"last-token:{family}").encode([text])[0]
    torch.testing.assert_close(z, state / state.norm() * 32**0.5, atol=1e-4, rtol=1e-4)


def test_soft_capped_models_never_get_the_fused_kernel() -> None:
    capped, plain = Gemma2Config(), LlamaConfig()
    assert [attention_implementation(capped, d) for d in ("cpu", "cuda", "cuda:1")] == ["eager"] * 3
    assert [attention_implementation(plain, d) for d in ("cpu", "cuda", "cuda:1")] == ["eager", "sdpa", "sdpa"]


def test_an_unknown_layer_type_is_refused(tiny_base: Path) -> None:
    base = FrozenBase(tiny_base, lora_spec(tiny_base, rank=2, alpha=4), "cpu", torch.float32)
    base.model.config = AutoConfig.from_pretrained(tiny_base)
    base.model.config.layer_types = ["chunked_attention"]
    with pytest.raises(BaseModelError, match="'chunked_attention' is not supported"):
        base.logits(pack([examples(base)]), None)
