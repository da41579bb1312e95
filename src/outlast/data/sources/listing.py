"""What lies below an address of a store, chosen by the pattern behind it; names that no file can have are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

from outlast.data.formats import Chosen, choose_files
from outlast.errors import BadInput

_MAGIC = re.compile(r"[*?\[]")


def below(names: Sequence[str], wanted: str, where: str) -> Chosen:
    """The data files of a listing.

    Args:
        names: all files of the store, with ``/``.
        wanted: a folder, a file, or a pattern (``*`` stands for ``/`` too); empty takes all.
        where: the address, for errors.

    Raises:
        BadInput: none fits, or a name leaves the store.
    """
    bad = next((name for name in names if name.startswith("/") or ".." in name.split("/") or "\0" in name), None)
    if bad is not None:
        raise BadInput(f"{where} lists {bad!r}, which leaves it", hint="this listing is not to be trusted")
    if _MAGIC.search(wanted):
        fits = re.compile(translate(wanted))
        found = [name for name in names if fits.match(name)]
    else:
        folder = wanted.rstrip("/")
        found = [name for name in names if not folder or name == folder or name.startswith(folder + "/")]
    visible = [name for name in found if not any(part.startswith(".") for part in name.split("/"))]
    if not visible:
        raise BadInput(f"there is no file at {where}", hint="look at the name, and at who may read it")
    return choose_files(visible, where)


def fixed_part(wanted: str) -> str:
    """The folder before the first part with a pattern in it; what has to be listed."""
    parts = []
    for part in wanted.split("/"):
        if _MAGIC.search(part):
            break
        parts.append(part)
    return "/".join(parts)
