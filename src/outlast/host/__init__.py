"""Facts about this machine: volumes, usage, memory. Reads only; changes nothing.

Sizes are bytes and carry their source; what cannot be read is None.
"""

from outlast.host.in_use import OpenFiles, is_locked, lease, leases_are_safe, users_of
from outlast.host.memory import MemoryGroup, memory_group
from outlast.host.platforms import PLATFORMS, Fact, Platform, Spot, recognise
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
    "PLATFORMS",
    "Budget",
    "Fact",
    "Limit",
    "MemoryGroup",
    "OpenFiles",
    "Platform",
    "Room",
    "Spot",
    "Usage",
    "allocated_bytes",
    "declared_budgets",
    "existing",
    "is_locked",
    "lease",
    "leases_are_safe",
    "memory_group",
    "parse_bytes",
    "recognise",
    "room",
    "show_bytes",
    "show_seconds",
    "tree",
    "users_of",
]
