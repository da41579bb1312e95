"""The network: a transformer that sees all positions at once, and is told how much noise there is (DiT, adaLN)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)
from torch import nn

from duo import rotary
from outlast.errors import BadInput
from outlast.train.attend import WAYS
from outlast.train.attention import attention as attend

_WAVES = 256
"""Sinusoids that the noise is told by."""


@dataclass(frozen=True, slots=True)
class Size:
    """Width and depth of a network."""

    hidden: int
    """Numbers of a position."""
    blocks: int
    """Layers."""
    heads: int
    """Of attention, in each layer."""
    cond_dim: int = 128
    """Numbers that tell the noise."""


SIZES = {
    "toy": Size(64, 2, 2, 32),
    "tiny": Size(256, 8, 8),
    "small": Size(768, 12, 12),
    "medium": Size(1024, 24, 16),
}
"""Sizes by name. The published models are `small`; `toy` is for a try on a CPU."""


class DiT(nn.Module):
    """Logits over clean tokens from noisy ones.

    Args:
        vocab: how many tokens there are.
        hidden: numbers of a position.
        blocks: layers.
        heads: of attention, in each layer.
        cond_dim: numbers that tell the noise.
        length: most positions.
        dropout: of what each layer adds.
        attention: ``auto``, or a name of `outlast.train.attention`: ``sdpa``, ``flash_attention_2``, ``eager`` ...

    Raises:
        BadInput: for sizes that do not go together.
    """

    def __init__(
        self,
        vocab: int,
        hidden: int,
        blocks: int,
        heads: int,
        cond_dim: int,
        length: int,
        dropout: float = 0.1,
        attention: str = "auto",
    ) -> None:
        super().__init__()
        if hidden % heads or hidden // heads % 2:
            raise BadInput(
                f"{hidden} numbers a position do not make {heads} heads of an even size",
                hint="model.hidden_size must be a multiple of twice model.n_heads",
            )
        if attention != "auto" and attention not in WAYS:
            raise BadInput(f"no attention called {attention!r}", hint="known: auto, " + ", ".join(WAYS))
        self.vocab, self.length, self.heads = vocab, length, heads
        self.embedding = nn.Embedding(vocab, hidden)
        self.noise = Noise(cond_dim)
        self.blocks = nn.ModuleList(Block(hidden, heads, cond_dim, dropout, attention) for _ in range(blocks))
        self.norm = Norm(hidden)
        self.modulation = _zero(nn.Linear(cond_dim, 2 * hidden))
        self.output = _zero(nn.Linear(hidden, vocab))
        nn.init.uniform_(self.embedding.weight, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))
        cosine, sine = rotary.table(length, hidden // heads)
        # Not in a checkpoint: they follow from the sizes.
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Logits (batch, length, vocab) of the clean tokens, from noisy ones (batch, length) and the noise (batch,)."""
        return self.output(self.hidden(z, sigma))

    def hidden(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """States (batch, length, hidden) that `output` makes logits of; `duo.loss.token_loss` takes them as they are.

        Raises:
            BadInput: for more positions than the network was made for.
        """
        if z.shape[1] > self.length:
            raise BadInput(f"{z.shape[1]} positions, the network has {self.length}", hint=f"model.length={z.shape[1]}")
        told = self.noise(sigma)
        turning = self.cosine[: z.shape[1]], self.sine[: z.shape[1]]
        state = self.embedding(z)
        for block in self.blocks:
            state = block(state, told, turning)
        shift, scale = self.modulation(told)[:, None].chunk(2, dim=-1)
        return _moved(self.norm(state), shift, scale)

    def projection(self, z: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(hidden, weight, bias), as `duo.loss.token_loss` wants them."""
        return self.hidden(z, sigma), self.output.weight, self.output.bias


class Noise(nn.Module):
    """What a layer is told of the noise: sinusoids of it, through two linear maps."""

    def __init__(self, cond_dim: int) -> None:
        super().__init__()
        self.widen = nn.Linear(_WAVES, cond_dim)
        self.mix = nn.Linear(cond_dim, cond_dim)

    def forward(self, sigma: torch.Tensor) -> torch.Tensor:
        """(batch, cond_dim) from (batch,)."""
        half = _WAVES // 2
        speed = torch.exp(-math.log(10_000) / half * torch.arange(half, device=sigma.device, dtype=torch.float32))
        angle = sigma.float()[:, None] * speed
        waves = torch.cat((angle.cos(), angle.sin()), dim=-1).to(self.widen.weight.dtype)
        return F.silu(self.mix(F.silu(self.widen(waves))))


class Block(nn.Module):
    """Attention, then an MLP; the noise moves and scales what goes in, and scales what comes out of each."""

    def __init__(self, hidden: int, heads: int, cond_dim: int, dropout: float, attention: str) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.using = None if attention == "auto" else attention
        self.norm1, self.norm2 = Norm(hidden), Norm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.out = nn.Linear(hidden, hidden, bias=False)
        self.widen, self.narrow = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)
        self.modulation = _zero(nn.Linear(cond_dim, 6 * hidden))

    def forward(
        self, state: torch.Tensor, told: torch.Tensor, turning: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """The next state, (batch, length, hidden)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(told)[:, None].chunk(6, dim=-1)
        seen = self._attend(_moved(self.norm1(state), shift1, scale1), turning)
        state = state + gate1 * self._drop(seen)
        thought = self.narrow(F.gelu(self.widen(_moved(self.norm2(state), shift2, scale2)), approximate="tanh"))
        return state + gate2 * self._drop(thought)

    def _attend(self, state: torch.Tensor, turning: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        batch, length, _ = state.shape
        query, key, value = self.qkv(state).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key = rotary.turn(query, *turning), rotary.turn(key, *turning)
        return self.out(attend(query, key, value, using=self.using).transpose(1, 2).reshape(batch, length, -1))

    def _drop(self, tensor: torch.Tensor) -> torch.Tensor:
        return F.dropout(tensor, self.dropout, self.training) if self.dropout else tensor


class Norm(nn.LayerNorm):
    """Layer norm with a scale and no shift: the noise gives the shift."""

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden, bias=False)


def _moved(state: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(shift, state, 1 + scale)


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
