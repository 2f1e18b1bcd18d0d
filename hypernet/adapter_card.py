"""The README of an adapter folder: what the adapter is, and which base model it needs."""

from __future__ import annotations

from hypernet.bundled_models import BASE_MODEL_HUB_ID
from hypernet.config import LoraSpec

_HEADER = """\
---
library_name: peft
{base_model}tags:
- lora
- text-to-lora
---
# LoRA adapter

A LoRA of rank {rank} on {modules}, for the base model {name}{fingerprint}.
`adapter_config.json` and `adapter_model.safetensors` are read by PEFT and by `vllm --lora-modules`.
"""

_BUNDLED = f"""
The adapter was made for a copy of {BASE_MODEL_HUB_ID} that was dequantised from 4 bits (GGUF, Q4_1).
The original weights differ a little from that copy, and answers may differ with them.
"""

_LOCAL = """
{name} is the name of a local folder, not a hub id, so `AutoPeftModelForCausalLM` cannot find the base
model. Load it yourself and pass it to PEFT:

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base_model = AutoModelForCausalLM.from_pretrained("FOLDER OF {name}")
    model = PeftModel.from_pretrained(base_model, "FOLDER OF THIS ADAPTER")
"""


def adapter_card(spec: LoraSpec, name: str, *, on_hub: bool, fingerprint: str | None = None) -> str:
    """The text of README.md. Equal arguments give equal text.

    Args:
        spec: the adapter's shapes.
        name: the base model's hub id, or its folder's name.
        on_hub: whether `name` is a hub id.
        fingerprint: identity of the base model's weights; see `base_model.fingerprint`.
    """
    text = _HEADER.format(
        base_model=f"base_model: {name}\n" if on_hub else "",
        rank=spec.rank,
        modules=", ".join(m.name for m in spec.modules),
        name=name,
        fingerprint=f" (weights {fingerprint})" if fingerprint else "",
    )
    if name == BASE_MODEL_HUB_ID:
        return text + _BUNDLED
    return text if on_hub else text + _LOCAL.format(name=name)
