"""The Text-to-LoRA hypernetwork: description embeddings to LoRA adapters, in one batched forward
pass.

Charakorn et al. 2025 (arXiv 2506.06105), section 3. One forward pass covers N descriptions x M
modules x L layers. The variants differ in the output of a head, and in the embeddings that tell the
head which part of the LoRA to generate (`HypernetConfig.variant`).

Shape letters in the comments: N descriptions, M modules, L layers, r rank,
e embedding, d latent, h head input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hypernet.config import HypernetConfig, LoraSpec, ModuleShape
from hypernet.lora import LoraBatch, LoraWeights

SHARED_BIAS_GAIN = 0.1
"""Scale of the initial A/B bias of M and S, relative to Kaiming. A and B share the bias, so B
cannot start at zero and delta W starts at bias times bias. This gain makes the initial delta W
negligible."""


class FrozenLora(nn.Module):
    """Constants in the shape of one LoRA: an offset, or the mean or standard deviation of a
    library.
    """

    def __init__(self, spec: LoraSpec) -> None:
        super().__init__()
        self.A, self.B = nn.Module(), nn.Module()
        for m in spec.modules:
            self.A.register_buffer(m.name, torch.zeros(spec.num_layers, spec.rank, m.in_features))
            self.B.register_buffer(m.name, torch.zeros(spec.num_layers, m.out_features, spec.rank))

    def a(self, module: str) -> Tensor:
        """[L, r, in]."""
        return self.A.get_buffer(module)

    def b(self, module: str) -> Tensor:
        """[L, out, r]."""
        return self.B.get_buffer(module)

    def copy_from(self, lora: LoraWeights) -> None:
        """Copy the weights of a LoRA."""
        for m in lora.spec.modules:
            self.a(m.name).copy_(lora.a[m.name])
            self.b(m.name).copy_(lora.b[m.name])


class Hypernet(nn.Module):
    """Generates LoRA adapters from description embeddings.

    Args:
        config: the architecture. Its `lora` determines every output shape.
    """

    def __init__(self, config: HypernetConfig) -> None:
        super().__init__()
        self.config = config
        spec, d, p = config.lora, config.latent_size, config.dropout
        self.task = nn.Sequential(nn.Linear(config.embedding_size, d // 2), nn.LayerNorm(d // 2))
        self.depth = nn.Sequential(nn.Embedding(spec.num_layers, d // 4), nn.LayerNorm(d // 4))
        self.kind = nn.Sequential(nn.Embedding(len(spec.modules), d // 4), nn.LayerNorm(d // 4))
        self.mixer = nn.Sequential(nn.Dropout(p), *_mlp_layers(d, d, p))
        self.block1 = nn.Sequential(nn.LayerNorm(d), *_mlp_layers(d, d, p))
        self.block2 = nn.Sequential(nn.LayerNorm(d), *_mlp_layers(d, d, p))
        self.block3 = nn.Sequential(nn.LayerNorm(d), *_mlp_layers(d, config.head_input_size, p))
        self.heads = nn.ModuleDict(
            {
                m.name: nn.Linear(config.head_input_size, self.head_size(m), config.head_bias)
                for m in spec.modules
            }
        )
        if self.shares_ab_head:
            self.part = nn.ParameterDict({m.name: nn.Parameter(torch.randn(2, d)) for m in spec.modules})
            self.part_norm = nn.LayerNorm(d)
        if self.rank_wise and config.rank_position == "learned":
            self.rank = nn.Sequential(nn.Embedding(spec.rank, d), nn.LayerNorm(d))
        if config.output == "offset":
            self.offset = FrozenLora(spec)
        if config.output == "z_score":
            self.mean, self.deviation = FrozenLora(spec), FrozenLora(spec)
        self.reset_heads()

    @property
    def shares_ab_head(self) -> bool:
        """Whether one head generates both A and B (M and S). An embedding tells it which."""
        return self.config.variant in ("M", "S")

    @property
    def rank_wise(self) -> bool:
        """Whether a head generates one rank at a time (S and L-rank).

        An embedding tells it which.
        """
        return self.config.variant in ("S", "L-rank")

    def head_size(self, m: ModuleShape) -> int:
        """Output size of a module's head."""
        size = max(m.in_features, m.out_features) if self.shares_ab_head else m.in_features + m.out_features
        return size if self.rank_wise else size * self.config.lora.rank

    def head(self, m: ModuleShape) -> nn.Linear:
        """The head of a module."""
        head = self.heads[m.name]
        assert isinstance(head, nn.Linear)
        return head

    @torch.no_grad()
    def reset_heads(self) -> None:
        """Bias-HyperInit: zero weights, and a bias that is the initial value of a plain LoRA.

        L starts with Kaiming A and B = 0, so delta W = 0. M and S share one bias between A and B;
        see `SHARED_BIAS_GAIN`. With an offset, heads start at zero and the LoRA is the offset. With
        z-scores there is neither bias nor offset, and weights start small and random: at zero, both
        factors would get no gradient.
        """
        stretch = self.config.delta_w_scaling**0.5 if self.config.output == "delta_w" else 1.0  # see `_to_lora`
        for m in self.config.lora.modules:
            head = self.head(m)
            # Kaiming-uniform with a = sqrt(5), as in nn.Linear and PEFT
            bound = stretch * m.in_features**-0.5
            if not self.config.head_bias:
                nn.init.normal_(head.weight, std=0.0 if self.config.output == "offset" else 1e-3)
                continue
            nn.init.zeros_(head.weight)
            if self.shares_ab_head:
                nn.init.uniform_(head.bias, -SHARED_BIAS_GAIN * bound, SHARED_BIAS_GAIN * bound)
            else:
                ranks = 1 if self.rank_wise else self.config.lora.rank
                nn.init.uniform_(head.bias[: ranks * m.in_features], -bound, bound)
                nn.init.zeros_(head.bias[ranks * m.in_features :])

    def forward(self, embeddings: Tensor) -> LoraBatch:
        """Generate one adapter per row.

        Args:
            embeddings: [N, e], from `Encoder.encode`.

        Returns:
            A [N, L, r, in] and B [N, L, out, r] per module.
        """
        return self.decode(self._trunk(embeddings), lambda m, x: self.head(m)(x))

    def decode(self, h1: Tensor, head: Callable[[ModuleShape, Tensor], Tensor]) -> LoraBatch:
        """N adapters from h1 [N, M, L, d], through block 2, block 3 and the heads.

        Args:
            h1: output of block 1, [N, M, L, d].
            head: applies a module's head, [..., h] -> [..., head_size].
        """
        a: dict[str, Tensor] = {}
        b: dict[str, Tensor] = {}
        for i, m in enumerate(self.config.lora.modules):
            x = self._add_part_embeddings(h1[:, i], m.name)  # [N, L, (A|B), (r), d]
            y = head(m, self.block3(x))  # [N, L, (A|B), (r), out]
            a[m.name], b[m.name] = self._to_lora(m, *self._split_ab(m, y))
        return LoraBatch(a, b)

    def _trunk(self, embeddings: Tensor) -> Tensor:
        """[N, e] -> h1 [N, M, L, d]."""
        spec = self.config.lora
        n, m, layers = embeddings.shape[0], len(spec.modules), spec.num_layers
        device = embeddings.device
        task = self.task(embeddings)[:, None, None].expand(n, m, layers, -1)  # [N, M, L, d/2]
        position = self.position_embedding(device).expand(n, m, layers, -1)  # [N, M, L, d/2]
        x = self.mixer(torch.cat([task, position], dim=-1))  # [N, M, L, d]
        h1: Tensor = x + self.block1(x)
        return h1

    def position_embedding(self, device: torch.device) -> Tensor:
        """Embeddings of layer and module, equal for all descriptions. [M, L, d/2]"""
        m, layers = len(self.config.lora.modules), self.config.lora.num_layers
        depth = self.depth(torch.arange(layers, device=device)).expand(m, layers, -1)  # [M, L, d/4]
        kind = self.kind(torch.arange(m, device=device))[:, None].expand(m, layers, -1)  # same
        return torch.cat([depth, kind], dim=-1)

    def _add_part_embeddings(self, h1: Tensor, module: str) -> Tensor:
        """Add embeddings of A or B, and of the rank: [N, L, d] -> [N, L, (2: M, S), (r: S,
        L-rank), d].
        """
        if self.shares_ab_head:
            h1 = h1[:, :, None] + self.part_norm(self.part[module])  # [N, L, 2, d]
        if not self.rank_wise:
            return self._block2(h1)
        # S applies block 2 before the rank embedding is added, L-rank does not.
        u = (self._block2(h1) if self.shares_ab_head else h1)[..., None, :]  # [N, L, (2), 1, d]
        ranks = torch.arange(self.config.lora.rank, device=h1.device)
        if self.config.rank_position == "rotary":
            return self._block2(apply_rotary(u, ranks))  # [N, L, (2), r, d]
        position = self.rank(ranks)  # [r, d]
        return u + self._block2(position) if self.shares_ab_head else self._block2(u + position)

    def _block2(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.block2(x)
        return y

    def _split_ab(self, m: ModuleShape, y: Tensor) -> tuple[Tensor, Tensor]:
        """Head outputs -> A [N, L, r, in], B [N, L, r, out]."""
        n, layers, r = y.shape[0], y.shape[1], self.config.lora.rank
        if self.shares_ab_head:
            y = y.view(n, layers, 2, r, max(m.in_features, m.out_features))
            return y[:, :, 0, :, : m.in_features], y[:, :, 1, :, : m.out_features]
        if self.rank_wise:
            return y[..., : m.in_features], y[..., m.in_features :]
        a, b = y[..., : r * m.in_features], y[..., r * m.in_features :]
        return a.view(n, layers, r, m.in_features), b.view(n, layers, r, m.out_features)

    def _to_lora(self, m: ModuleShape, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Head outputs to LoRA weights: A [N, L, r, in], B [N, L, out, r]."""
        b = b.transpose(-1, -2)
        match self.config.output:
            case "direct":
                return a, b
            case "offset":
                return a + self.offset.a(m.name), b + self.offset.b(m.name)
            case "z_score":
                deviation_a, deviation_b = self.deviation.a(m.name) + 1e-10, self.deviation.b(m.name) + 1e-10
                return a * deviation_a + self.mean.a(m.name), b * deviation_b + self.mean.b(m.name)
            case "delta_w":
                shrink = self.config.delta_w_scaling**-0.5  # on each factor, so B A is divided once
                return a * shrink, b * shrink


def _mlp_layers(size: int, out: int, dropout: float) -> tuple[nn.Module, ...]:
    """Linear(size -> 4 size), SiLU, dropout, Linear(4 size -> out), SiLU."""
    return nn.Linear(size, 4 * size), nn.SiLU(), nn.Dropout(dropout), nn.Linear(4 * size, out), nn.SiLU()


def apply_rotary(x: Tensor, positions: Tensor, base: float = 10_000.0) -> Tensor:
    """Rotary position embedding that rotates halves (Su et al.

    2021): [..., 1, d] x [r] -> [..., r, d].
    """
    half = x.shape[-1] // 2
    frequencies = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)  # [d/2]
    angles = positions[:, None].float() * frequencies  # [r, d/2]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
