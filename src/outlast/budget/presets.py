"""Ways to train that people choose by a word: the four of seeds/002, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Preset:
    """A row of the table."""

    name: str
    """As in ``--preset``."""
    meant: str
    """What it is for."""
    share: Fraction
    """Of the batch, at most at once; the rest is accumulation."""
    optimizers: tuple[str, ...]
    """Allowed, in this order."""
    save: str | None
    """``full`` or ``light``; None leaves that as it is."""
    is_half: bool = True
    """Forward and backward in half precision."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other keys of a configuration that it sets, by their role in `outlast.budget.keys`."""


_ANY = ("adamw", "adamw-8bit", "adafactor")

PRESETS: tuple[Preset, ...] = (
    Preset(
        "quick-test", "does it run at all: a tenth of the data, two epochs, nothing saved on the way",
        Fraction(1), _ANY, None,
        settings={"subset": True, "subset_ratio": 0.1, "epochs": 2, "save_frequency": "none"},
    ),
    Preset("low-memory", "half of the batch at once, light checkpoints", Fraction(1, 2), _ANY, "light"),
    Preset(
        "ultra-low", "a quarter of the batch at once, light checkpoints once an epoch, no loader processes",
        Fraction(1, 4), _ANY, "light", settings={"save_frequency": "epoch", "workers": 0},
    ),
    Preset(
        "max-quality", "nothing that changes training: AdamW in float32 moments, full checkpoints",
        Fraction(1), ("adamw",), "full",
    ),
)  # fmt: skip


def preset_named(name: str) -> Preset:
    """The row of this name.

    Raises:
        BadInput: when there is none.
    """
    found = next((preset for preset in PRESETS if preset.name == name), None)
    if found is None:
        known = ", ".join(preset.name for preset in PRESETS)
        raise BadInput(f"no preset called {name!r}", hint=f"known: {known}")
    return found


def at_most(batch: int, share: Fraction) -> int:
    """The largest divisor of a batch that is at most this share of it, and at least one sample."""
    return max((n for n in range(1, batch + 1) if batch % n == 0 and n <= batch * share), default=1)
