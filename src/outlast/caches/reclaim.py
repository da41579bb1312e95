"""Rung 3 of the ladder: what caches on a save's volume can give, as far as the user's policy allows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from outlast.caches.catalogue import CATALOGUE, Cost
from outlast.caches.clear import execute
from outlast.caches.find import Inventory, inventory
from outlast.caches.plan import KINDS, Item, Plan, Wish, decide, frees_bytes
from outlast.errors import BadInput
from outlast.journal import Journal

DEFAULT = frozenset({"partial", "debris"})
"""Allowed without being asked: what no tool can use any more."""
NOTHING = "nothing"
"""The word for a policy that allows nothing."""
_ALONE = frozenset({"repo", "broken", "build", "revision"})
"""Kinds that are offered one by one: large, and dear to make again."""
_MOST = 50


def allowed(text: str) -> frozenset[str]:
    """A policy from words joined by commas: kinds of things, costs (``seconds``, ``minutes``, ``download``), or caches.

    Raises:
        BadInput: for a word that is none of these.
    """
    words = frozenset(filter(None, (word.strip() for word in text.split(","))))
    known = {*KINDS, *(cost.name.lower() for cost in Cost), *(cache.id for cache in CATALOGUE)} - {"named", "never"} | {
        NOTHING
    }
    if strange := sorted(words - known):
        raise BadInput(
            f"cannot reclaim {strange[0]!r}", hint=f"a kind ({', '.join(KINDS[:-1])}), a cost, or a cache's name"
        )
    return words


class Reclaim:
    """What caches offer to a save that does not fit.

    Args:
        words: what the policy allows; empty for the default.
        journal: where deletions are written down.
        look: finds what is there; for tests.
    """

    def __init__(self, words: frozenset[str], journal: Journal, *, look: Callable[[], Inventory] = inventory) -> None:
        self.words = words or DEFAULT
        self.journal = journal
        self._look = look
        self._offered: dict[str, tuple[Item, ...]] = {}
        self._stuck: set[tuple[Path, ...]] = set()

    def offers(self, folder: Path) -> Mapping[str, int]:
        """Bytes that can be had on a folder's volume, under names that `take` knows, the cheapest first."""
        self._offered = {}
        # A training's save must not die of what it finds in a cache.
        with self._told():
            device = os.stat(folder).st_dev
            here = [item for item in self._look().items if self._is_allowed(item) and _device(item) == device]
            for item in decide(here, Wish(dearest=Cost.DOWNLOAD)).items:
                name = f"{item.cache}: {item.name if item.kind in _ALONE else item.kind}"
                self._offered[name] = (*self._offered.get(name, ()), item)
        sizes = {name: frees_bytes(items) for name, items in self._offered.items()}
        return {name: size for name, size in list(sizes.items())[:_MOST] if size > 0}

    def take(self, name: str) -> None:
        """Remove what was offered under a name; what is in use by now stays."""
        items = self._offered.get(name, ())
        self._stuck.update(item.paths for item in items)  # what could not be removed must not be offered for ever
        with self._told():
            execute(Plan(items, (), frees_bytes(items)), self.journal)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.journal.write("reclaim_failed", error=repr(error)[:500])

    def _is_allowed(self, item: Item) -> bool:
        if item.kind == "named" or item.cost is Cost.NEVER or item.paths in self._stuck:
            return False
        return bool({item.kind, item.cache, item.cost.name.lower()} & self.words)


def _device(item: Item) -> int | None:
    with suppress(OSError):
        return os.stat(item.root).st_dev
    return None
