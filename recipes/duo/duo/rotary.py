"""Rotary positions: a query and a key are turned by their places, so that their product knows how far apart they are.

Component i of the first half and component i of the second half of a head are one complex number; at place m it is
multiplied by exp(1j m theta_i), theta_i = 10000^(-2i / head).
"""

from __future__ import annotations

import torch


def table(length: int, head: int, base: float = 10_000.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of each angle, (length, head / 2) each, float32."""
    # In float64: at place 1,000 an angle of float32 is off by 1e-4.
    theta = base ** (-torch.arange(0, head, 2, dtype=torch.float64) / head)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * theta
    return angle.cos().float(), angle.sin().float()


def turn(tensor: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Turn heads by their places.

    Args:
        tensor: (..., length, head).
        cosine: (length, head / 2), of `table`.
        sine: the same.

    Returns:
        The same shape and type; the turning is in float32 at least.
    """
    first, second = tensor.chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.to(tensor.dtype)
