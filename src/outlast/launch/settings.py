"""What a user sets once, in ``outlast.toml`` of the run's folder or the current one; a command's options stand above.

[reclaim]
allow = ["partial", "minutes", "pip"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from outlast.caches import NOTHING
from outlast.errors import BadInput

NAME = "outlast.toml"
"""File name."""
_KNOWN = {"reclaim": {"allow"}}


def reclaim(folders: Sequence[Path]) -> str:
    """What rung 3 may take from caches, as words joined by commas; empty when no file says, or when it does not say.

    Args:
        folders: where to look; the first file that is there counts.

    Raises:
        BadInput: for a file that cannot be read, or that holds what no one reads.
    """
    path = next((folder / NAME for folder in folders if (folder / NAME).is_file()), None)
    if path is None:
        return ""
    hint = 'for example:  [reclaim]  allow = ["partial", "minutes"]'
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}", hint=hint) from None
    for table, values in found.items():
        known = _KNOWN.get(table)
        strange = sorted(set(values) - known) if known and isinstance(values, dict) else [table]
        if strange:
            raise BadInput(f"{path} sets {strange[0]!r}, which nothing reads", hint=hint)
    if "allow" not in found.get("reclaim", {}):
        return ""
    words = found["reclaim"]["allow"]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadInput(f"{path}: allow is {words!r}, expected a list of words", hint=hint)
    return ",".join(words) or NOTHING
