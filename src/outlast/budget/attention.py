"""Which kernel scaled dot-product attention takes on a GPU. Pure: torch's rules (``sdp_utils.cpp``) as one function."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attention:
    """What the choice looks at."""

    dtype: str
    """``float16``, ``bfloat16``, ``float32`` ..."""
    dimensions: int
    """Of the query: 4 is batch, heads, length, head."""
    head: int
    """Size of a head of query and key."""
    value_head: int
    """Size of a head of the values."""
    masked: bool
    """A mask is given (a causal flag is none)."""
    causal: bool
    """The causal flag."""
    square: bool
    """As many queries as keys."""
    grouped: bool
    """Fewer heads of keys than of queries."""
    needs_grad: bool
    """Something is kept for backward."""
    drops: bool = False
    """Dropout on the attention weights."""


def kernel_for(call: Attention, capability: tuple[int, int]) -> str:
    """``flash``, ``efficient`` or ``math``: the first of them that can do it on this compute capability."""
    if _flash(call, capability):
        return "flash"
    return "efficient" if _efficient(call, capability) else "math"


def is_small_chip(capability: tuple[int, int]) -> bool:
    """True for the chips from Ampere on that are not for data centers: 99 KB of shared memory for a block."""
    return capability in ((8, 6), (8, 9)) or capability[0] == 12


def _flash(call: Attention, capability: tuple[int, int]) -> bool:
    return (
        capability >= (8, 0)
        and call.dimensions == 4
        and call.dtype in ("float16", "bfloat16")
        and call.head == call.value_head
        and call.head <= 256
        and not call.masked
        and (call.square or not call.causal)
        and not (is_small_chip(capability) and call.needs_grad and 192 < call.head <= 224)
    )


def _efficient(call: Attention, capability: tuple[int, int]) -> bool:
    dtypes = ("float16", "float32", "bfloat16") if capability >= (8, 0) else ("float16", "float32")
    aligned = 8 if capability >= (8, 0) and call.dtype != "float32" else 4
    return (
        capability >= (5, 0)
        and call.dimensions == 4
        and call.dtype in dtypes
        and not call.grouped
        and call.head % aligned == 0
        and call.value_head % aligned == 0
    )
