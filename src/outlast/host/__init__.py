"""Facts about this machine: platform, mounts, room, usage, memory. Reads only; changes nothing.

Sizes are bytes and carry their source; what cannot be read is None.
"""

from outlast.host.full import Pressure, explain_full, pressure
from outlast.host.gpus import GpuMemory, GpuProcess, GpuQuestion, Gpus, amd_gpus
from outlast.host.in_use import OpenFiles, is_locked, lease, leases_are_safe, users_of
from outlast.host.memory import (
    MemoryGroup,
    MemoryLimit,
    memory_group,
    memory_limit,
    memory_limit_again,
    oom_kills_in,
    own_bytes,
    tree_memory,
)
from outlast.host.mounts import Mount, mount_at, parse_mounts
from outlast.host.notices import Address, Notice, server_here
from outlast.host.platforms import PLATFORMS, Fact, Platform, Spot, recognise, spots_here
from outlast.host.procfs import descendants, start_ticks
from outlast.host.quota import Quota, quotas
from outlast.host.session import Session, this_session
from outlast.host.units import parse_bytes, show_bytes, show_seconds
from outlast.host.usage import Item, Largest, Usage, allocated_bytes, largest, tree
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
    "Address",
    "Budget",
    "Fact",
    "GpuMemory",
    "GpuProcess",
    "GpuQuestion",
    "Gpus",
    "Item",
    "Largest",
    "Limit",
    "MemoryGroup",
    "MemoryLimit",
    "Mount",
    "Notice",
    "OpenFiles",
    "Platform",
    "Pressure",
    "Quota",
    "Room",
    "Session",
    "Spot",
    "Usage",
    "allocated_bytes",
    "amd_gpus",
    "declared_budgets",
    "descendants",
    "existing",
    "explain_full",
    "is_locked",
    "largest",
    "lease",
    "leases_are_safe",
    "memory_group",
    "memory_limit",
    "memory_limit_again",
    "mount_at",
    "oom_kills_in",
    "own_bytes",
    "parse_bytes",
    "parse_mounts",
    "pressure",
    "quotas",
    "recognise",
    "room",
    "server_here",
    "show_bytes",
    "show_seconds",
    "spots_here",
    "start_ticks",
    "this_session",
    "tree",
    "tree_memory",
    "users_of",
]
