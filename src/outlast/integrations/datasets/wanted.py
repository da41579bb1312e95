"""Which data sets are to be cut to their first rows: what the user asked for, by name. Pure.

Two ways to ask, both under `outlast run`: ``--subset 'openwebtext=11000'`` for any data set, and
``OWT_SUBSET_NUM=11000``, which scripts for OpenWebText know already, for that one alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from outlast.errors import BadInput

VARIABLE = "OUTLAST_SUBSET"
"""Environment variable that hands the subsets to child processes: ``NAME=ROWS`` joined by semicolons."""
OWT_VARIABLE = "OWT_SUBSET_NUM"
"""Environment variable of scripts that train on OpenWebText: rows."""
_OPENWEBTEXT = re.compile(r"(open-?web-?text|owt)([-_.].*)?")
_HINT = "for example --subset openwebtext=11000"


@dataclass(frozen=True, slots=True)
class Subset:
    """One data set and how much of it is wanted."""

    name: str
    """As given to ``load_dataset``: ``openwebtext``, ``Skylion007/openwebtext``, a folder. A name without an owner
    stands for that data set of any owner."""
    rows: int
    """First rows of each split, at most."""
    because: str = "--subset"
    """Where it was asked for."""

    @classmethod
    def parse(cls, text: str) -> Subset:
        """A subset from ``NAME=ROWS``.

        Raises:
            BadInput: when there is no ``=``, no name, or no number of rows.
        """
        name, separator, rows = text.rpartition("=")
        if not separator or not name.strip() or ";" in name:
            raise BadInput(f"--subset: expected NAME=ROWS, got {text!r}", hint=_HINT)
        return cls(name.strip(), _rows(rows, "--subset", _HINT))

    def names(self, path: str) -> bool:
        """True when this is the data set that ``load_dataset(path)`` would load."""
        wanted, asked = self.name.rstrip("/").lower(), path.rstrip("/").lower()
        return asked in (wanted, f"hf://datasets/{wanted}") or ("/" not in wanted and _last(asked) == wanted)


def is_openwebtext(path: str) -> bool:
    """True for OpenWebText, whoever owns the copy and however it is cut: ``stas/openwebtext-10k``, ``owt``."""
    return _OPENWEBTEXT.fullmatch(_last(path.rstrip("/").lower())) is not None


def find(path: str, environment: Mapping[str, str]) -> Subset | None:
    """What is wanted of a data set; None when the user asked for nothing.

    Args:
        path: first argument of ``load_dataset``.
        environment: the process's.

    Raises:
        BadInput: when a variable holds no number of rows.
    """
    given = [Subset.parse(part) for part in environment.get(VARIABLE, "").split(";") if part]
    named = next((subset for subset in given if subset.names(path)), None)
    if named is not None or not is_openwebtext(path):
        return named
    return from_owt_variable(path, environment)


def from_owt_variable(path: str, environment: Mapping[str, str]) -> Subset | None:
    """What ``OWT_SUBSET_NUM`` asks for; None where it is not set.

    Raises:
        BadInput: when it holds no number of rows.
    """
    text = environment.get(OWT_VARIABLE, "").strip()
    if not text:
        return None
    return Subset(path, _rows(text, OWT_VARIABLE, f"for example {OWT_VARIABLE}=11000"), OWT_VARIABLE)


def joined(subsets: Sequence[Subset], inherited: str | None) -> str:
    """The variable's value; what the nearest command asked for comes first, and counts."""
    return ";".join([*(f"{subset.name}={subset.rows}" for subset in subsets), *filter(None, [inherited])])


def _rows(text: str, where: str, hint: str) -> int:
    digits = text.strip().replace("_", "")
    if not (digits.isascii() and digits.isdigit()) or not 0 < int(digits) < 2**63:
        raise BadInput(f"{where}: expected a number of rows, 1 or more, got {text!r}", hint=hint)
    return int(digits)


def _last(path: str) -> str:
    """The data set's own name: without its owner, folder, or a revision."""
    return path.rpartition("/")[2].partition("@")[0]
