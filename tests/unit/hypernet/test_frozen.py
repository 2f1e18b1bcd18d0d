"""The frozen base reads packed rows as the model itself would read each example alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Gemma2Config, Gemma2ForCausalLM, PreTrainedModel

from hypernet.base_model import lora_spec
from hypernet.frozen import FrozenBase
from hypernet.packing import pack


@pytest.fixture
def tiny_gemma(tmp_path: Path, tiny_base: Path) -> Path:
    """A Gemma 2 of two layers, with the tokenizer of the tiny Llama."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=0.5,  # low, so that it bends what random weights give
    )
    folder = tmp_path / "tiny-gemma"
    model: PreTrainedModel = Gemma2ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["tiny_base", "tiny_gemma"])
def test_packed_rows_score_as_the_model_scores_each_example(
    family: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(family)
    base = FrozenBase(folder, lora_spec(folder, rank=2, alpha=4), "cpu", torch.float32)
    examples = [base.chat.example("cat dog", "bird"), base.chat.example("sun", "moon star")]
    with torch.inference_mode():
        packed = base.logits(pack([examples]), None)  # [S, vocabulary]
        alone = []
        for example in examples:
            tokens = torch.tensor([[*example.prompt, *example.response]])
            start = len(example.prompt) - 1
            alone.append(base.model(tokens).logits[0, start:-1])
    assert torch.allclose(packed, torch.cat(alone), atol=1e-5)
