"""Attention by the best implementation that is here: FlashAttention's package, torch's SDPA, matmul and softmax.

`choose_attention` and `choose_for_transformers` say which, and why; `attention` computes it for modules of one's own.
The rules are in `outlast.budget`, where a prediction follows them too. Needs torch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)

from outlast.budget import (
    FLASH_PACKAGES,
    Attention,
    AttentionChoice,
    FlashPackage,
    Package,
    choose_backend,
    gpu_named,
    unfit,
)
from outlast.errors import BadInput
from outlast.train import flash
from outlast.train.attend import WAYS

_SHORT = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
_SIZES = ("head_dim", "d_kv")
_DROPOUTS = ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "dropout_rate")


def choose_attention(
    *,
    dtype: Any,
    head_dim: int,
    device: Any = None,
    needs_mask: bool = False,
    dropout: float = 0.0,
    causal: bool = False,
    needs_grad: bool = True,
) -> AttentionChoice:
    """The best implementation for a module of one's own.

    Args:
        dtype: type that attention is computed in (under autocast its type), as torch's or by name.
        head_dim: size of a head.
        device: a torch device; a name of `outlast.budget.GPUS`, to plan for one that is not here; None for the GPU in
            use, or the CPU where there is none.
        needs_mask: a mask other than the causal one is given (padding, a bias).
        dropout: of the attention weights.
        causal: each query sees the keys up to its own place.
        needs_grad: it is trained.

    Raises:
        BadInput: for a type, a size or a device that there is not.
    """
    call = _call(dtype, head_dim, needs_mask=needs_mask, drops=dropout > 0, causal=causal, needs_grad=needs_grad)
    return _chosen(call, *_place(device))


def choose_for_transformers(
    model: Any, config: Any = None, *, dtype: Any, device: Any = None, has_padding: bool = True
) -> AttentionChoice:
    """The best ``attn_implementation`` for a Transformers model; its name goes into ``from_pretrained``.

    Args:
        model: the model's class, or a model.
        config: its configuration; None takes that of the model.
        dtype: type that it is computed in: that of autocast (``bf16=True`` in TrainingArguments), else of its weights.
        device: as of `choose_attention`; FlashAttention is chosen only for a GPU that is here.
        has_padding: batches are padded.

    Raises:
        BadInput: when it is not a Transformers model, or its configuration does not tell the size of a head.
    """
    config = getattr(model, "config", None) if config is None else config
    if not hasattr(model, "_supports_sdpa") or config is None:
        raise BadInput(
            f"{getattr(model, '__name__', type(model).__name__)} is not a Transformers model with a configuration",
            hint="give the model's class (LlamaForCausalLM, not AutoModelForCausalLM) and its config, or a model",
        )
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    dropout = max(float(getattr(text, name, None) or 0.0) for name in _DROPOUTS)
    call = _call(dtype, _head_of(text), needs_mask=has_padding, drops=dropout > 0, causal=False, needs_grad=True)
    return _chosen(call, *_place(device), supported=_supported_by(model))


def _head_of(config: Any) -> int:
    for name in _SIZES:
        if isinstance(size := getattr(config, name, None), int):
            return size
    try:
        return int(config.hidden_size) // int(config.num_attention_heads)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        raise BadInput(
            f"{type(config).__name__} does not tell the size of a head (head_dim, or hidden_size and heads)",
            hint="ask choose_attention(dtype=..., head_dim=...)",
        ) from None


def _supported_by(model: Any) -> frozenset[str]:
    """What a class takes of what we choose from; some take only kernels from the hub, which are not for us to fetch."""
    found = {"eager"} | ({"sdpa"} if model._supports_sdpa else set())
    if getattr(model, "_supports_flash_attn", False) or getattr(model, "_supports_flash_attn_2", False):
        own = getattr(model, "_compatible_flash_implementations", None)
        found |= {row.name for row in FLASH_PACKAGES if own is None or row.name in own}
    return frozenset(found)


def _accepted(row: FlashPackage, package: Package) -> Package:
    """A package that Transformers itself does not accept is none for it: it would fetch a kernel from the hub."""
    import transformers.utils

    asks = getattr(transformers.utils, f"is_flash_attn_{row.name[-1]}_available", lambda: False)
    if package.problem or asks():
        return package
    return Package(package.version, f"Transformers does not accept {row.distribution} {package.version} here")


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
    using: str | None = None,
) -> torch.Tensor:
    """Attention, ``softmax(query key^T * scale + mask) value``, the same within rounding by each implementation.

    Args:
        query: batch, heads, length, head.
        key: the same; its length may be another, its heads fewer (grouped queries): a divisor of the query's.
        value: as the key; its size of head may be another.
        mask: True where a key is seen, or numbers to add; broadcast to batch, heads, queries, keys. A query that sees
            no key gets zeros.
        causal: the last query sees all keys, each one before it one fewer.
        dropout: of the weights; 0 outside of training (``self.dropout if self.training else 0.0``).
        scale: None for one by the root of the head's size.
        using: a name of `AttentionChoice`; None for the best that can compute this call.

    Returns:
        batch, heads, length, the value's size of head, in the query's layout.

    Raises:
        BadInput: for tensors that do not belong together, or what the named implementation cannot compute.
    """
    _check(query, key, value, causal, dropout, using)
    if using is None:
        using = _for_tensors(query, key, value, mask is not None, causal, dropout > 0).name
    return WAYS[using](query, key, value, mask, causal, dropout, scale)


def _for_tensors(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, masked: bool, causal: bool, drops: bool
) -> AttentionChoice:
    dtype = query.dtype
    if dtype == torch.float32 and torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
    call = Attention(
        str(dtype).removeprefix("torch."), query.dim(), query.shape[-1], value.shape[-1], masked, causal,
        query.shape[-2] == key.shape[-2], query.shape[1] != key.shape[1],
        torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value)), drops,
    )  # fmt: skip
    return _chosen(call, _capability(query.device), query.device)


@lru_cache
def _chosen(
    call: Attention,
    capability: tuple[int, int] | None,
    device: torch.device | None,
    *,
    supported: frozenset[str] | None = None,
) -> AttentionChoice:
    """A package is imported only where nothing else is in its way: that takes seconds."""
    is_transformers = supported is not None
    packages = {}
    for row in FLASH_PACKAGES:
        takes = supported is None or row.name in supported
        if takes and unfit(row, call, capability, unpads=is_transformers) is None:
            found = flash.look(row, call, device)
            packages[row.name] = _accepted(row, found) if is_transformers else found
    has_sdpa = hasattr(F, "scaled_dot_product_attention")
    return choose_backend(call, capability, packages, supported=supported, unpads=is_transformers, has_sdpa=has_sdpa)


def _call(dtype: Any, head_dim: int, *, needs_mask: bool, drops: bool, causal: bool, needs_grad: bool) -> Attention:
    name = _SHORT.get(str(dtype), str(dtype).removeprefix("torch."))
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise BadInput(f"no type of numbers called {name!r}", hint="fp16, bf16, fp32 or float64")
    if head_dim < 1:
        raise BadInput(f"the size of a head is {head_dim}", hint="hidden size by the number of heads, from 1 up")
    return Attention(
        name, 4, head_dim, head_dim, needs_mask, causal, square=True, grouped=False, needs_grad=needs_grad, drops=drops
    )


def _place(device: Any) -> tuple[tuple[int, int] | None, torch.device | None]:
    """Compute capability, and where a package can be tried: nowhere for a GPU that is only planned for."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        here = torch.device(device)
    except RuntimeError:
        return gpu_named(str(device)).capability, None
    if here.type == "cuda" and (here.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"no device {here} here: {torch.cuda.device_count()}", hint="'cpu', or a GPU's name to plan: 'T4'"
        )
    return _capability(here), here


