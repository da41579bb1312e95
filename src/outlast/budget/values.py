"""What fake tensors know of their data: small integers and truths are computed beside them. Needs torch.

Model code asks its data little: is the mask all ones, are positions in order, which is the last token. Such questions
are about token numbers, masks and positions, which a real batch has and which are small. What is computed from them
alone stays known; everything else is answered so that no loop runs for ever and no size is too small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten

MOST = 1 << 20
"""Elements of the largest tensor whose values are followed."""


class Values:
    """The values of fake tensors, as far as they are known."""

    def __init__(self) -> None:
        self._of: Any = WeakIdKeyDictionary()

    def learn(self, fake: torch.Tensor, real: torch.Tensor) -> None:
        """This fake tensor stands for that real one; only small ones of integers or truths are remembered."""
        if _may_be_known(fake) and not isinstance(real, FakeTensor):
            self._of[fake] = real

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of an operation on fake tensors, with its values where they follow from known ones."""
        if func in _ANSWERS:
            return self._answer(func, args, kwargs)
        if func in _INDEXING:
            args = (args[0], [self._as_numbers(index) for index in args[1]], *args[2:])
        result = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if any(_may_be_known(tensor) for tensor in made):
            real = self._really(func, args, kwargs)
            leaves = [leaf for leaf in tree_leaves(real) if isinstance(leaf, torch.Tensor)]
            for tensor, value in zip(made, leaves, strict=False):
                if tensor.shape == value.shape:
                    self.learn(tensor, value)
            if real is None and func._schema.is_mutable:
                self._forget(args[0] if args else None)
        return result

    def _really(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The same operation on the values; None when one of them is not known, or it is random."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(self._value(tensor) is None for tensor in tensors) or torch.Tag.nondeterministic_seeded in func.tags:
            return None
        if not tensors and func in _UNSET:
            return None
        with _disable_current_modes():
            args, kwargs = tree_map(
                lambda leaf: self._value(leaf) if isinstance(leaf, torch.Tensor) else leaf, (args, kwargs)
            )
            return func(*args, **kwargs)

    def _value(self, tensor: torch.Tensor) -> torch.Tensor | None:
        return self._of.get(tensor) if isinstance(tensor, FakeTensor) else tensor

    def _forget(self, changed: Any) -> None:
        """Something unknown was written into it: its values, and those of its views, are not known any more."""
        value = self._value(changed) if isinstance(changed, FakeTensor) else None
        if value is None:
            return
        place = value.untyped_storage()._cdata
        for fake, known in list(self._of.items()):
            if known.untyped_storage()._cdata == place:
                del self._of[fake]

    def _answer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        real = self._really(func, args, kwargs)
        if real is None:
            return _ANSWERS[func](*args, **kwargs)
        if not isinstance(real, torch.Tensor):
            return real
        fake = args[0].new_empty(real.shape, dtype=real.dtype)
        self.learn(fake, real)
        return fake

    def _as_numbers(self, index: torch.Tensor | None) -> torch.Tensor | None:
        """Truths as an index, as the numbers of the true ones: fake tensors cannot count them."""
        if index is None or index.dtype not in (torch.bool, torch.uint8) or index.dim() != 1:
            return index
        value = self._value(index)
        with _disable_current_modes():
            count = index.numel() if value is None else int(value.count_nonzero())
        return index.new_empty((count,), dtype=torch.int64)


def _may_be_known(tensor: torch.Tensor) -> bool:
    return not tensor.dtype.is_floating_point and tensor.numel() <= MOST and tensor.device.type != "meta"


# Answers where nothing is known. Floats are 1, truths False (some initialisers repeat while True); what depends on how
# many are true is as large as it can be.


def _scalar(tensor: torch.Tensor) -> float | int | bool:
    if tensor.dtype == torch.bool:
        return False
    return 1.0 if tensor.dtype.is_floating_point else 1


def _nonzero(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.new_empty((tensor.numel(), max(tensor.dim(), 1)), dtype=torch.int64)


def _masked_select(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return tensor.new_empty((torch.broadcast_shapes(tensor.shape, mask.shape).numel(),))


_ANSWERS: Mapping[Any, Callable[..., Any]] = {
    aten._local_scalar_dense.default: _scalar,
    aten.equal.default: lambda *_: False,
    aten.nonzero.default: _nonzero,
    aten.masked_select.default: _masked_select,
}
_INDEXING = frozenset({aten.index.Tensor, aten.index_put.default, aten.index_put_.default})
_UNSET = frozenset({aten.empty.memory_format, aten.empty_strided.default})
