"""`outlast.setup()`: the layout for this process, in the first cell of a notebook or at the top of a script."""

from __future__ import annotations

import os
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from outlast.caches.effect import Report, too_late
from outlast.caches.effect import check as look_at
from outlast.caches.here import look, make_folders
from outlast.caches.layout import Layout, Remark, mend
from outlast.host import show_bytes


@dataclass(frozen=True, slots=True)
class Setup:
    """What `setup` did and found."""

    platform: str
    """Name of the platform: ``kaggle``, ``plain`` ..."""
    layout: Layout
    """What was set, and what was kept."""
    too_late: tuple[Remark, ...]
    """Libraries that were imported before: it does not reach them."""
    report: Report | None
    """Declared, effective and used; None without ``check``."""


def setup(
    *,
    check: bool = True,
    volumes: Sequence[str | os.PathLike[str]] = (),
    quiet: bool = False,
    environment: MutableMapping[str, str] | None = None,
) -> Setup:
    """Put the caches of this process, and of those that it starts, where there is room.

    Call it before any other import: libraries read their variables once. It sets variables that are not set yet, makes
    the folders, and says what it did. It imports no library.

    Args:
        check: look also at what is declared, effective and really used.
        volumes: folders on further roomy volumes, where caches may go.
        quiet: print nothing.
        environment: variables to change; None takes those of the process.

    Returns:
        What was set, what could not take effect, and what is really used.

    Raises:
        OutlastError: when a folder cannot be made; nothing is set then.
    """
    values = os.environ if environment is None else environment
    cwd = Path.cwd()
    here = look(values, cwd=cwd, more=[Path(volume) for volume in volumes])
    make_folders(here.layout)
    for setting in here.layout.settings:
        if setting.value is None:
            values.pop(setting.variable, None)
        else:
            values[setting.variable] = setting.value
    report = _checked(values, cwd) if check else None
    done = Setup(here.platform.name, here.layout, too_late(values, cwd), report)
    if not quiet:
        print("\n".join(lines(done, here.platform.title)))  # noqa: T201 (the first cell of a notebook)
    return done


def _checked(values: MutableMapping[str, str], cwd: Path) -> Report:
    return look_at(values, cwd, mend(values, cwd))


def lines(done: Setup, title: str) -> list[str]:
    """A short report for people."""
    said = [f"outlast: {title}"]
    for setting in done.layout.settings:
        said.append(f"  {setting.variable}={setting.value or ''}  ({setting.why})")
    if not done.layout.settings:
        said.append("  caches stay where they are")
    used = [one for one in (done.report.seen if done.report else ()) if one.used_bytes]
    for one in sorted(used, key=lambda one: -(one.used_bytes or 0))[:5]:
        said.append(f"  {one.cache}: {'over ' if one.partial else ''}{show_bytes(one.used_bytes)} in {one.path}")
    remarks = [*done.too_late, *done.layout.remarks, *(done.report.remarks if done.report else ())]
    for remark in dict.fromkeys(remarks):
        said.append(f"  ! {remark.subject}: {remark.what}" + (f"\n    fix: {remark.fix}" if remark.fix else ""))
    return [line.encode("utf-8", "backslashreplace").decode() for line in said]
