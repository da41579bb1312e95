"""Disk over time: a simulation of saves, retention and what else grows, with Outlast and without. Pure.

The same function serves a plan before the run and a look ahead in the middle of one: `Saves.lying` and `Volume.things`
say what is there now. Under Outlast the ladder itself is asked (`checkpoints.plan`), so that the simulation says what
would really be done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from outlast import durable
from outlast.budget.course import Course, Deed, Lying, Point, Saves, Volume
from outlast.checkpoints import Candidate, Held, Keep, Move, Needs, Policy, Situation, decide, plan
from outlast.checkpoints.stage import MARGIN

_BLOCK = 4096
_TELLING = 200


def simulate(volume: Volume, saves: Saves, last_step: int, policy: Policy | None = None) -> Course:
    """Walk through a run's saves.

    Args:
        volume: where.
        saves: what, when.
        last_step: the run's last step, which may be after the last save.
        policy: what Outlast may do; None is a run without Outlast.

    Returns:
        The course up to the end, or up to the save that does not fit.
    """
    walk = _Walk(volume, saves, policy)
    walk.mark(0)
    for step in saves.steps:
        if not walk.save(step):
            break
    else:
        walk.mark(last_step)
    return walk.course()


def least_bytes(
    volume: Volume, saves: Saves, last_step: int, policy: Policy | None = None, *, takes_light: bool = False
) -> int:
    """The smallest volume on which the run ends well, within a thousandth.

    With Outlast that is less than the peak on a roomy volume, since older checkpoints give way.

    Args:
        volume: with what else lies there; its size does not count.
        saves: what is saved.
        last_step: the run's last step.
        policy: what Outlast may do; None is a run without Outlast.
        takes_light: also count it as well ended when saves had to be written in a smaller kind.
    """
    saves = _thinned(saves, policy)
    roomy = simulate(replace(volume, total_bytes=None), saves, last_step, policy).peak_bytes
    if policy is None:
        return roomy
    low, high = volume.taken(0), roomy

    def is_enough(total: int) -> bool:
        course = simulate(replace(volume, total_bytes=total), saves, last_step, policy)
        return course.fits and (takes_light or set(course.kinds) <= {richest})

    richest = next(iter(saves.bytes_at(0, guarded=True, light=policy.save == "light")))
    # The margin of a save, and Outlast's reserve, which grows with the volume, come on top of the peak.
    while not is_enough(high):
        low, high = high, int(high * MARGIN) + durable.Ballast.wanted_bytes(None)
    while high - low > max(_BLOCK, high // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _thinned(saves: Saves, policy: Policy | None) -> Saves:
    """Of very many saves the first and the last ones: between them, where old ones go, nothing but growth happens."""
    keep = (policy.keep if policy else None) or saves.keep
    goes_on = keep.last is None or keep.every is not None or saves.habit.deletes == "never" or not saves.deletes
    if goes_on or len(saves.steps) <= 2 * _TELLING:
        return saves
    return replace(saves, steps=saves.steps[:_TELLING] + saves.steps[-_TELLING:])


class _Walk:
    """A run's state between two saves."""

    def __init__(self, volume: Volume, saves: Saves, policy: Policy | None) -> None:
        self.volume, self.saves, self.policy = volume, saves, policy
        self.lying = list(saves.lying)
        self.lying_bytes = sum(one.bytes for one in self.lying)
        self.copy: Lying | None = None
        self.ballast = 0
        self.step = 0
        size = durable.Ballast.wanted_bytes(volume.total_bytes)
        # The journal's own reserve is no rung: it is given back at the end of the run.
        self.journal_reserve = size if policy and volume.has_journal and self._leaves(size) else 0
        self.points: list[Point] = []
        self.peak = Point(0, -1)
        self.made_of: dict[str, int] = {}
        self.full_at: int | None = None
        self.short = 0
        self.deeds: list[Deed] = []
        self.kinds: dict[str, int] = {}
        self._fill_ballast()

    @property
    def held_bytes(self) -> int:
        return self.lying_bytes + (self.copy.bytes if self.copy else 0)

    def _keep_only(self, lying: list[Lying]) -> None:
        self.lying = lying
        self.lying_bytes = sum(one.bytes for one in lying)

    def level(self, step: int) -> int:
        return self.volume.taken(step) + self.held_bytes + self.ballast + self.journal_reserve

    def free(self, step: int) -> int | None:
        total = self.volume.total_bytes
        return None if total is None else total - self.level(step)

    def mark(self, step: int, under_way: int = 0) -> None:
        point = Point(step, self.level(step) + under_way)
        self.points.append(point)
        self.step = step
        if point.bytes > self.peak.bytes:
            self.peak = point
            parts = {thing.name: thing.at(step) for thing in self.volume.things}
            parts |= {
                f"{len(self.lying) + bool(self.copy)} checkpoints": self.held_bytes,
                "the save under way": under_way,
                "Outlast's reserve": self.ballast + self.journal_reserve,
            }
            self.made_of = {name: size for name, size in parts.items() if size}

    def save(self, step: int) -> bool:
        """One save of the framework's; False when it does not fit."""
        self.mark(step)
        name = "file" if self.saves.habit.deletes == "in place" else f"step {step}"
        if not self._write(step, name):
            return False
        self._retain()
        if self.saves.copies_last and not self._write(step, "last"):
            return False
        self._fill_ballast()
        self.mark(step)
        return True

    def _write(self, step: int, name: str) -> bool:
        guarded = self.policy is not None
        light = self.policy is not None and self.policy.save == "light"
        sizes = self.saves.bytes_at(step, guarded=guarded, light=light)
        kind = next(iter(sizes))
        if guarded:
            found = self._admitted(step, sizes)
            if found is None:
                return False
            kind = found
        else:
            self._before(name)
            free = self.free(step)
            if free is not None and free < sizes[kind]:
                self.full_at, self.short = step, sizes[kind] - free
                self.mark(step, free)
                return False
        self.mark(step, self._under_way(step, kind, sizes[kind], guarded=guarded))
        self._put(Lying(name, step, sizes[kind], kind, self._light_of(kind, sizes), self._is_best(step)))
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return True

    def _before(self, name: str) -> None:
        """What the framework does away with before it writes."""
        if self.saves.habit.deletes == "before" and self.saves.deletes and self.saves.keep.last:
            self._keep_only(self.lying[max(0, len(self.lying) + 1 - self.saves.keep.last) :])
        if self.saves.habit.deletes == "in place":
            self._keep_only([one for one in self.lying if one.name != name])

    def _admitted(self, step: int, sizes: Mapping[str, int]) -> str | None:
        """The kind that the save gets, after the ladder has made room; None when it waits."""
        needs = Needs({kind: (size,) for kind, size in sizes.items()})
        free = self.free(step)
        richest = next(iter(sizes))
        if free is None or free >= needs.total(richest):
            return richest
        found = plan(self._situation(free, {kind: needs.total(kind) for kind in sizes}))
        if not found.fits:
            self.full_at, self.short = step, found.short_bytes
            return None
        for move in found.moves:
            self.deeds.append(Deed(step, move))
            self._make(move)
        return found.kind

    def _situation(self, free: int, needs: Mapping[str, int]) -> Situation:
        policy = self.policy or Policy()
        touchable = self.lying if self.saves.habit.gives_way and self.saves.deletes else []
        wanted = {verdict.name: verdict.keep for verdict in decide(_candidates(touchable), self._keep())}
        return Situation(
            free_bytes=free,
            needs=needs,
            held=[
                Held(
                    one.name, (0.0, one.step), one.kind, one.bytes, one.light_bytes,
                    wanted=wanted[one.name], sacred=one.is_best,
                )
                for one in touchable
            ],
            ballast_bytes=self.ballast,
            keep_exact=policy.keep_exact,
            forbid=policy.forbid,
        )  # fmt: skip

    def _make(self, move: Move) -> None:
        effects: dict[str, Callable[[Lying], Lying | None]] = {
            "drop": lambda one: None,
            "lighten": lambda one: replace(one, bytes=one.light_bytes or 0, kind="light", light_bytes=None),
        }
        if move.action == "release_ballast":
            self.ballast = 0
        if effect := effects.get(move.action):
            after = [effect(one) if one.name == move.name else one for one in self.lying]
            self._keep_only([one for one in after if one is not None])

    def _under_way(self, step: int, kind: str, size: int, *, guarded: bool) -> int:
        """Most that a save takes while it is written: under Outlast its large files are reserved with a margin."""
        if not guarded:
            return size
        parts = self.saves.size_at(step)
        large = size - parts.small - (parts.sidecar if self.saves.habit.has_light else 0)
        return max(size, int(large * MARGIN) + 2 * _BLOCK)

    def _light_of(self, kind: str, sizes: Mapping[str, int]) -> int | None:
        return sizes["light"] if kind == "full" and "light" in sizes else None

    def _is_best(self, step: int) -> bool:
        """The first saves are the best ones: the worst case for a volume."""
        own = self.policy.keep if self.policy else None
        bests = own.best if own else int(self.saves.best_is_old)
        return not self.saves.lying and step in self.saves.steps[:bests]

    def _put(self, new: Lying) -> None:
        if new.name == "last":
            self.copy = new
            return
        if self.saves.habit.deletes == "in place":
            self._keep_only([one for one in self.lying if one.name != new.name])
        self.lying.append(new)
        self.lying_bytes += new.bytes

    def _retain(self) -> None:
        """Retention after a save; a framework that deletes before leaves nothing to do, Outlast deletes after."""
        if not self.saves.deletes or (self.policy is None and self.saves.habit.deletes != "after"):
            return
        keep = self._keep()
        if keep == Keep():
            return
        kept = {verdict.name for verdict in decide(_candidates(self.lying), keep) if verdict.keep}
        self._keep_only([one for one in self.lying if one.name in kept])

    def _keep(self) -> Keep:
        """The user's own rule for Outlast, else the framework's; an old best is one of the last so many."""
        own = self.policy.keep if self.policy else None
        if own is not None:
            last = own.last or (1 if own.best else None)
            return replace(own, last=last, best=0, metric=None)
        keep = self.saves.keep
        if keep.last and any(one.is_best for one in self.lying[: -keep.last]):
            return replace(keep, last=max(1, keep.last - 1))
        return keep

    def _fill_ballast(self) -> None:
        """A folder of checkpoints has a reserve; files of the user's own have none beside them."""
        size = durable.Ballast.wanted_bytes(self.volume.total_bytes)
        if self.policy and self.saves.habit.gives_way and self._leaves(size - self.ballast):
            self.ballast = size

    def _leaves(self, size: int) -> bool:
        """Whether a reserve takes no more than a quarter of what is free (durable.Ballast.keep)."""
        total = self.volume.total_bytes
        taken = self.volume.taken(self.step) + self.held_bytes + self.ballast
        return total is None or total - taken >= 4 * size

    def course(self) -> Course:
        return Course(
            tuple(self.points), self.peak.bytes, self.peak.step, self.made_of, self.full_at, self.short,
            tuple(self.deeds), self.kinds, tuple(self.lying),
        )  # fmt: skip


def _candidates(lying: Sequence[Lying]) -> list[Candidate]:
    return [Candidate(one.name, one.step, (0.0, one.step), holds=("best",) * one.is_best) for one in lying]
