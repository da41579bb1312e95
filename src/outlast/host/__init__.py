"""Facts about this machine: volumes, usage, memory. Reads only; changes nothing.

Sizes are bytes and carry their source; what cannot be read is None.
"""

from outlast.host.memory import MemoryGroup, memory_group
from outlast.host.units import parse_bytes, show_bytes, show_seconds
from outlast.host.usage import Usage, allocated_bytes, tree
from outlast.host.volumes import (
    BUDGETS_VARIABLE,
    Budget,
    Limit,
    Room,
    declared_budgets,
    existing,
    room,
)

__all__ = [
    "BUDGETS_VARIABLE",
    "Budget",
    "Limit",
    "MemoryGroup",
    "Room",
    "Usage",
    "allocated_bytes",
    "declared_budgets",
    "existing",
    "memory_group",
    "parse_bytes",
    "room",
    "show_bytes",
    "show_seconds",
    "tree",
]
