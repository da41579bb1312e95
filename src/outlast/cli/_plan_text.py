"""What ``outlast plan`` says: text, JSON and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from outlast.budget import clock, hours, knobs
from outlast.budget.course import Course
from outlast.budget.knobs import Knob
from outlast.budget.outlook import Outlook
from outlast.budget.settings import Said
from outlast.cli._chart import Line, sparkline, svg
from outlast.cli._plan_volumes import Volumes
from outlast.cli._table import table
from outlast.host import show_bytes, show_seconds

_SHOWN = ("framework", "steps", "every", "strategy", "limit", "only_model", "best", "copies_last", "output_dir",
          "seconds_per_step", "seconds_per_save", "deletions_fail")  # fmt: skip
_MOST_DEEDS = 6


@dataclass(frozen=True, slots=True)
class Seen:
    """All that there is to say."""

    now: Outlook
    """The run as it is."""
    changes: list[Knob]
    """What could be changed, the best first."""
    said: Mapping[str, Said]
    """Settings and who said them."""
    volumes: Volumes
    """Where it runs."""
    session_seconds: float | None
    """How long a session lasts; None when unknown or without limit."""
    price_month: float | None
    """Price of a GB for a month; None when not given."""
    was_full_at: int | None
    """Step at which a run died; None when not asked."""


def lines(seen: Seen) -> list[str]:
    """For people: the verdict first."""
    now = seen.now
    return [
        *_verdict(now),
        "",
        f"first: {knobs.advice(now, seen.changes)}",
        "",
        *_courses(now),
        "",
        *_parts(now),
        *_deeds(now.guarded),
        *_others(seen),
        "",
        *_changes(seen),
        *_clock(seen),
        *_price(seen),
        *_died(seen),
        "",
        *_sources(seen),
    ]


def _verdict(now: Outlook) -> list[str]:
    total = now.run.volume.total_bytes
    of = f" of {show_bytes(total)}" if total is not None else ""
    plain, guarded = now.plain, now.guarded
    if total is None:
        return [
            f"at most {show_bytes(plain.peak_bytes)}, at step {plain.peak_step:,}; how large the volume is is not known"
        ]
    if plain.fits:
        return [f"fits: at most {show_bytes(plain.peak_bytes)}{of}, at step {plain.peak_step:,}"]
    text = (
        f"does not fit: full at step {plain.full_at:,} ({show_bytes(plain.short_bytes)} short); "
        f"needs {show_bytes(now.needs_bytes)}{of and ', there are ' + show_bytes(total)}"
    )
    if guarded.fits:
        return [text, f"under outlast run it ends well: {_kinds(guarded)}; {show_bytes(now.light_bytes)} would do"]
    where = f"waits at step {guarded.full_at:,} for {show_bytes(guarded.short_bytes)}"
    return [text, f"under outlast run it {where}; needs {show_bytes(now.light_bytes)}"]


def _kinds(course: Course) -> str:
    return ", ".join(f"{count} {kind} {'save' if count == 1 else 'saves'}" for kind, count in course.kinds.items())


def _named(now: Outlook) -> list[tuple[str, str, Course]]:
    found = [("without Outlast", "#d95f02", now.plain), ("outlast run", "#1b6ca8", now.guarded)]
    return [*found, *([("nothing is deleted", "#999999", now.undeleted)] if now.undeleted else [])]


def _courses(now: Outlook) -> list[str]:
    top = float(now.run.volume.total_bytes or max(course.peak_bytes for _, _, course in _named(now)))
    rows = []
    for name, _, course in _named(now):
        end = "ends well" if course.fits else f"full at step {course.full_at:,}"
        rows.append([name, _spark(course, now.run.last_step, top), show_bytes(course.peak_bytes), end])
    return table(["", f"disk over {now.run.last_step:,} steps", "peak", ""], rows).splitlines()


def _spark(course: Course, last: int, top: float) -> str:
    return sparkline([(point.step, point.bytes) for point in course.points], last, top)


def _parts(now: Outlook) -> list[str]:
    parts = ", ".join(f"{show_bytes(size)} {name}" for name, size in now.plain.made_of.items())
    size = now.run.saves.size
    each = next(iter(now.run.saves.bytes_at(now.run.last_step, guarded=False).values()))
    return [
        f"the peak: {parts}",
        f"a save: {show_bytes(each)}: {show_bytes(size.weights)} weights, {show_bytes(size.moments)} optimizer",
        f"        {size.source}",
    ]


def _deeds(course: Course) -> list[str]:
    shown = [f"  step {deed.step:,}: rung {deed.move.rung}, {_did(deed.move.action, deed.move.name)}: {deed.move.why}"
             for deed in course.deeds[:_MOST_DEEDS]]  # fmt: skip
    more = len(course.deeds) - len(shown)
    return ["outlast run would:", *shown, *([f"  ({more} more; --json has all)"] if more > 0 else [])] if shown else []


def _did(action: str, name: str) -> str:
    words = {
        "lighten": "make {} light",
        "drop": "drop {}",
        "save_as": "save as {}",
        "release_ballast": "use {}",
    }
    return words.get(action, action + " {}").format(name)


def _others(seen: Seen) -> list[str]:
    last = seen.now.run.last_step
    return [
        f"{other.place}: {show_bytes(other.needs(last))} come, {show_bytes(other.free_bytes)} are free"
        for other in seen.volumes.others
    ]


def _changes(seen: Seen) -> list[str]:
    rows = [_row("as it is", seen.now), *(_row(knob.change, knob.outlook) for knob in seen.changes)]
    head = ["change", "needs", "under outlast run", "saves", "lost if killed: mean", "worst", "fits"]
    return table(head, rows).splitlines()


def _row(change: str, one: Outlook) -> list[str]:
    seconds = one.run.seconds_per_step
    mean, worst = one.lost.mean_steps, one.lost.worst_steps

    def lost(steps: float) -> str:
        return f"{steps:,.0f} steps" + (f", {show_seconds(steps * seconds)}" if seconds else "")

    known = one.run.volume.total_bytes is not None
    fits = {0: "yes", 1: "under outlast run", 2: "no"}[one.exit_code] if known else "not known"
    saves = f"{len(one.run.saves.steps):,}"
    return [change, show_bytes(one.needs_bytes), show_bytes(one.least_bytes), saves, lost(mean), lost(worst), fits]


def sessions(seen: Seen) -> int | None:
    """Sessions that the run takes; None when a step's time or a session's length is not known."""
    now = seen.now
    if now.seconds is None or seen.session_seconds is None or now.run.seconds_per_step is None:
        return None
    save = now.run.seconds_per_save or clock.guess_save_seconds(now.run.saves.size.full)
    return hours.sessions(now.run.last_step - now.run.first_step, now.seconds, seen.session_seconds, save)


def _clock(seen: Seen) -> list[str]:
    if seen.now.seconds is None:
        return []
    text = f"takes {show_seconds(seen.now.seconds)}"
    if (count := sessions(seen)) is not None:
        text += f": {count} {'session' if count == 1 else 'sessions'} of {show_seconds(seen.session_seconds)}"
    return ["", text]


def _price(seen: Seen) -> list[str]:
    if seen.price_month is None:
        return []
    rows = []
    now = seen.now
    for name, size in (
        ("the volume", now.run.volume.total_bytes),
        ("what it needs", now.needs_bytes),
        ("the least under outlast run", now.least_bytes),
        ("10 GB more", 10**10),
    ):
        if size is not None:
            each = [f"{knobs.price(size, seen.price_month, span):.4f}" for span in (1, knobs.HOURS_PER_MONTH)]
            run = now.price_hours
            rows.append(
                [name, show_bytes(size), *each, f"{knobs.price(size, seen.price_month, run):.4f}" if run else "-"]
            )
    return ["", *table(["price of", "size", "an hour", "a month", "this run"], rows).splitlines()]


def _died(seen: Seen) -> list[str]:
    if seen.was_full_at is None:
        return []
    found = knobs.explained(seen.now, seen.was_full_at)
    return ["", f"full at step {seen.was_full_at:,}, and not before? Beside this run's checkpoints there lay then:",
            *(f"  {_explanation(one)}" for one in found)]  # fmt: skip


def _explanation(one: knobs.Explanation) -> str:
    text = f"if {one.how}: more than {show_bytes(one.over_bytes)}, and at most {show_bytes(one.until_bytes)} before"
    return text if one.until_bytes > one.over_bytes else f"{text}: so it grew in between"


def _sources(seen: Seen) -> list[str]:
    rows = [[name.replace("_", " "), _shown(seen.said[name].value), seen.said[name].source]
            for name in _SHOWN if name in seen.said]  # fmt: skip
    rows.append(["volume", show_bytes(seen.now.run.volume.total_bytes), seen.volumes.source])
    lying = seen.now.run.saves.lying
    if lying:
        rows.append(["goes on", f"step {seen.now.run.first_step:,}", f"{len(lying)} checkpoints lie there"])
    doubt = [seen.volumes.doubt] if seen.volumes.doubt else []
    return [*table(["taken", "as", "from"], rows).splitlines(), *doubt]


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def document(seen: Seen) -> dict[str, Any]:
    """For programs."""
    now = seen.now
    known = now.run.volume.total_bytes is not None
    return {
        "fits": now.plain.fits if known else None,
        "fits_under_outlast": now.guarded.fits if known else None,
        "advice": knobs.advice(now, seen.changes),
        "volume": {
            "path": now.run.volume.name,
            "total_bytes": now.run.volume.total_bytes,
            "source": seen.volumes.source,
            "doubt": seen.volumes.doubt,
            "things": [
                {"name": t.name, "bytes": t.bytes, "from_step": t.from_step, "bytes_per_step": t.bytes_per_step}
                for t in now.run.volume.things
            ],
        },
        "others": [
            {"path": str(o.place), "free_bytes": o.free_bytes, "needs_bytes": o.needs(now.run.last_step)}
            for o in seen.volumes.others
        ],
        "save": {
            "bytes": now.run.saves.size.full, "weights_bytes": now.run.saves.size.weights,
            "moments_bytes": now.run.saves.size.moments, "source": now.run.saves.size.source,
        },
        "without": _course(now.plain),
        "with": _course(now.guarded),
        "nothing_deleted": _course(now.undeleted) if now.undeleted else None,
        "changes": [{"change": one.change, **_facts(one.outlook), "is_exact": one.is_exact} for one in seen.changes],
        **_facts(now),
        "seconds": now.seconds,
        "sessions": sessions(seen),
        "price_gb_month": seen.price_month,
        "explained": [asdict(one) for one in knobs.explained(now, seen.was_full_at)] if seen.was_full_at else None,
        "settings": {name: {"value": said.value, "source": said.source} for name, said in seen.said.items()},
    }  # fmt: skip


def _course(course: Course) -> dict[str, Any]:
    return {
        "peak_bytes": course.peak_bytes,
        "peak_step": course.peak_step,
        "made_of": dict(course.made_of),
        "full_at": course.full_at,
        "short_bytes": course.short_bytes,
        "kinds": dict(course.kinds),
        "deeds": [
            {"step": d.step, "rung": d.move.rung, "action": d.move.action, "name": d.move.name, "why": d.move.why}
            for d in course.deeds
        ],
        "points": [[point.step, point.bytes] for point in course.points],
    }


def _facts(one: Outlook) -> dict[str, Any]:
    return {
        "needs_bytes": one.needs_bytes,
        "least_bytes": one.least_bytes,
        "least_light_bytes": one.light_bytes,
        "saves": len(one.run.saves.steps),
        "lost_mean_steps": one.lost.mean_steps,
        "lost_worst_steps": one.lost.worst_steps,
        "exit_code": one.exit_code,
    }


def plot(seen: Seen) -> str:
    """An SVG of disk over time."""
    drawn: Sequence[Line] = [
        Line(name, color, [(point.step, point.bytes) for point in course.points], course.full_at)
        for name, color, course in reversed(_named(seen.now))
    ]
    volume = seen.now.run.volume
    return svg(f"Disk over time: {volume.name}", drawn, seen.now.run.last_step, volume.total_bytes)
