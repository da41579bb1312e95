"""Digests of files: BLAKE3 where it is installed, BLAKE2b from the standard library where it is not.

A guarded script may run in an interpreter that has none of Outlast's dependencies; a digest names its algorithm, so
both kinds of seal can be told apart and checked.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from outlast.errors import SealError

try:
    import blake3 as _blake3
except ImportError:  # another interpreter than Outlast's own
    _blake3 = None  # type: ignore[assignment]

_CHUNK = 4 << 20
_THREADS_FROM = 32 << 20


def of_file(path: str | os.PathLike[str], algorithm: str | None = None) -> str:
    """The digest of a file, as ``algorithm:hex``.

    Args:
        path: a regular file.
        algorithm: ``blake3`` or ``blake2b``; None takes the best one here.

    Raises:
        SealError: when the algorithm is not to be had in this interpreter.
        OSError: when the file cannot be read.
    """
    name = algorithm or ("blake3" if _blake3 else "blake2b")
    hasher: Any
    with Path(path).open("rb", buffering=0) as file:
        if name == "blake3" and _blake3:
            # Reading costs nothing next to a lost file; mmap would turn an I/O error into SIGBUS.
            large = os.fstat(file.fileno()).st_size >= _THREADS_FROM
            hasher = _blake3.blake3(max_threads=_blake3.blake3.AUTO if large else 1)
        elif name == "blake2b":
            hasher = hashlib.blake2b(digest_size=32)
        else:
            raise SealError(
                f"this seal uses {name}, which this interpreter does not have",
                hint="pip install blake3 in the environment that trains, or check with Outlast's own command",
            )
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            hasher.update(view[:count])
    return f"{name}:{hasher.hexdigest()}"


def of_bytes(data: bytes) -> str:
    """The digest of some bytes, as ``algorithm:hex``."""
    if _blake3:
        return f"blake3:{_blake3.blake3(data).hexdigest()}"
    return f"blake2b:{hashlib.blake2b(data, digest_size=32).hexdigest()}"


def matches(path: str | os.PathLike[str], expected: str) -> bool:
    """True when the file's digest is the expected one, computed with the expected one's algorithm."""
    return of_file(path, expected.partition(":")[0]) == expected