def _capability(device: torch.device) -> tuple[int, int] | None:
    """None for all but NVIDIA's: those of ROCm have numbers of their own, and packages of their own."""
    if device.type != "cuda" or torch.version.hip:
        return None
    major, minor = torch.cuda.get_device_capability(device)
    return major, minor


def _check(query: Any, key: Any, value: Any, causal: bool, dropout: float, using: str | None) -> None:
    if not query.dim() == key.dim() == value.dim() == 4:
        raise _wrong(query, key, value, "not four dimensions each", "batch, heads, length, head")
    if query.shape[-1] != key.shape[-1] or key.shape[:3] != value.shape[:3] or query.shape[0] != key.shape[0]:
        raise _wrong(query, key, value, "they do not belong together", "batch, heads, length, head")
    if query.shape[1] % key.shape[1]:
        raise _wrong(query, key, value, f"{key.shape[1]} heads of keys", "a divisor of the query's heads")
    if causal and query.shape[2] > key.shape[2]:
        raise _wrong(query, key, value, "causal, with more queries than keys", "the first queries would see nothing")
    if not 0.0 <= dropout < 1.0:
        raise BadInput(f"dropout is {dropout}", hint="from 0 to below 1")
    if using is not None and using not in WAYS:
        raise BadInput(f"no implementation called {using!r}", hint="known: " + ", ".join(WAYS))


def _wrong(query: Any, key: Any, value: Any, what: str, hint: str) -> BadInput:
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    return BadInput(f"{shapes}: {what}", hint=hint)
