"""What each change would do to disk and to what a kill costs; which one to make first. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from outlast.budget.disk import simulate
from outlast.budget.outlook import Outlook, Run, look_ahead
from outlast.budget.schedule import save_steps
from outlast.checkpoints import Keep
from outlast.errors import BadInput
from outlast.host import show_bytes

HOURS_PER_MONTH = 730.0
"""A twelfth of a year of 8,760 hours, as clouds bill."""


@dataclass(frozen=True, slots=True)
class Knob:
    """One change, and how the run would go with it."""

    change: str
    """What to set."""
    outlook: Outlook
    """The run with it."""
    is_exact: bool
    """Whether a resume would go on exactly as if nothing had been."""

    @property
    def rank(self) -> tuple[int, bool, float, int]:
        """Less is better: it fits, it is exact, little is lost, little is needed."""
        return (self.outlook.exit_code, not self.is_exact, self.outlook.lost.mean_steps, self.outlook.needs_bytes)


def knobs(now: Outlook) -> list[Knob]:
    """Changes that a user can make, the best first. Does not hold the run as it is."""
    found = [Knob(change, look_ahead(run), _is_exact(run)) for change, run in _changes(now.run)]
    return sorted(found, key=lambda knob: knob.rank)


def _is_exact(run: Run) -> bool:
    return not run.saves.only_model and run.policy.save == "full"


def _changes(run: Run) -> Iterator[tuple[str, Run]]:
    saves = run.saves
    ends = bool(saves.steps) and saves.steps[-1] == run.last_step
    for every in (run.every // 2, run.every * 2):
        if 1 <= every < run.last_step:
            steps = save_steps(run.last_step, every, at_end=ends, start=run.first_step)
            yield f"save every {every:,} steps", replace(run, saves=replace(saves, steps=steps), every=every)
    if saves.habit.deletes in ("after", "before"):
        limit = saves.keep.last
        for fewer in (1, 2, 3):
            if limit is None or fewer < limit:
                yield f"keep {fewer}", replace(run, saves=replace(saves, keep=Keep(last=fewer)))
    if not saves.only_model and saves.size.moments:
        yield "save the model only", replace(run, saves=replace(saves, only_model=True))
    if saves.habit.has_light and not saves.only_model and run.policy.save == "full" and not run.policy.keep_exact:
        yield "outlast run --save light", replace(run, policy=replace(run.policy, save="light"))


def advice(now: Outlook, changes: list[Knob]) -> str:
    """What to do first, in a sentence."""
    plain, guarded = now.plain, now.guarded
    if now.run.volume.total_bytes is None:
        return "say how large the volume is: --volume, or --budget DIR=SIZE"
    if plain.fits and (now.undeleted is None or now.undeleted.fits):
        return "nothing has to change"
    if plain.fits and now.undeleted:
        return (
            "nothing has to change while old checkpoints are really deleted; outlast run says when one is not, "
            f"which would fill the volume at step {now.undeleted.full_at:,}"
        )
    if not now.run.saves.deletes:
        mended = simulate(now.run.volume, replace(now.run.saves, deletes=True), now.run.last_step)
        if mended.fits:
            return f"see that old checkpoints are really deleted: then {show_bytes(mended.peak_bytes)} are enough"
    if guarded.fits:
        first = guarded.deeds[0].step if guarded.deeds else None
        from_step = f" from step {first:,} on" if first is not None else ""
        return f"outlast run -- ...: older checkpoints give way{from_step}, and it ends well"
    better = next((knob for knob in changes if knob.outlook.guarded.fits), None)
    if better is not None:
        how = "" if better.outlook.plain.fits else ", under outlast run"
        return f"{better.change}{how}: then it ends well"
    least = min(changes, key=lambda knob: knob.outlook.light_bytes, default=None)
    text = f"a volume of {show_bytes(now.light_bytes)} or more: no change here makes it fit"
    if least is None or least.outlook.light_bytes >= now.light_bytes:
        return text
    return f"{text}; {least.change}, and {show_bytes(least.outlook.light_bytes)} are enough"


def price(size: int, per_gb_month: float, hours: float) -> float:
    """What so many bytes cost for so many hours, in the price's own currency; a GB is 10^9 bytes."""
    return size / 1e9 * per_gb_month * hours / HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would make a run find its volume full at one save, and not before."""

    how: str
    """What became of old checkpoints."""
    over_bytes: int
    """More than this must have lain there beside the checkpoints at that save."""
    until_bytes: int
    """And at most this at every save before; where that is no more, it came or grew in between."""


def explained(now: Outlook, full_at: int) -> tuple[Explanation, ...]:
    """What must have lain on the volume beside the checkpoints of a run that died at a save.

    Args:
        now: the run.
        full_at: the step of the save that did not fit.

    Raises:
        BadInput: when no save is due at that step, or the volume's size is not known.
    """
    run = now.run
    total = run.volume.total_bytes
    if total is None or full_at not in run.saves.steps:
        raise BadInput(f"no save is due at step {full_at}", hint=f"it saves every {run.every} steps; give --volume too")
    cases = (
        {"old ones were deleted": True, "none was deleted": False}
        if run.saves.keep != Keep()
        else {"all are kept": True}
    )
    found = []
    for how, deletes in cases.items():
        saves = replace(run.saves, deletes=deletes and run.saves.deletes)
        alone = simulate(replace(run.volume, total_bytes=None, things=()), saves, run.last_step).points
        before = max((point.bytes for point in alone if point.step < full_at), default=0)
        then = max(point.bytes for point in alone if point.step == full_at)
        found.append(Explanation(how, total - then, total - before))
    return tuple(found)
