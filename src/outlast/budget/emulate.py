"""CUDA's habits put onto CPU tensors: which operations a step is made of on a GPU, and what their kernels take unseen.

A CPU build of torch refuses tensors on ``cuda``, even fake ones. So a prediction runs on fake CPU tensors, while the
operations that choose by device are given CUDA's choice: dropout keeps a mask, softmax goes from half to float in one
kernel, scaled dot-product attention takes the kernel that the GPU would, autocast follows CUDA's lists. Needs torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from outlast.budget.attention import Attention, kernel_for
from outlast.budget.gpus import Gpu
from outlast.budget.trace import map_tensors

aten = torch.ops.aten

# AT_FORALL_FP32 of torch/include/ATen/autocast_mode.h (2.13): run in float32 whatever comes.
_TO_FLOAT = """
acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar pow.Tensor_Tensor
pow.Scalar softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm.dim nuclear_norm nuclear_norm.dim
cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss
smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss
multi_margin_loss binary_cross_entropy_with_logits dist pdist cdist renorm logsumexp upsample_nearest1d
_upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d upsample_nearest3d _upsample_nearest_exact3d
upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d upsample_bicubic2d
_upsample_bicubic2d_aa
"""
# AT_FORALL_FP32_SET_OPT_DTYPE: asked for a float32 result unless the caller asks for another.
_FLOAT_RESULT = "prod prod.dim_int softmax.int log_softmax.int cumprod cumsum sum sum.dim_IntList"


@contextmanager
def cuda_habits(gpu: Gpu) -> Iterator[None]:
    """While entered, CPU tensors of this process are computed with the operations that this GPU would be given.

    Only for predictions: it changes torch for the whole process, and real CPU tensors cannot run CUDA's kernels.
    """
    library = torch.library.Library("aten", "IMPL")

    def put(name: str, kernel: Callable[..., Any], key: str) -> None:
        # What the CPU's autocast has a kernel for (mse_loss and the like) it runs in float32 too.
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", key):
            library.impl(name, kernel, key)

    optimizers: list[Any] = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("torch.optim.") and hasattr(module, "_default_to_fused_or_foreach")
    ]
    choices = {module: module._default_to_fused_or_foreach for module in optimizers}
    try:
        put("dropout", _dropout, "AutogradCPU")
        put("softmax.int", _softmax_like(aten._softmax), "AutogradCPU")
        put("log_softmax.int", _softmax_like(aten._log_softmax), "AutogradCPU")
        put("scaled_dot_product_attention", _attention_on(gpu), "AutogradCPU")
        for name in _TO_FLOAT.split():
            put(name, _in_float(_overload(name)), "AutocastCPU")
        for name in _FLOAT_RESULT.split():
            put(name, _with_float_result(_overload(name)), "AutocastCPU")
        for module in optimizers:
            module._default_to_fused_or_foreach = _foreach_by_default
        yield
    finally:
        for module, choice in choices.items():
            module._default_to_fused_or_foreach = choice
        library._destroy()


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def _foreach_by_default(params: Any, differentiable: bool, use_fused: bool = False) -> tuple[bool, bool]:
    return use_fused and not differentiable, not use_fused and not differentiable


# Operations that CUDA runs otherwise.


def _dropout(tensor: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    if not train or p == 0 or tensor.numel() == 0:
        return tensor
    if p == 1:
        return tensor.mul(torch.zeros((), dtype=tensor.dtype))
    return aten.native_dropout(tensor, p, train)[0]


def _softmax_like(inner: Any) -> Callable[..., torch.Tensor]:
    def softmax(tensor: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        if dtype == torch.float32 and tensor.dtype in (torch.float16, torch.bfloat16):
            return inner(tensor, dim, True)  # one kernel from half to float: no copy of the input is kept
        return inner(tensor if dtype is None else tensor.to(dtype), dim, False)

    return softmax


def _attention_on(gpu: Gpu) -> Callable[..., torch.Tensor]:
    def attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        tensors = [query, key, value]
        kept = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        call = Attention(
            dtype=str(query.dtype).removeprefix("torch."),
            dimensions=query.dim(),
            head=query.size(-1),
            value_head=value.size(-1),
            masked=attn_mask is not None,
            causal=is_causal,
            square=query.size(-2) == key.size(-2),
            grouped=query.dim() == 4 and query.size(1) != key.size(1),
            needs_grad=kept,
        )
        kernel = kernel_for(call, gpu.capability)
        if kernel == "flash":
            head = query.size(-1)
            if head % 8:
                scale = scale if scale is not None else head**-0.5
                query, key, value = (torch.nn.functional.pad(tensor, (0, 8 - head % 8)) for tensor in tensors)
            made = aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)
            return made[0][..., :head] if head % 8 else made[0]
        if kernel == "efficient":
            bias = _bias(attn_mask, query, key)
            return aten._scaled_dot_product_efficient_attention(
                query, key, value, bias, kept, dropout_p, is_causal, scale=scale
            )[0]
        return aten._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
        )[0]

    return attention


def _bias(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    """The mask as the memory-efficient kernel takes it: of the query's type, rows padded to a multiple of 16."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), float("-inf"))
    columns = mask.size(-1)
    if columns % 16:
        mask = torch.nn.functional.pad(mask, (0, 16 - columns % 16))[..., :columns]
    return mask.expand(query.size(0), query.size(1), query.size(2), key.size(2))


