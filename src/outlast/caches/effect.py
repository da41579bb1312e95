"""Did it take effect? For each cache that is set or in use: declared, effective, and really used."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from outlast.caches.catalogue import CATALOGUE, Place, places
from outlast.caches.here import holds_something
from outlast.caches.layout import Layout, Remark
from outlast.caches.probe import Answer
from outlast.host import Usage, show_bytes, tree

SECONDS = 0.4
"""How long a quick check may walk through caches; what is not counted by then is said not to be."""
_DEAD = frozenset(variable for cache in CATALOGUE if cache.ignored for variable in cache.variables)
_SLACK_SECONDS = 60.0
"""Files at the default place that are newer than this after those at the declared one: somebody writes there."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A cache that is set or in use."""

    cache: str
    """Its id."""
    variable: str | None
    """The variable that places it; None for the default."""
    declared: str | None
    """That variable's value."""
    path: Path
    """Where its owner looks, by the rules of the catalogue."""
    effective: Path | None = None
    """Where its owner looks, as it said itself; None when it was not asked."""
    there: bool = False
    """True when the path exists."""
    used_bytes: int | None = None
    """Blocks that it takes, bytes; None when not counted, or when other caches are in it and count for themselves."""
    newest: float | None = None
    """Latest change in it, seconds since the epoch; None when not counted or empty."""
    partial: bool = False
    """True when there was not the time to count all of it: it takes at least so much."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found."""

    seen: tuple[Seen, ...]
    """Caches that are set or in use."""
    remarks: tuple[Remark, ...]
    """What is wrong, and the fix."""
    answer: Answer | None
    """What the user's interpreter said; None when it was not asked."""


