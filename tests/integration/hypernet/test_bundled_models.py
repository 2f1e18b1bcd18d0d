"""The bundled models: embeddings, packed rows, the first training loss,
greedy answers and FLOPs.
"""

import random

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from hypernet.analysis import flops
from hypernet.base_model import lora_spec, read_config
from hypernet.checkpoint import load_checkpoint
from hypernet.config import HypernetConfig
from hypernet.encoder import Encoder
from hypernet.evaluation.decoding import greedy
from hypernet.frozen import FrozenBase
from hypernet.model import Hypernet
from hypernet.model_paths import DEFAULT_CHECKPOINT, base_model_folder, encoder_folder
from hypernet.packing import Example, pack

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def base() -> FrozenBase:
    folder = base_model_folder()
    return FrozenBase(folder, lora_spec(folder / "config.json", rank=4, alpha=8), "cpu", torch.float32)


@pytest.fixture(scope="module")
def examples(base: FrozenBase) -> list[Example]:
    return [base.chat.example(a, b) for a, b in (("hot", "cold"), ("up", "down"), ("big dog", "a small cat"))]


def test_embeddings_have_norm_sqrt_size_and_paraphrases_are_similar() -> None:
    encoder = Encoder.load()
    z = encoder.encode(
        ["Write the antonym of the word.", "Give a word with the opposite meaning.", "Count to ten."]
    )
    assert z.shape == (3, encoder.size)
    torch.testing.assert_close(z.norm(dim=-1), torch.full((3,), encoder.size**0.5))
    likeness = F.cosine_similarity(z[0:1], z[1:])
    assert likeness[0] > likeness[1] + 0.2


@pytest.mark.parametrize(("dtype", "likeness"), [(torch.float32, 0.999999), (torch.bfloat16, 0.999)])
def test_embeddings_match_sentence_transformers(dtype: torch.dtype, likeness: float) -> None:
    texts = ["Write the antonym of the word.", "Count to ten, and then tell how many steps it took.", ""]
    plain = SentenceTransformer(str(encoder_folder())).encode(texts, convert_to_tensor=True)
    together = Encoder.load(dtype=dtype).encode(texts)
    alone = torch.cat([Encoder.load(dtype=dtype).encode([text]) for text in texts])
    for z in (together, alone):
        assert F.cosine_similarity(z, plain).min() > likeness


def test_base_model_encodes_a_batch_like_single_texts() -> None:
    encoder = Encoder.load("base-model")
    texts = ["Write the antonym of the word.", "Write", "Count to ten, and then tell how many steps it took."]
    z = encoder.encode(texts)
    assert z.shape == (3, encoder.size)
    alone = torch.cat([encoder.encode([text]) for text in texts])
    torch.testing.assert_close(z, alone, rtol=1e-3, atol=1e-3)


def test_packed_logits_equal_those_of_single_examples(base: FrozenBase, examples: list[Example]) -> None:
    torch.manual_seed(0)
    model = Hypernet(HypernetConfig(lora=base.spec, variant="L", embedding_size=8)).eval()
    with torch.no_grad():
        for parameter in model.heads.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    adapters = model(torch.randn(1, 8))
    together = base.logits(pack([examples]), adapters)
    alone = torch.cat([base.logits(pack([[e]]), adapters) for e in examples])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)
    assert (together - base.logits(pack([examples]), None)).abs().max() > 0.1  # the adapter has an effect


@pytest.mark.parametrize("variant", ["L", "L-rank", "M", "S"])
def test_training_starts_at_the_loss_of_the_base_model(
    base: FrozenBase, examples: list[Example], variant: str
) -> None:
    torch.manual_seed(0)
    model = Hypernet(
        HypernetConfig.model_validate({"lora": base.spec, "variant": variant, "embedding_size": 8})
    )
    packed = pack([examples])
    with torch.no_grad():
        start = F.cross_entropy(base.logits(packed, model(torch.randn(1, 8))), packed.targets)
        alone = F.cross_entropy(base.logits(packed, None), packed.targets)
    assert start.item() == pytest.approx(alone.item(), rel=2e-3)


def test_greedy_answers_in_a_batch_equal_those_of_single_prompts(base: FrozenBase) -> None:
    words = random.Random(0).sample(["river", "seven apples", "why is the sky blue", "print hello", "Paris"], 4)
    prompts = [base.chat.prompt(w) for w in words]
    together = greedy(base, prompts, None, 6)
    assert together == [greedy(base, [p], None, 6)[0] for p in prompts]


def test_flops_of_the_bundled_models_match_torchs_count(base: FrozenBase) -> None:
    ids = torch.ones(1, 23, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        base.model(ids, logits_to_keep=1)
    assert flops.Decoder.of(read_config(base_model_folder())).forward(23) == counter.get_total_flops()

    bert = AutoModel.from_pretrained(encoder_folder(), attn_implementation="eager").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bert(ids)
    assert flops.encoder(None, None, 23) == counter.get_total_flops()

    hypernet, config = load_checkpoint(DEFAULT_CHECKPOINT)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hypernet(torch.randn(1, config.hypernet.embedding_size))
    assert flops.hypernetwork(config.hypernet) == counter.get_total_flops()
