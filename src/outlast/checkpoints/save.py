"""One save from admission to seal: need, ladder, reservation, write, fsync, seal, rename, and again when it failed."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from outlast import durable
from outlast.checkpoints import _alive, kinds, ladder, layouts
from outlast.checkpoints import seal as seals
from outlast.checkpoints.policy import Policy
from outlast.checkpoints.reserve import Reservation, is_full, is_hidden_full
from outlast.checkpoints.retention import Keep
from outlast.checkpoints.shelf import Checkpoint
from outlast.checkpoints.stage import MARGIN, SLACK, Draft, Needs, Stage
from outlast.checkpoints.telling import Teller, say
from outlast.checkpoints.vault import Vault
from outlast.errors import BadInput, NoRoom, SaveFailed, SealError
from outlast.host import show_bytes

_POLL_SECONDS = 1.0
_TELL_EVERY = 60.0
_QUICK_TRIES = 6
_UNWANTED_RUNGS = 2


class Reclaimer(Protocol):
    """What else on the volume could give way; `caches.Reclaim`, which this room does not know."""

    def offers(self, folder: Path) -> Mapping[str, int]:
        """Names and bytes."""

    def take(self, name: str) -> None:
        """Remove what was offered under a name."""


class Saver:
    """Saves into a vault.

    Args:
        vault: where to.
        policy: what is allowed when room is short.
        reclaimer: what caches on the volume can give; None leaves them alone.
        lineage: which training this is.
        wait: sleeps while paused; for tests.
    """

    def __init__(
        self,
        vault: Vault,
        policy: Policy | None = None,
        reclaimer: Reclaimer | None = None,
        *,
        lineage: str = "",
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.vault = vault
        self.policy = policy or Policy.from_environment()
        self.reclaimer = reclaimer
        self.lineage = lineage or secrets.token_hex(6)
        self.keep = self.policy.keep or Keep()
        self._wait = wait
        self._measured: dict[str, int] = {}
        self._has_ballast = True
        self._teller = Teller(vault, self.policy)

    def save(self, name: str, step: int, needs: Needs, write: Callable[[Stage], Draft]) -> Checkpoint:
        """Write, seal and commit one checkpoint; on a full volume make room and write again.

        Args:
            name: its folder's name in the vault.
            step: optimizer steps done.
            needs: what it will take.
            write: writes all files into the stage; called again after a failed try.

        Returns:
            The sealed checkpoint.

        Raises:
            NoRoom: when it does not fit and policy forbids to pause.
            Exception: what the writer raised, when making room does not cure it; the partial is gone then.
        """
        could_need = replace(needs, measured=self._measured)
        start = time.monotonic()
        self._prepared(name)
        self.vault.retry_stuck()
        with durable.locked(self.vault.own / "save.lock", wait=True):
            sealed = self._tried_until_sealed(name, step, could_need, write)
        self._teller.of_kind(sealed, could_need)
        self._measured[sealed.kind or ""] = sealed.bytes
        self.vault.journal.write(
            "sealed",
            name=name,
            step=step,
            kind=sealed.kind,
            bytes=sealed.bytes,
            seconds=round(time.monotonic() - start, 4),
            root=str(self.vault.root),
        )
        return sealed

    def next_bytes(self, needs: Needs) -> int:
        """Bytes to have free before the next save, in the kind that the user wants."""
        wanted = kinds.as_asked(needs, self.policy.save)
        return wanted.total(next(iter(wanted.files)))

    def _prepared(self, name: str) -> None:
        """Make Outlast's own folders; on a volume that is full before the first save, wait for room."""
        told = 0.0
        while True:
            try:
                self._has_ballast = True
                self.vault.prepare()
                self._claim()
                if told:
                    self.vault.journal.write("continued", name=name)
                return
            except OSError as error:
                if error.errno not in durable.FULL:
                    raise
                full = ladder.Plan((), "", False, SLACK)
                told = self._paused(name, full, told, is_first=told == 0.0)

    def _claim(self) -> None:
        """Let other processes know whose checkpoints these are; a training that goes on twice is two trainings."""
        while not _alive.claim(self.vault.own, self.lineage):
            self.lineage = secrets.token_hex(6)
            why = f"another process is saving the same training in {self.vault.root}: this one's saves are kept apart"
            self.vault.journal.write("set_apart", why=why, root=str(self.vault.root))
            say(why, "stop one of the two, or give it a folder of its own")

    def settle(self, checkpoint: Checkpoint, keep: Keep | None = None) -> list[durable.Removal]:
        """After a save and the user's own callbacks: seal again what they changed, then let retention prune."""
        try:
            is_sealed = self.vault.is_unchanged(checkpoint) or self._sealed_again(checkpoint)
        except (SealError, OSError) as error:
            # A callback put a link there, or somebody took the folder away: that is not ours to vouch for.
            self.vault.journal.write("settle_failed", name=checkpoint.name, reason=str(error).partition("\n")[0])
            is_sealed = True
        self._teller.of_metric(checkpoint, keep or self.keep)
        removals = self.vault.prune(keep or self.keep, keep_exact=self.policy.keep_exact)
        if not is_sealed and not self._sealed_again(checkpoint):
            self.vault.journal.write("settle_failed", name=checkpoint.name, reason="no room for its new seal")
        self.vault.refill_ballast()
        return removals

    def _sealed_again(self, checkpoint: Checkpoint) -> bool:
        """Seal what is there now; on a full volume the ballast gives way. False when that is not enough."""
        seal = checkpoint.seal
        absent = {kind: tuple(set(seal.files) - set(names)) for kind, names in seal.kinds.items()}
        fresh = self.vault.seal_for(
            checkpoint.path, seal.step, seal.layout, absent, metrics=seal.metrics,
            lineage=seal.lineage, notes=seal.notes, created=seal.created,
        )  # fmt: skip
        while True:
            try:
                seals.write(checkpoint.path, fresh)
                break
            except OSError as error:
                if error.errno not in durable.FULL:
                    raise
                if not self.vault.ballast.cut():
                    return False
        self.vault.remember(checkpoint.path, fresh)
        self.vault.journal.write("sealed_again", name=checkpoint.name, why="callbacks changed its files")
        return True

    def _tried_until_sealed(
        self, name: str, step: int, could_need: Needs, write: Callable[[Stage], Draft]
    ) -> Checkpoint:
        needs = kinds.as_asked(could_need, self.policy.save)
        extra = attempt = 0
        has_failed_otherwise = writes_beside = False
        while True:
            attempt += 1
            stage = self._admitted(name, step, needs, extra)
            stage.why_poorer = kinds.why_poorer(stage.kind, could_need, self.policy.save)
            if writes_beside:
                # Reserve, release, write: the race is open, but the room is not taken by the reservation itself.
                _release(stage)
                self.vault.journal.write("reservation_released", name=name, why="this writer cannot use it")
            try:
                return self._sealed(stage, name, step, write(stage))
            except BaseException as error:
                is_unused = stage.reservation is not None and stage.reservation.unclaimed_bytes > SLACK
                self._abandon(stage)
                cause = self._cause(stage, error)
                self.vault.journal.write(
                    "save_failed", name=name, cause=cause, attempt=attempt,
                    errno=stage.error.errno if stage.error else None, message=str(error)[:500],
                )  # fmt: skip
                if not isinstance(error, Exception):
                    raise
                if cause == "full" and is_unused and not writes_beside:
                    writes_beside = True
                elif cause == "full":
                    if attempt > _QUICK_TRIES:
                        self._teller.of_a_full_elsewhere(name, attempt, stage.error or error)
                    extra = min(max(2 * extra, SLACK), needs.total(stage.kind))
                    # A quota or a fault of the volume that free space does not show: again, but not without a breath.
                    self._wait(min(_TELL_EVERY, max(0, attempt - _QUICK_TRIES)))
                elif has_failed_otherwise or isinstance(error, BadInput):
                    error.add_note(f"outlast: {name} was not saved; no partial is left, older checkpoints are intact")
                    raise
                has_failed_otherwise = has_failed_otherwise or cause != "full"

    def _cause(self, stage: Stage, error: BaseException) -> str:
        if is_full(stage.error) or is_full(error):
            return "full"
        # Hidden by torch where our file object was not in its way, e.g. a subprocess: then the volume is the witness.
        if is_hidden_full(error) and self.vault.room().lacks(SLACK):
            return "full"
        return "other"

    def _admitted(self, name: str, step: int, needs: Needs, extra: int) -> Stage:
        """Make room, reserve it, and hand out the stage; pauses while nothing helps."""
        is_paused = False
        refused = 0
        told = 0.0
        made: set[ladder.Move] = set()
        while True:
            here = self.vault.room()
            situation = self.situation(needs, here.free_bytes, extra + refused)
            plan = ladder.plan(situation)
            for move in plan.moves:
                # What would not be enough is not given up either: only what nobody wants goes before a pause.
                if plan.fits or move.rung <= _UNWANTED_RUNGS:
                    self._make(move, is_told=is_paused and move in made)
                    made.add(move)
            if plan.fits and not any(m.frees_bytes and m.action != "save_as" for m in plan.moves):
                stage = self._reserved(name, needs, plan.kind)
                if stage:
                    if is_paused:
                        self.vault.journal.write("continued", name=name)
                    self.vault.journal.write(
                        "save_admitted", name=name, step=step, kind=plan.kind, need_bytes=needs.total(plan.kind),
                        free_bytes=here.free_bytes, source=here.source, root=str(self.vault.root),
                        is_reserved=stage.reservation is not None and stage.reservation.is_real,
                    )  # fmt: skip
                    return stage
                # What statvfs showed was not to be had: act as if that much less were free.
                refused += max(SLACK, (here.free_bytes or 0) - needs.total(plan.kind) + 1)
            elif not plan.fits:
                told = self._paused(name, plan, told, is_first=not is_paused)
                # The extra stands for what made a try fail; if that is over, to insist on it would be to wait for ever.
                is_paused, refused, extra = True, 0, 0
                self.vault.retry_stuck()  # who had a file open may be gone

    def write_beside(self, name: str, needs: Needs, write: Callable[[], None]) -> None:
        """Let something be written on the vault's volume that is no checkpoint; the ladder makes the room.

        Args:
            name: what it is, for the journal.
            needs: what it will take, as one kind.
            write: writes it; called again when the volume was full.

        Raises:
            Exception: what the writer raised, when making room does not cure it.
        """
        self._prepared(Path(name).name)
        self.vault.retry_stuck()
        extra = 0
        while True:
            stage = self._admitted(Path(name).name, -1, needs, extra)
            self._abandon(stage)
            try:
                write()
                return
            except Exception as error:
                if not is_full(error):
                    raise
                extra = max(2 * extra, SLACK)
                self.vault.journal.write("save_failed", name=name, cause="full", attempt=1, message=str(error)[:500])

    def situation(self, needs: Needs, free_bytes: int | None, extra: int = 0) -> ladder.Situation:
        """What the ladder is to judge, read from the vault now."""
        judged = self.vault.verdicts(self.keep, keep_exact=self.policy.keep_exact)
        verdicts = {verdict.name: verdict for verdict in judged}
        held = [
            ladder.Held(
                c.name, c.age, c.kind or "", c.bytes, _light_bytes(c),
                wanted=verdicts[c.name].keep,
                sacred=c.is_pinned or bool(self.vault.is_protected(c.name)) or _is_best(verdicts[c.name].reasons),
                pinned=c.is_pinned,
            )
            for c in self.vault.checkpoints()
            if c.kind and c.name in verdicts and not self.vault.is_stuck(c.name)
        ]  # fmt: skip
        least = next(iter(needs.files))
        is_short = free_bytes is not None and free_bytes < needs.total(least) + extra
        may_sweep = is_short and self.reclaimer is not None and 3 not in self.policy.forbid
        return ladder.Situation(
            free_bytes=needs.total(least) + extra if free_bytes is None else free_bytes,
            needs={kind: needs.total(kind) + extra for kind in needs.files},
            held=held,
            trash_bytes=self.vault.trash_bytes(),
            superseded=self.vault.superseded(),
            caches=self.reclaimer.offers(self.vault.root) if may_sweep and self.reclaimer else {},
            ballast_bytes=self.vault.ballast.size_bytes if self._has_ballast else 0,
            keep_exact=self.policy.keep_exact,
            forbid=self.policy.forbid,
        )

    def _make(self, move: ladder.Move, *, is_told: bool = False) -> None:
        if not is_told:
            self.vault.journal.write(
                "rung", number=move.rung, action=move.action, name=move.name, why=move.why, frees_bytes=move.frees_bytes
            )
        effects: dict[str, Callable[[], object]] = {
            "empty_trash": self.vault.empty_trash,
            "drop": lambda: self.vault.drop(move.name, move.why),
            "drop_quarantined": lambda: self.vault.drop_quarantined(move.name, move.why),
            "sweep_cache": lambda: self.reclaimer.take(move.name) if self.reclaimer else None,
            "lighten": lambda: self.vault.lighten(move.name, move.why),
            "release_ballast": self._release_ballast,
            "save_as": lambda: None,
        }
        effects[move.action]()

    def _release_ballast(self) -> None:
        # What frees nothing (a read-only remount) must not be offered for ever.
        self._has_ballast = self.vault.ballast.release() > 0

    def _reserved(self, name: str, needs: Needs, kind: str) -> Stage | None:
        token = self.vault.own / "stage" / f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            place = token / name
            (seals.path_of(place).parent if needs.is_one_file else place).mkdir(parents=True)
            sizes = [int(size * MARGIN) + 4096 for size in needs.files[kind]]
            return Stage(place, kind, Reservation(token, sizes))
        except OSError as error:
            durable.remove_tree(token) if token.exists() else None
            if error.errno not in durable.FULL:
                raise SaveFailed(
                    f"cannot write to {token.parent}: {durable.why_not(error)}",
                    hint="the folder of checkpoints must be writable",
                ) from error
            return None

    def _paused(self, name: str, plan: ladder.Plan, told: float, *, is_first: bool) -> float:
        why = f"{name} needs {show_bytes(plan.short_bytes)} more than can be made free in {self.vault.root}"
        hint = "free some space there: training goes on by itself as soon as it is enough"
        if 9 in self.policy.forbid:
            raise NoRoom(why, hint="free some space, or allow rung 9 to wait for it")
        if doubt := self.vault.room().doubt:
            hint = f"{hint}; {doubt}"
        if is_first:
            self.vault.journal.write("paused", name=name, why=why, short_bytes=plan.short_bytes)
        now = time.monotonic()
        if is_first or now - told > _TELL_EVERY:
            say(f"training is paused: {why}", hint)
            told = now
        self._wait(_POLL_SECONDS)
        return told

    def _sealed(self, stage: Stage, name: str, step: int, draft: Draft) -> Checkpoint:
        """Check, fsync, seal, rename. The order is the promise: nothing has the final name before it is whole."""
        _release(stage)
        for path in seals.files_in(stage.path).values():
            # json.dump into a full volume leaves an empty or cut file and raises nothing (guard.md, trap 5).
            fault = layouts.fault_in(path)
            if fault:
                if self.vault.room().lacks(SLACK):
                    stage.error = stage.error or OSError(28, f"{path.name} {fault}")
                raise SaveFailed(f"{path.name} {fault}", hint="the volume may be full or failing")
        self._absorb(stage.path, self.vault.root / name)
        seal = self.vault.seal_for(
            stage.path, step, draft.layout, draft.without, known=stage.known(),
            metrics=draft.metrics, lineage=self.lineage, notes=_notes(stage, draft), created=self._now(),
        )  # fmt: skip
        seals.write(stage.path, seal)
        final = self.vault.root / name
        with self.vault.changing():
            self.vault.commit(stage.path)
        self.vault.remember(final, seal)
        durable.remove_tree(stage.path.parent)
        self.vault.empty_trash()
        return self.vault.get(name)

    def _now(self) -> float:
        """The time, but after everything that is sealed here: a clock that was set back must not make a save old."""
        return max([time.time(), *(c.seal.created + 0.001 for c in self.vault.checkpoints())])

    def _absorb(self, staged: Path, final: Path) -> None:
        """Take in what the user's own code has put under the final name before the save, so that it is not replaced."""
        if not final.is_dir() or not staged.is_dir() or os.path.lexists(seals.path_of(final)):
            return
        for path in final.rglob("*"):
            name = path.relative_to(final).as_posix()
            if path.is_symlink() or not path.is_file():
                continue
            target = staged / name
            if path.name != layouts.INCOMPLETE and not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target)

    def _abandon(self, stage: Stage) -> None:
        _release(stage)
        with suppress(OSError):
            durable.remove_tree(stage.path.parent)


def _release(stage: Stage) -> None:
    if stage.reservation:
        stage.reservation.release()


def _notes(stage: Stage, draft: Draft) -> dict[str, object]:
    return ({"why_light": stage.why_poorer} if stage.why_poorer else {}) | dict(draft.notes)


def _light_bytes(checkpoint: Checkpoint) -> int | None:
    names = checkpoint.seal.kinds.get("light")
    if names is None or checkpoint.kind == "light":
        return None
    return sum(-(-checkpoint.seal.files[name].bytes // 4096) * 4096 for name in names) + 4096


def _is_best(reasons: Sequence[str]) -> bool:
    return any(reason.startswith("best ") for reason in reasons)
