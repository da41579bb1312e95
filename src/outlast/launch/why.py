"""`outlast why`: the end of the last run in a folder, in plain words, from its journal alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from outlast import guard, journal
from outlast.errors import BadInput
from outlast.host import show_bytes, show_seconds
from outlast.journal import Event
from outlast.launch import processes
from outlast.launch.causes import CAUSES, Cause

_SHOWN = 8
_TAKEN = ("rung", "save_failed", "paused", "continued", "resumed", "passed_over", "quarantined", "adopted")


@dataclass(frozen=True, slots=True)
class Story:
    """A run's end, explained."""

    run: str
    """The run's name."""
    cause: str
    """A name of `causes.CAUSES`, or ``running``."""
    words: str
    """The cause in plain words."""
    fix: str
    """What to do."""
    evidence: tuple[str, ...]
    """Facts that the cause was concluded from."""
    exit_code: int | None
    """Of the last attempt; None when there is none."""
    mode: str
    """``hooked``, or ``watching only``, with the reason."""
    command: tuple[str, ...]
    """The command."""
    cwd: str
    """Where it ran."""
    attempts: tuple[dict[str, Any], ...]
    """Each attempt's number, cause, exit code and seconds."""
    decision: str
    """Why it was not started again; empty when it finished."""
    last_seal: dict[str, Any] | None
    """Name, step, kind, bytes and root of the newest seal, and whether it is still there."""
    files: tuple[dict[str, Any], ...] = field(default=())
    """Files that ``torch.save`` wrote: path, bytes and how often, at least."""
    rungs: tuple[dict[str, Any], ...] = field(default=())
    """Rungs of the ladder that were taken."""
    deleted: tuple[dict[str, Any], ...] = field(default=())
    """Paths that were deleted, with bytes and reason."""
    not_deleted: tuple[dict[str, Any], ...] = field(default=())
    """Paths that could not be deleted."""
    notes: tuple[str, ...] = field(default=())
    """What else happened that bears on the end."""


def explain(home: Path) -> Story:
    """Explain the end of the newest guarded run in a folder.

    Args:
        home: the folder that was ``--dir`` of `outlast run`.

    Raises:
        BadInput: when no run is journaled there.
    """
    sealed: Event | None = None
    for run in reversed(journal.runs(home)):
        events = journal.read(home, run)
        if any(event.name == "started" for event in events):
            return _with_way_back(tell(run, events))
        sealed = sealed or next((event for event in reversed(events) if event.name == "sealed"), None)
    if sealed:
        raise BadInput(
            f"the training that is journaled in {home} was not started by outlast run, so nobody saw its end",
            hint=f"it goes on from {sealed.get('name')} (step {sealed.get('step')}); outlast run explains the next end",
        )
    raise BadInput(
        f"no guarded run is journaled in {home}",
        hint="use the folder that was --dir of outlast run (the one it was started in, by default)",
    )


def _with_way_back(story: Story) -> Story:
    """The story, with whether its newest seal is still there: the volume may be gone."""
    seal = story.last_seal
    if not seal:
        return story
    return replace(story, last_seal={**seal, "is_there": os.path.lexists(Path(str(seal["root"]), str(seal["name"])))})


def tell(run: str, events: Sequence[Event], *, is_alive: bool | None = None) -> Story:
    """A run's end from its events.

    Args:
        run: its name.
        events: all of them, oldest first; at least one ``started``.
        is_alive: whether its supervisor is running; None looks.
    """
    told = guard.Story()
    told.add(events)
    started = told.all("started")[-1]
    ended = next(iter(told.all("ended", since=started.time)[-1:]), None)
    decided = told.all("decided", since=started.time)
    alive = _is_alive(started) if is_alive is None else is_alive
    cause = str(ended.get("cause")) if ended else "running" if alive else "vanished"
    row = CAUSES.get(cause, _RUNNING if cause == "running" else CAUSES["unknown"])
    seals = told.all("sealed")
    return Story(
        run=run,
        cause=cause,
        words=row.words,
        fix=row.fix,
        evidence=tuple(map(str, ended.get("evidence") or ())) if ended else _last_signs(events),
        exit_code=ended.get("exit_code") if ended else None,
        mode=_mode(told, started),
        command=tuple(map(str, started.get("command") or ())),
        cwd=str(started.get("cwd", "")),
        attempts=tuple(_pick(event, "attempt", "cause", "exit_code", "seconds") for event in told.all("ended")),
        decision=str(decided[-1].get("why", "")) if decided and cause != "finished" else "",
        last_seal=_pick(seals[-1], "name", "step", "kind", "bytes", "root") if seals else None,
        files=tuple(_pick(event, "path", "bytes", "count") for event in told.files()),
        rungs=tuple(_pick(e, "number", "action", "name", "why", "frees_bytes") for e in told.all("rung")),
        deleted=tuple(_pick(e, "path", "freed_bytes", "why") for e in told.all("deleted")),
        not_deleted=tuple(_pick(e, "path", "held_bytes", "reason") for e in told.all("not_deleted")),
        notes=tuple(_notes(told, started)),
    )


