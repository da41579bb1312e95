"""FlashAttention's packages as they are here: imported with care, and tried on the device.

A package that was built for another torch fails in many ways: ImportError for an undefined symbol, OSError for
libcudart, RuntimeError when its first kernel is launched. Each of them is a reason here, never a crash. (One that ends
the process while it is imported cannot be caught: `outlast doctor --deep` imports it in a process of its own.) Needs
torch.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

import torch

from outlast.budget import Attention, FlashPackage, Package

_WORDS = 300


def look(row: FlashPackage, call: Attention | None = None, device: torch.device | None = None) -> Package:
    """What is known of a package after importing it, and running it once.

    Args:
        row: which.
        call: what it is wanted for; with a device, attention of its type and size of head is computed there.
        device: where to try it; None does not.
    """
    version = _version(row.distribution)
    try:
        function = function_of(row)
    except ModuleNotFoundError as error:
        if error.name == row.module and version is None:
            return Package(None, f"{row.distribution} is not installed")
        return Package(version, _cannot(row, version, error))
    except (Exception, SystemExit) as error:
        return Package(version, _cannot(row, version, error))
    try:
        if call is not None and device is not None:
            _try(function, call, device)
    except Exception as error:
        return Package(version, f"{row.distribution} {version} fails on this GPU: {_first_line(error)}")
    return Package(version, None)


def function_of(row: FlashPackage) -> Callable[..., Any]:
    """A package's ``flash_attn_func``. When the import fails nothing of the package stays in ``sys.modules``.

    Raises:
        Exception: whatever the import raises; AttributeError where there is no such function.
    """
    if (module := sys.modules.get(row.module)) is not None:
        known: Callable[..., Any] = module.flash_attn_func
        return known
    before = set(sys.modules)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on import it uses names that newer torch calls old
            function: Callable[..., Any] = import_module(row.module).flash_attn_func
    except (Exception, SystemExit):
        # Python takes out the module that failed, but not those of the package that were through before it.
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in row.owns:
                del sys.modules[name]
        raise
    return function


def _try(function: Callable[..., Any], call: Attention, device: torch.device) -> None:
    """Attention over 16 numbers of one head, forward and backward, of the type and size that are wanted."""
    shape = (1, 16, 1, call.head)
    made = torch.zeros(shape, dtype=getattr(torch, call.dtype), device=device, requires_grad=call.needs_grad)
    with torch.enable_grad():
        found = function(made, made, made, causal=call.causal)
        found = found[0] if isinstance(found, tuple) else found
        if call.needs_grad:
            found.sum().backward()
    found.sum().item()  # a kernel that could not be launched says so when it is waited for


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cannot(row: FlashPackage, version: str | None, error: BaseException) -> str:
    return f"{row.distribution} {version or ''}".rstrip() + f" cannot be imported: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    words = str(error).strip().partition("\n")[0][:_WORDS]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
