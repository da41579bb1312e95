"""Bytes and seconds as people write and read them. Inside Outlast they are plain numbers."""

from __future__ import annotations

import re

from outlast.errors import BadInput

_FACTORS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Bytes in a size such as ``45MB`` (10^6), ``45MiB`` (2^20) or ``1024``.

    Raises:
        BadInput: when the text is not a size, or is zero.
    """
    match = _SIZE.fullmatch(text)
    size = float(match[1]) * _FACTORS[(match[2] or "").lower()] if match else 0.0
    if not 1 <= size < 2**63:
        raise BadInput(
            f"expected a size such as 45MB or 2GiB, got {text!r}",
            hint="MB is 10^6 bytes, MiB is 2^20; a plain number is bytes",
        )
    return int(size)


def show_bytes(size: int | None) -> str:
    """A size for people: ``13.5 MB``, decimal units; ``unknown`` for None."""
    if size is None:
        return "unknown"
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.95:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def show_seconds(seconds: float | None) -> str:
    """A duration for people: ``0.4 s``, ``12 min``, ``3.5 h``; ``unknown`` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
