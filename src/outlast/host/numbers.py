"""Numbers as people and files say them: finite, of the right sign, and whole where only that makes sense. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outlast.errors import BadInput

_MOST = 1e20
"""Far above every count, time and price; products of three still fit a float."""
_LEAST = 1e-9
"""What is more than nothing is at least this: a part by something smaller would not fit a float."""
_LONGEST = 200
"""Characters of a value in a message."""
_PRINTABLE_BITS = 1024


@dataclass(frozen=True, slots=True)
class Number:
    """Which numbers make sense somewhere."""

    expected: str
    """In words, for a hint."""
    least: float = _LEAST
    """The smallest."""
    most: float = _MOST
    """The largest."""
    is_whole: bool = False
    """Whether parts of one make no sense."""
    floor: float | None = None
    """Smaller ones mean this one; None where each means itself."""

    def read(self, value: Any) -> Any:
        """The number that a value is: an int where it is whole, else a float.

        Raises:
            ValueError: when it is none of these numbers.
            TypeError: when it is a truth, a mapping or a list.
        """
        if isinstance(value, bool):
            raise TypeError
        number = value if isinstance(value, int) else float(value)
        if not self.least <= number <= self.most:  # nan is neither
            raise ValueError
        if self.is_whole and number != math.floor(number):
            raise ValueError
        number = number if self.floor is None else max(self.floor, number)
        return int(number) if self.is_whole else float(number)

    def given(self, name: str, value: Any) -> Any:
        """The same for what somebody typed.

        Args:
            name: the option's.
            value: what came.

        Raises:
            BadInput: when it is none of these numbers.
        """
        try:
            return self.read(value)
        except (ValueError, TypeError):
            raise BadInput(f"{name} is {shown(value)}", hint=f"expected {self.expected}") from None


COUNT = Number("a whole number, 1 or more", 1, is_whole=True)
WHOLE = Number("a whole number, 0 or more", 0, is_whole=True)
POSITIVE = Number("a number, more than 0")
NOT_NEGATIVE = Number("a number, 0 or more", 0)


def shown(value: Any) -> str:
    """A value for an error's message, however large: what a file says may have no end."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set):
        return "a list"
    if isinstance(value, int) and value.bit_length() > _PRINTABLE_BITS:
        return f"a number of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
