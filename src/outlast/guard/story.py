"""What a run's journal tells so far, folded from its events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from outlast.journal import Event


@dataclass(slots=True)
class Story:
    """Events of a run by name, and what follows from them."""

    by_name: dict[str, list[Event]] = field(default_factory=dict)
    """Events in the order of their time, under their names."""

    def add(self, events: Iterable[Event]) -> None:
        """Take in more events; a late one is put where its time belongs."""
        for event in events:
            known = self.by_name.setdefault(event.name, [])
            known.append(event)
            if len(known) > 1 and known[-2].time > event.time:
                known.sort(key=lambda other: other.time)

    def all(self, *names: str, since: float = 0.0) -> list[Event]:
        """Events of these names from a time on, oldest first."""
        found = [event for name in names for event in self.by_name.get(name, ()) if event.time >= since]
        return sorted(found, key=lambda event: event.time)

    def hooked(self, since: float = 0.0) -> bool:
        """True when a process with a supported interpreter shook hands."""
        return any(event.get("supported") for event in self.all("hooked", since=since))

    def sealed_step(self) -> int | None:
        """The newest step that there is a way back to; None when nothing was sealed or resumed from."""
        steps = [event.get("step") for event in self.all("sealed", "resumed")]
        return next((step for step in reversed(steps) if isinstance(step, int)), None)

    def is_waiting(self) -> bool:
        """True while a save blocks because nothing makes room for it."""
        turns = self.all("paused", "continued")
        return bool(turns) and turns[-1].name == "paused"

    def files(self) -> list[Event]:
        """The last that was told of each file that ``torch.save`` wrote, with a count of at least so many times."""
        latest: dict[tuple[object, int], Event] = {}
        for event in self.all("file_saved"):
            latest[(event.get("path"), event.pid)] = event
        return list({event.get("path"): event for event in latest.values()}.values())

    def roots(self) -> list[str]:
        """Folders that checkpoints go to, in the order in which they were first seen."""
        names = (event.get("root") for event in self.all("save_admitted", "sealed"))
        return list(dict.fromkeys(name for name in names if isinstance(name, str)))
