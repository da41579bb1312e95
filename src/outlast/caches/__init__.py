"""Caches that ML tools leave behind: which there are, where each should live, what can be freed and in what order.

`rows` is data and `catalogue` reads it; `plan` and `layout` decide; `find`, `here`, `effect` and `probe` look; `clear`,
`migrate` and `notebook` act.
"""

from outlast.caches import hub
from outlast.caches.catalogue import CATALOGUE, Cache, Cost, Place, Sweep, by_id, places
from outlast.caches.clear import Outcome, Result, execute
from outlast.caches.effect import Report, Seen, check, too_late
from outlast.caches.find import Inventory, Skipped, inventory
from outlast.caches.here import Here, holds_something, look, make_folders
from outlast.caches.hub import is_repository
from outlast.caches.layout import Layout, Remark, Setting, Site, mend
from outlast.caches.layout import decide as decide_layout
from outlast.caches.notebook import Setup, setup
from outlast.caches.plan import Item, Linked, Plan, Stored, Wish, decide, frees_bytes, keeps
from outlast.caches.probe import Answer, Gpu, ask
from outlast.caches.reclaim import NOTHING, Reclaim, allowed
from outlast.caches.survey import Survey

__all__ = [
    "CATALOGUE",
    "NOTHING",
    "Answer",
    "Cache",
    "Cost",
    "Gpu",
    "Here",
    "Inventory",
    "Item",
    "Layout",
    "Linked",
    "Outcome",
    "Place",
    "Plan",
    "Reclaim",
    "Remark",
    "Report",
    "Result",
    "Seen",
    "Setting",
    "Setup",
    "Site",
    "Skipped",
    "Stored",
    "Survey",
    "Sweep",
    "Wish",
    "allowed",
    "ask",
    "by_id",
    "check",
    "decide",
    "decide_layout",
    "execute",
    "frees_bytes",
    "holds_something",
    "hub",
    "inventory",
    "is_repository",
    "keeps",
    "look",
    "make_folders",
    "mend",
    "places",
    "setup",
    "too_late",
]