# Autocast.

_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)


def _in_float(op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            args, kwargs = map_tensors(_as_float, (args, kwargs))
            return op(*args, **kwargs)

    return kernel


def _with_float_result(op: Any) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            if kwargs.get("dtype") is None and args[0].dtype in (torch.float16, torch.bfloat16, torch.float32):
                at = next((i for i, argument in enumerate(op._schema.arguments) if argument.name == "dtype"), None)
                if at is not None and at < len(args) and args[at] is not None:
                    return op(*args, **kwargs)
                args = args[:at] if at is not None else args
                kwargs = {**kwargs, "dtype": torch.float32}
            return op(*args, **kwargs)

    return kernel


def _as_float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.float32) if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


# What kernels take unseen.

_BLAS = frozenset({"mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "addbmm"})


class CudaScratch:
    """Library workspaces, once for each thread that calls; scratch within kernels, for as long as they run.

    Args:
        gpu: for which GPU.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._handles: set[str] = set()

    def __call__(self, op: str, args: tuple[Any, ...], phase: str) -> Iterable[tuple[str, int, bool]]:
        """What this call of this operation takes besides its results: (what, bytes, stays)."""
        # Autograd runs backward in a thread of its own for each GPU, which has its own cuBLAS handle.
        thread = "backward" if phase.startswith("backward") else "main"
        if op in _BLAS and thread not in self._handles:
            self._handles.add(thread)
            yield f"cuBLAS workspace ({thread} thread)", self._gpu.blas_workspace_bytes, True
        size = _SCRATCH[op](args) if op in _SCRATCH else 0
        if size:
            yield f"scratch of {op}", size, False


def _up(size: int, to: int) -> int:
    return -(-size // to) * to


def _flash_backward(args: tuple[Any, ...]) -> int:
    """The query's gradient in float32, and the row sums (``flash_api.cpp``: dq_accum, softmax_d)."""
    batch, heads, length, head = args[1].shape
    rows = batch * heads * _up(length, 128)
    size = rows * (_up(head, 32) + 1) * 4
    if args[2].shape[1] != heads:  # keys' and values' gradients for every head, summed over the groups afterwards
        size += 2 * batch * heads * args[2].shape[2] * head * args[2].element_size()
    return int(size)


def _efficient_backward(args: tuple[Any, ...]) -> int:
    """The row sums, and for half precision the query's gradient in float32 (``attention_backward.cu``)."""
    batch, heads, length, head = args[1].shape
    rows = batch * heads * length
    return int(rows * 4 + rows * _up(head, 32) * 4)


_SCRATCH: dict[str, Callable[[tuple[Any, ...]], int]] = {
    "_scaled_dot_product_flash_attention_backward": _flash_backward,
    "_scaled_dot_product_efficient_attention_backward": _efficient_backward,
    # A sort of the tokens: four arrays of int64 (EmbeddingBackwardKernel.cu).
    "embedding_dense_backward": lambda args: int(args[1].numel() * 8 * 4),
}
