"""What the user is told when a guarded run has ended, in a few lines. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from outlast.budget import clock
from outlast.guard import Story
from outlast.host import show_bytes, show_seconds
from outlast.journal import Event
from outlast.launch.again import Attempt
from outlast.launch.causes import CAUSES
from outlast.launch.ends import LEFT_IN_TIME, End

_SHOWN = 3
_WORDS = {
    "empty_trash": "emptied the trash",
    "drop": "dropped a checkpoint",
    "drop_quarantined": "dropped remains",
    "sweep_cache": "swept a cache",
    "lighten": "made a checkpoint light",
    "save_as": "saved in a smaller kind",
    "release_ballast": "released the ballast",
}


def headline(cause: str) -> str:
    """One phrase for a cause."""
    return CAUSES[cause].words if cause in CAUSES else f"it ended ({cause})"


def lines(
    story: Story, attempts: Sequence[Attempt], end: End, why_last: str, seconds: float, eta: clock.Eta | None = None
) -> list[str]:
    """The summary: seals, rungs, deletions, restarts, and for a bad end what to look at."""
    found = [f"{headline(end.cause)} (exit code {end.exit_code}, {show_seconds(seconds)})"]
    found += filter(None, [_seals(story), _files(story), _rungs(story), _deletions(story), _failures(story)])
    if len(attempts) > 1:
        found.append(f"restarts: {len(attempts) - 1} ({', '.join(a.cause for a in attempts[:-1])})")
    if end.cause in LEFT_IN_TIME:
        rest = f": {eta.left_steps:,} steps are left, {show_seconds(eta.seconds)}" if eta else ""
        found.append(f"to go on, start the same command again; it resumes from step {story.sealed_step()}{rest}")
    elif end.cause != "finished":
        found.append(f"not started again: {why_last}")
        found.append("outlast why  explains it, with evidence and the fix")
    return found


def _seals(story: Story) -> str:
    seals = story.all("sealed")
    if not seals:
        return ""
    last = seals[-1]
    kinds = Counter(str(event.get("kind")) for event in seals)
    by_kind = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"sealed: {len(seals)} checkpoints ({by_kind}), the last at step {last.get('step')}"


def _files(story: Story) -> str:
    files = [f"{event.get('path')} ({event.get('count')} times or more)" for event in story.files()]
    return f"torch.save, each time whole or not at all: {', '.join(files[-_SHOWN:])}" if files else ""


def _rungs(story: Story) -> str:
    rungs = Counter((event.get("number"), str(event.get("action"))) for event in story.all("rung"))
    taken = [
        f"{number} {_WORDS.get(action, action)}, {count}x" for (number, action), count in sorted(rungs.items(), key=str)
    ]
    return f"rungs taken: {'; '.join(taken)}" if taken else ""


def _deletions(story: Story) -> str:
    deleted, left = story.all("deleted"), story.all("not_deleted")
    if not deleted and not left:
        return ""
    text = f"deleted: {len(deleted)} ({show_bytes(_sum(deleted, 'freed_bytes'))} freed)"
    if left:
        text += f"; not deleted: {len(left)} ({show_bytes(_sum(left, 'held_bytes'))} held: {left[-1].get('reason')})"
    return text


def _failures(story: Story) -> str:
    failed = story.all("save_failed")
    hooks = story.all("hook_failed")
    splits = story.all("batch_split")
    parts = [f"saves that failed and were tried again: {len(failed)}"] if failed else []
    parts += [f"batches split for want of memory: {len(splits)}; the effective batch is the same"] if splits else []
    parts += [f"hooks that failed: {len(hooks)} ({hooks[0].get('module')}: {hooks[0].get('error')})"] if hooks else []
    return "; ".join(parts)


def _sum(events: Sequence[Event], name: str) -> int:
    return sum(int(event.get(name) or 0) for event in events)
