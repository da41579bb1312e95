"""Records what training steps take and give back: a dispatch mode that sees every operation's new storages.

Needs torch. It works on fake tensors (shapes without data: a prediction) and on real ones (a measurement) alike.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from outlast.budget.replay import Event, Trace
from outlast.budget.values import Values

Scratch = Callable[[str, tuple[Any, ...], str], Iterable[tuple[str, int, bool]]]
"""Given an operation's name, its arguments and the phase: memory that its kernel takes and no dispatch mode sees, as
(what, bytes, stays)."""


Watch = Callable[[Any, tuple[Any, ...], dict[str, Any], Any, str], None]
"""Told of every operation: what, its arguments, its result, the phase."""


def no_scratch(op: str, args: tuple[Any, ...], phase: str) -> Iterable[tuple[str, int, bool]]:
    """Kernels that take nothing: the habits of a CPU, as far as they can be counted."""
    return ()


class Recorder(TorchDispatchMode):  # type: ignore[misc]
    """While it is entered, every new storage and its end become events.

    Args:
        scratch: what kernels take unseen.
        watch: is told of every operation; None for nobody.
    """

    def __init__(self, scratch: Scratch = no_scratch, watch: Watch | None = None) -> None:
        super().__init__()
        self._watch = watch
        self.phase = "setup"
        """Name of what is going on; the caller changes it."""
        self._scratch = scratch
        self._events: list[Event] = []
        self._kinds: dict[int, str] = {}
        self._alive: dict[int, tuple[int, int, Any]] = {}  # by the storage's address: number, bytes, weak reference
        self._count = 0
        self._on = False
        self.values: Values | None = None
        """What is known of the data of fake tensors; None while tensors are real."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs) if self.values is None else self.values.run(func, args, kwargs)
        if not self._on:
            return result
        for made in tree_iter(result):
            if isinstance(made, torch.Tensor):
                self._see(made, func)
        if self._watch is not None:
            self._watch(func, args, kwargs, result, self.phase)
        for what, size, stays in self._scratch(func._overloadpacket.__name__, args, self.phase):
            number = self._born(size, what, "workspace")
            if not stays:
                self._dies(number, size)
        return result

    def start(self) -> None:
        """Record from here on; before, only questions about data are answered."""
        self._on = True

    def register(self, tensor: torch.Tensor, kind: str | None) -> None:
        """Say what a tensor's storage is; one that is not known yet is born now."""
        if tensor.device.type != "meta":
            number = self._see(tensor, kind or "batch")
            if kind is not None:
                self._kinds[number] = kind

    def finish(self) -> Trace:
        """The trace so far; nothing is recorded any more."""
        self._on = False
        return Trace(tuple(self._events), dict(self._kinds))

    def _see(self, tensor: torch.Tensor, op: Any) -> int:
        if tensor.device.type == "meta" or tensor.layout != torch.strided:
            return 0
        storage = tensor.untyped_storage()
        key = storage._cdata
        known = self._alive.get(key)
        size = storage.nbytes()
        if known is not None:
            number, before, reference = known
            if size == before:
                return number
            self._dies(number, before)  # resized: its bytes are taken anew under the same number's successor
        name = op if isinstance(op, str) else f"{op.name().replace('::', '.')} -> {_shape(tensor)}"
        number = self._born(size, name, self._kinds.get(known[0]) if known else None)
        reference = weakref.ref(storage, partial(self._gone, key, number))
        self._alive[key] = (number, size, reference)
        return number

    def _gone(self, key: int, number: int, _: object) -> None:
        known = self._alive.get(key)
        if known is not None and known[0] == number:
            del self._alive[key]
            self._dies(number, known[1])

    def _born(self, size: int, op: str, kind: str | None) -> int:
        self._count += 1
        if kind is not None:
            self._kinds[self._count] = kind
        if self._on:
            self._events.append(Event(self._count, size, True, self.phase, op))
        return self._count

    def _dies(self, number: int, size: int) -> None:
        if self._on:
            self._events.append(Event(number, size, False, self.phase, ""))


_LETTERS: Mapping[torch.dtype, str] = {
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float64: "f64",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.bool: "bool",
}


def _shape(tensor: torch.Tensor) -> str:
    return f"{_LETTERS.get(tensor.dtype, str(tensor.dtype))}{list(tensor.shape)}"


def map_tensors(change: Callable[[torch.Tensor], Any], tree: Any) -> Any:
    """The same nest of lists and dicts with every tensor changed."""
    return tree_map(lambda leaf: change(leaf) if isinstance(leaf, torch.Tensor) else leaf, tree)