_RUNNING = Cause("it is still running", "nothing to do; this is what happened so far")


def _is_alive(started: Event) -> bool:
    ticks = started.get("started_ticks")
    return ticks is not None and processes.start_ticks(started.pid) == ticks


def _mode(told: guard.Story, started: Event) -> str:
    if told.hooked(started.time):
        return "hooked"
    old = told.all("hooked", since=started.time)
    if old:
        return f"watching only: Python {old[-1].get('version')} is older than 3.11"
    return "watching only: no Python process in it took the hooks"


def _last_signs(events: Sequence[Event]) -> tuple[str, ...]:
    last = events[-1]
    return (
        "its end is not in the journal, and its supervisor is not running",
        f"the last line of the journal is {last.name!r} of process {last.pid}",
    )


def _notes(told: guard.Story, started: Event) -> list[str]:
    notes = []
    if not told.hooked(started.time):
        notes.append("nothing was hooked in it: started again, it resumes only what its own code resumes")
    if told.is_waiting():
        notes.append(f"a save was waiting for room: {told.all('paused')[-1].get('why')}")
    if splits := told.all("batch_split"):
        last = splits[-1]
        sizes = f"the last into pieces of {last.get('micro_batch')}; effective batch {last.get('effective_batch')}"
        notes.append(f"{len(splits)} batches ran out of memory and were split, {sizes}")
    for event in told.all("leak_found")[-1:]:
        notes.append(f"main memory grew steadily, by {show_bytes(event.get('bytes_per_minute'))} a minute")
    for event in told.all("memory_close"):
        notes.append(f"main memory was nearly used up: {event.get('why')}")
    if emptied := told.all("cache_emptied"):
        notes.append(
            f"torch's cache of GPU memory was emptied {len(emptied)} times, the last: {emptied[-1].get('why')}"
        )
    for event in told.all("hook_failed"):
        notes.append(f"the hook of {event.get('module')} failed: {event.get('error')}")
    for event in told.all("thread_died"):
        notes.append(f"Outlast's own thread {event.get('thread')} died: {event.get('error')}")
    lost = sum(int(event.get("lost_output_bytes") or 0) for event in told.all("ended"))
    if lost:
        notes.append(f"{show_bytes(lost)} of its output were lost: the log's volume was full; the run went on")
    for event in told.all("quarantined", "passed_over")[-_SHOWN:]:
        notes.append(f"{event.name.replace('_', ' ')}: {event.get('path') or event.get('name')}: {event.get('reason')}")
    return list(dict.fromkeys(notes))


def _pick(event: Event, *names: str) -> dict[str, Any]:
    return {name: event.get(name) for name in names}


def lines(story: Story) -> list[str]:
    """A story as text."""
    end = f" (exit code {story.exit_code})" if story.exit_code is not None else ""
    found = [f"{story.cause}: {story.words}{end}", f"  fix       {story.fix}"]
    found += _block("evidence", story.evidence)
    found.append(f"  command   {' '.join(story.command)}  (in {story.cwd})")
    found.append(f"  guarded   {story.mode}")
    if len(story.attempts) > 1:
        found += _block("attempts", [_attempt(attempt) for attempt in story.attempts])
    if story.decision:
        found.append(f"  restart   {'' if story.cause == 'running' else 'no: '}{story.decision}")
    if story.last_seal:
        seal = story.last_seal
        what = f"step {seal['step']}, {seal['kind']}, {show_bytes(seal['bytes'])}"
        gone = "" if seal.get("is_there", True) else "; it is NOT THERE any more: outlast checkpoints list"
        found.append(f"  way back  {seal['name']}: {what}, in {seal['root']}{gone}")
    found += _block("whole", [f"{f['path']}: torch.save replaced it {f['count']} times or more" for f in story.files])
    found += _block("rungs", [_rung(rung) for rung in story.rungs])
    found += _block("deleted", [f"{d['path']} ({show_bytes(d['freed_bytes'])}): {d['why']}" for d in story.deleted])
    found += _block("kept", [f"{d['path']} ({show_bytes(d['held_bytes'])}): {d['reason']}" for d in story.not_deleted])
    return found + _block("notes", story.notes)


def _block(label: str, texts: Sequence[str]) -> list[str]:
    shown = list(texts[-_SHOWN:])
    if len(texts) > _SHOWN:
        shown.insert(0, f"({len(texts) - _SHOWN} earlier; --json has all)")
    return [f"  {label if not number else '':<9} {text}" for number, text in enumerate(shown)]


def _attempt(attempt: dict[str, Any]) -> str:
    seconds = show_seconds(attempt["seconds"])
    return f"{attempt['attempt']}: {attempt['cause']}, exit code {attempt['exit_code']}, {seconds}"


def _rung(rung: dict[str, Any]) -> str:
    freed = f" ({show_bytes(rung['frees_bytes'])})" if rung["frees_bytes"] else ""
    return f"{rung['number']} {rung['action']} {rung['name']}{freed}: {rung['why']}"