def check(
    environment: Mapping[str, str],
    cwd: Path,
    mended: Layout,
    answer: Answer | None = None,
    *,
    seconds: float | None = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Compare what is declared, what is effective and what is used.

    Args:
        environment: variables, as they are.
        cwd: the current folder.
        mended: what `layout.mend` says of these variables.
        answer: what the user's interpreter said.
        seconds: how long to walk through caches; None until done.
        clock: seconds, for the limit.
    """
    effective = answer.effective if answer else {}
    found = places(environment, cwd=cwd)
    kept = [(name, place) for name, place in found.items() if _is_set(place, environment) or _is_used(place.path)]
    paths = {place.path for _, place in kept}
    end = None if seconds is None else clock() + seconds
    seen = []
    for name, place in kept:
        holds_others = any(place.path in other.parents for other in paths)
        usage, partial = (None, False) if holds_others else _glance(place.path, end, clock)
        seen.append(
            Seen(
                name, place.variable, environment.get(place.variable or ""), place.path,
                Path(effective[name]) if name in effective else None, os.path.exists(place.path),
                usage.allocated_bytes if usage else None, usage.newest if usage and usage.files else None, partial,
            )
        )  # fmt: skip
    remarks = [_of_setting(s.variable, s.value, s.why) for s in mended.settings]
    remarks += [_as_installed(remark, answer) for remark in mended.remarks]
    remarks += [remark for one in seen for remark in _disagreement(one)]
    remarks += _left_at_defaults(seen, environment, cwd, end, clock)
    return Report(tuple(seen), tuple(remarks), answer)


def _is_set(place: Place, environment: Mapping[str, str]) -> bool:
    return place.variable in place.cache.variables and place.variable in environment


def _is_used(path: Path) -> bool:
    return os.path.isfile(path) or holds_something(path)


def _glance(path: Path, end: float | None, clock: Callable[[], float]) -> tuple[Usage | None, bool]:
    """What is below a path, entry by entry as long as there is time; and whether that is only a part."""
    if end is None:
        return (tree(path), False) if os.path.exists(path) else (None, False)
    with suppress(OSError):
        top = os.lstat(path)
        if not os.path.isdir(path):
            return tree(path), False
        size, apparent, files, newest = top.st_blocks * 512, 0, 0, 0.0
        with os.scandir(path) as entries:
            for entry in entries:
                if clock() > end:
                    return (Usage(size, apparent, files, newest, ()) if files else None), True
                part = tree(entry.path)
                size, files = size + part.allocated_bytes, files + part.files
                apparent, newest = apparent + part.apparent_bytes, max(newest, part.newest)
        return Usage(size, apparent, files, newest, ()), False
    return None, False


def _of_setting(variable: str, value: str | None, why: str) -> Remark:
    return Remark(variable, why, f"unset {variable}" if value is None else f"export {variable}={shlex.quote(value)}")


def _as_installed(remark: Remark, answer: Answer | None) -> Remark:
    """A dead variable lives on where an old library is installed."""
    version = answer.versions.get("transformers", "") if answer else ""
    if not version.startswith(("2.", "3.", "4.")) or remark.subject not in _DEAD:
        return remark
    what = f"transformers {version} still reads it, huggingface_hub and datasets do not: models in two places"
    return Remark(remark.subject, what, remark.fix)


def _disagreement(seen: Seen) -> list[Remark]:
    if seen.effective is None or seen.effective == seen.path:
        return []
    what = f"its library looks in {seen.effective}, not in {seen.path}"
    return [Remark(seen.cache, what, "something in that interpreter sets another place: sitecustomize, a .env file")]


def _left_at_defaults(
    seen: Sequence[Seen],
    environment: Mapping[str, str],
    cwd: Path,
    end: float | None,
    clock: Callable[[], float],
) -> list[Remark]:
    """Caches that are declared elsewhere, and have files where they would be by default."""
    remarks = []
    without = {name: value for name, value in environment.items() if name not in {one.variable for one in seen}}
    defaults = places(without, cwd=cwd)
    for one in seen:
        old = defaults.get(one.cache)
        if one.variable is None or old is None or old.path == one.path or one.path in old.path.parents:
            continue
        if not _is_used(old.path) or old.path in one.path.parents:
            continue
        usage, partial = _glance(old.path, end, clock)
        if usage is None or not usage.files:
            continue
        size = f"{'at least ' if partial else ''}{show_bytes(usage.allocated_bytes)}"
        if one.newest is None or usage.newest > one.newest + _SLACK_SECONDS:
            what = f"the newest of its files are in {old.path} ({size}), not where {one.variable} says"
            fix = "set it before the library is imported, in the shell or the first cell; export it for child processes"
        else:
            what, fix = (
                f"{size} at its default place too, which nobody reads now",
                f"rm -r {shlex.quote(str(old.path))}",
            )
        remarks.append(Remark(one.cache, what, fix))
    return remarks


READ_AT_IMPORT: tuple[tuple[str, str, str], ...] = (
    ("hf-home", "huggingface_hub.constants", "HF_HOME"),
    ("hf-hub", "huggingface_hub.constants", "HF_HUB_CACHE"),
    ("hf-xet", "huggingface_hub.constants", "HF_XET_CACHE"),
    ("hf-assets", "huggingface_hub.constants", "HF_ASSETS_CACHE"),
    ("hf-datasets", "datasets.config", "HF_DATASETS_CACHE"),
    ("hf-datasets-downloads", "datasets.config", "DOWNLOADED_DATASETS_PATH"),
    ("hf-datasets-extracted", "datasets.config", "EXTRACTED_DATASETS_PATH"),
    ("hf-modules", "transformers.utils.hub", "HF_MODULES_CACHE"),
    ("trackio", "trackio.utils", "TRACKIO_DIR"),
    ("keras", "keras.src.backend.config", "_KERAS_DIR"),
    ("tfds", "tensorflow_datasets.core.constants", "DATA_DIR"),
    ("litdata", "litdata.constants", "_LITDATA_CACHE_DIR"),
)
"""Libraries that read their variable once: cache, module, and the name in it that holds what was read.

torch, triton and wandb read theirs each time, and are not here."""


def too_late(
    environment: Mapping[str, str], cwd: Path, modules: Mapping[str, ModuleType] | None = None
) -> tuple[Remark, ...]:
    """Libraries that this process imported before these variables were set: they go on with what they read.

    Args:
        environment: variables as they are now.
        cwd: the current folder.
        modules: modules that are imported; None takes those of the process. Nothing is imported here.
    """
    imported = sys.modules if modules is None else modules
    found = places(environment, cwd=cwd)
    remarks = []
    for cache, module, name in READ_AT_IMPORT:
        read = getattr(imported.get(module), name, None)
        if read is None or cache not in found:
            continue
        path = Path(os.path.normpath(cwd / os.path.expanduser(str(read))))  # noqa: PTH111 (a value, not a path of ours)
        if path != found[cache].path:
            what = f"{module} was imported too early and goes on with {path}"
            remarks.append(Remark(cache, what, "restart the kernel, and call outlast.setup() before any other import"))
    return tuple(remarks)
