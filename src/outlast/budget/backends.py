"""Which implementation of attention to take: FlashAttention's own package, torch's SDPA, or matmul and softmax. Pure.

The names are those that Transformers (4.57, 5) takes as ``attn_implementation``. Kernels from the hub are never chosen:
to name one is to download and run it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from outlast.budget.attention import Attention, is_small_chip, kernel_for


@dataclass(frozen=True, slots=True)
class FlashPackage:
    """One of FlashAttention's packages, and what it takes."""

    name: str
    """As Transformers calls it."""
    module: str
    """What is imported."""
    owns: tuple[str, ...]
    """Top-level modules that are the package's own."""
    distribution: str
    """What pip calls it."""
    least_version: tuple[int, ...]
    """Oldest that is taken."""
    capability: tuple[int, int]
    """Least compute capability."""
    below: tuple[int, int] | None
    """Compute capability from which on it is not for; None for no end."""
    head_multiple: int
    """The size of a head must be a multiple of this."""
    has_dropout: bool
    """False where it has no dropout: Transformers then leaves it out without a word."""
    source: str
    """Where these are from."""


_HEAD = 256
FLASH_PACKAGES: tuple[FlashPackage, ...] = (
    FlashPackage(
        "flash_attention_3", "flash_attn_interface", ("flash_attn_interface", "flash_attn_3"), "flash-attn-3",
        (3,), (9, 0), (10, 0), 8, False,
        "flash-attention, hopper/flash_attn_interface.py and flash_api.cpp of 2026-08; Hopper is what it is made for",
    ),
    FlashPackage(
        "flash_attention_2", "flash_attn", ("flash_attn", "flash_attn_2_cuda"), "flash-attn",
        (2, 3, 3), (8, 0), None, 1, True,
        "flash-attention, csrc/flash_attn/flash_api.cpp of 2026-08; the version is Transformers' least (5.23)",
    ),
)  # fmt: skip
"""The best first."""


@dataclass(frozen=True, slots=True)
class Package:
    """What is known of an installed package."""

    version: str | None
    """Of its distribution; None when it is not installed by pip."""
    problem: str | None
    """Why it cannot be used; None when it can."""


@dataclass(frozen=True, slots=True)
class AttentionChoice:
    """Which implementation, and why."""

    name: str
    """What Transformers takes as ``attn_implementation``, and `outlast.train.attention.attention` as ``using``."""
    why: str
    """Why it can be taken."""
    tried: tuple[tuple[str, str], ...]
    """What would have been better: name, and why it cannot be taken."""
    kernel: str | None = None
    """For ``sdpa`` on a CUDA GPU: torch's kernel, ``flash``, ``efficient`` or ``math``; else None."""

    def __str__(self) -> str:
        passed_over = "".join(f"; not {name}: {reason}" for name, reason in self.tried)
        return f"{self.name}: {self.why}{passed_over}"


def choose_backend(
    call: Attention,
    capability: tuple[int, int] | None,
    packages: Mapping[str, Package],
    *,
    supported: Collection[str] | None = None,
    unpads: bool = False,
    has_sdpa: bool = True,
) -> AttentionChoice:
    """The best implementation that can compute a call.

    Args:
        call: types, sizes and mask of the attention.
        capability: the GPU's compute capability; None where there is no CUDA GPU.
        packages: what is known of FlashAttention's packages, by name of `FLASH_PACKAGES`; one that is not in it is
            not installed.
        supported: implementations that the model's class takes; None for a module of one's own, which takes all.
        unpads: a mask is one of padding only, and the caller strips the padding for FlashAttention, as Transformers
            does.
        has_sdpa: torch has ``scaled_dot_product_attention`` (2.0 and later).
    """
    tried: list[tuple[str, str]] = []
    for row in FLASH_PACKAGES:
        reason = (
            _not_supported(row.name, supported)
            or unfit(row, call, capability, unpads=unpads)
            or _unusable(row, packages.get(row.name))
        )
        if reason is None:
            version = packages[row.name].version
            return AttentionChoice(row.name, f"{row.distribution} {version} works here", tuple(tried))
        tried.append((row.name, reason))
    reason = _not_supported("sdpa", supported) or (None if has_sdpa else "this torch is older than 2.0")
    if reason is None:
        kernel = kernel_for(call, capability) if capability else None
        return AttentionChoice("sdpa", _of_torch(call, capability, kernel), tuple(tried), kernel)
    return AttentionChoice("eager", "matmul and softmax go everywhere", (*tried, ("sdpa", reason)))


def unfit(
    row: FlashPackage, call: Attention, capability: tuple[int, int] | None, *, unpads: bool = False
) -> str | None:
    """Why a package of FlashAttention cannot compute a call, installed or not; None when it can."""
    if capability is None:
        return "it needs a CUDA GPU"
    if capability < row.capability or (row.below and capability >= row.below):
        wanted = f"{_dotted(row.capability)} or more" if row.below is None else f"{row.capability[0]}.x"
        return f"it needs compute capability {wanted}, this GPU has {_dotted(capability)}"
    if call.dtype not in ("float16", "bfloat16"):
        return f"it takes float16 and bfloat16, not {call.dtype}"
    if call.dimensions != 4:
        return f"it takes batch, heads, length and head, not {call.dimensions} dimensions"
    if call.masked and not unpads:
        return "it takes no mask but the causal one"
    return _unfit_head(row, call, capability)


def _unfit_head(row: FlashPackage, call: Attention, capability: tuple[int, int]) -> str | None:
    if call.head != call.value_head:
        return f"heads of keys and values differ: {call.head} and {call.value_head}"
    if call.head > _HEAD:
        return f"it takes heads of at most {_HEAD}, not {call.head}"
    if call.head % row.head_multiple:
        return f"it takes heads of a multiple of {row.head_multiple}, not {call.head}"
    if call.drops and not row.has_dropout:
        return "it has no dropout"
    # There is no such kernel (flash_bwd_launch_template.h, run_mha_bwd_hdim256): an error up to 2.7.2; since
    # flash-attention #1427 nothing is computed and nothing is said.
    if call.head > 192 and call.drops and call.needs_grad and is_small_chip(capability):
        return f"with dropout its backward for heads over 192 (here {call.head}) is for chips like the A100 and H100"
    return None


def _not_supported(name: str, supported: Collection[str] | None) -> str | None:
    return None if supported is None or name in supported else "the model's class does not take it"


def _unusable(row: FlashPackage, package: Package | None) -> str | None:
    if package is None:
        return f"{row.distribution} is not installed"
    if package.problem:
        return package.problem
    if package.version is None:
        return f"{row.module} is there, but pip knows no {row.distribution}: its version cannot be told"
    if _numbers(package.version) < row.least_version:
        return f"{row.distribution} {package.version} is older than {'.'.join(map(str, row.least_version))}"
    return None


def _of_torch(call: Attention, capability: tuple[int, int] | None, kernel: str | None) -> str:
    if capability is None:
        return "torch's own"
    if kernel == "math":
        return (
            f"torch's own; for {call.dtype} and this shape on compute capability {_dotted(capability)} that is matmul "
            "and softmax, with the whole matrix of weights in memory"
        )
    return f"torch's own, by its {'flash' if kernel == 'flash' else 'memory-efficient'} kernel"


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
