"""What an exception says about the end of a process: its cause, and the lines of code it came from.

Standard library only, and no import of outlast: the injected hook loads this file by its path inside the training
process, at the moment of the crash; the supervisor imports it for the text of stderr.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

_MESSAGE = 2000
_FRAMES = 8

NUMBERS = {errno.ENOSPC: "ENOSPC", errno.EDQUOT: "EDQUOT", errno.ENOMEM: "MEMORY"}
"""errno values that are a cause by themselves."""

TYPES = (
    ("OutOfMemoryError", "CUDA_OOM"),
    ("MemoryError", "MEMORY"),
    ("KeyboardInterrupt", "INTERRUPT"),
    ("ImportError", "IMPORT"),
    ("SyntaxError", "IMPORT"),
)
"""Name of an exception's class, or of one of its bases, and the cause; first match counts."""

TEXTS = (
    (re.compile(r"No space left on device|\bos error 28\b|\b[Ee]rrno 28\b|\bENOSPC\b"), "ENOSPC"),
    (re.compile(r"Disk quota exceeded|\bos error 122\b|\b[Ee]rrno 122\b|\bEDQUOT\b"), "EDQUOT"),
    (re.compile(r"(CUDA|HIP|XPU|MPS backend) out of memory|CUDA error: out of memory|_ALLOC_FAILED"), "CUDA_OOM"),
    (re.compile(r"DefaultCPUAllocator: (can't allocate|not enough) memory|Cannot allocate memory|^MemoryError", re.M),
     "MEMORY"),
)  # fmt: skip
"""What libraries write where the errno is lost (Rust, C++, a child's traceback), and the cause."""

OTHERS_END = re.compile(
    r"SIGKILL|exitcode\s*:\s*-?\d+|killed by signal|died with <Signals|returned non-zero exit status|"
    r"exited unexpectedly|terminated (abruptly|with (signal|exit code))|ChildFailedError"
)
"""An exception that only reports the end of another process: launchers and DataLoader raise such."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it came from, outermost first."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        # `raise X from None` hides the context from the reader, not from us: the errno is often in there.
        following = following.__cause__ or following.__context__


def text_cause(text: str) -> str | None:
    """The cause that a text speaks of, or None."""
    return next((cause for pattern, cause in TEXTS if pattern.search(text)), None)


def cause_of(error: BaseException) -> str:
    """The cause of an exception: a name of `NUMBERS`, `TYPES` or `TEXTS`, else ``EXCEPTION``."""
    links = list(chain(error))
    for link in links:
        number = link.errno if isinstance(link, OSError) else None
        if number in NUMBERS:
            return NUMBERS[number]
    for link in links:
        found = text_cause(str(link))
        if found:
            return found
    bases = {base.__name__ for base in type(error).__mro__}
    return next((cause for name, cause in TYPES if name in bases), "EXCEPTION")


def number_of(error: BaseException) -> int | None:
    """The first errno in the chain."""
    return next((link.errno for link in chain(error) if isinstance(link, OSError) and link.errno), None)


def file_of(error: BaseException) -> str | None:
    """The path that the first exception with a number in the chain names; Rust's and C++'s name none."""
    links = (link for link in chain(error) if isinstance(link, OSError) and link.errno in NUMBERS)
    names = (os.fspath(link.filename) for link in links if isinstance(link.filename, str | os.PathLike))
    return next((os.path.abspath(name) for name in names if isinstance(name, str)), None)  # noqa: PTH100


def describe(error: BaseException, trace: TracebackType | None) -> dict[str, Any]:
    """Facts of an uncaught exception for the journal's ``exception`` event."""
    frames = traceback.extract_tb(trace)
    last = frames[-1].filename if frames else ""
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "message": str(error)[:_MESSAGE],
        "errno": number_of(error),
        "path": file_of(error),
        "cause": cause_of(error),
        "frames": [f"{f.filename}:{f.lineno} in {f.name}: {f.line or ''}" for f in frames[-_FRAMES:]],
        "by_user_code": bool(last) and not _is_library(last),
        "reports_anothers_end": bool(OTHERS_END.search(f"{type(error).__name__}: {error}")),
    }


def _is_library(filename: str) -> bool:
    inside = os.path.abspath(filename)  # noqa: PTH100 - frames of a crash: no file system is to be asked
    stdlib = os.path.dirname(os.__file__)
    return (
        "site-packages" in inside
        or "dist-packages" in inside
        or inside.startswith((stdlib + os.sep, sys.base_prefix + os.sep + "lib" + os.sep))
        or filename.startswith("<frozen")
    )
