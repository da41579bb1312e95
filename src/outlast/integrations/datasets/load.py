"""``load_dataset`` gives the subset that the user asked for, where they asked for one, and says so in one line.

What is loaded is found out by `datasets` itself, its first rows are fetched by `outlast.data`, and given back by
`datasets` again, so that a script meets a Dataset like any other. What cannot be done so is left to the original call,
which is said too.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.errors import BadInput
from outlast.host import show_bytes
from outlast.integrations.datasets import slices, wanted
from outlast.integrations.datasets.found import LeftAlone, is_here, is_reader, look, slices_of
from outlast.integrations.datasets.slices import Slice
from outlast.integrations.datasets.store import Part, Store
from outlast.integrations.datasets.telling import tell
from outlast.integrations.datasets.wanted import Subset
from outlast.journal import from_environment

_given: dict[str, list[Slice]] = {}


def install(module: ModuleType) -> None:
    """Replace ``datasets.load_dataset`` by one that knows of subsets; once.

    Args:
        module: ``datasets.load``.
    """
    original = module.load_dataset
    if getattr(original, "_outlast", False):
        return
    signature = inspect.signature(original)

    # A plain function, so that it pickles by name.
    @functools.wraps(original)
    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return original(*args, **kwargs)
        subset = _asked(str(arguments["path"]))
        if subset is None:
            return original(*args, **kwargs)
        try:
            return _subset(module, original, subset, arguments)
        except LeftAlone as why:
            tell(f"{arguments['path']}: no subset of it can be had, so it is loaded whole: {why}")
            from_environment(Path()).write(
                "subset_left_alone", name=str(arguments["path"]), rows=subset.rows, why=str(why)
            )
            return original(*args, **kwargs)

    load_dataset._outlast = True  # type: ignore[attr-defined]
    module.load_dataset = load_dataset  # type: ignore[attr-defined]


def _asked(path: str) -> Subset | None:
    try:
        return wanted.find(path, os.environ)
    except BadInput as error:
        # A variable that the script set itself, later than `outlast run` looked at it.
        tell(f"{error.message}: the data set is loaded whole")
        return None


def _subset(module: ModuleType, original: Callable[..., Any], subset: Subset, arguments: Mapping[str, Any]) -> Any:
    cache = str(arguments.get("cache_dir") or sys.modules["datasets.config"].HF_DATASETS_CACHE)
    if "://" in cache:
        raise LeftAlone(f"its cache is not on this machine ({cache})")
    path, here = str(arguments["path"]), is_here(module, arguments)
    # Files of this machine are looked at each time: the same words may mean others today, or in another folder.
    is_folder = here and not is_reader(module, path)
    named = {**arguments, "path": str(Path(path).absolute())} if is_folder else arguments
    store = Store(Path(cache).expanduser().absolute(), named, subset.rows)
    is_there = here and (not is_folder or os.path.exists(path))
    before = None if is_there else store.remembered()
    asked = slices_of(arguments.get("split"), before.splits) if before else []
    if before is not None and not all(one.split in before.parts for one in asked):
        before = None
    # The hub is asked once: a training that goes on must not meet another commit of its data.
    if before is None or here or _is_to_be_newer(arguments):
        try:
            found = look(module, arguments)
        except LeftAlone as why:
            if before is None:
                raise
            tell(f"{arguments['path']}: the subset that was fetched before is used ({why})")
        else:
            asked = slices_of(arguments.get("split"), list(found.splits))
            parts = {name: store.part(name, found) for name in dict.fromkeys(one.split for one in asked)}
            before = store.remember(parts, found)
    parts = {one.split: before.parts[one.split] for one in asked}
    _say(subset, str(arguments["path"]), parts, asked, store.home)
    return _load(original, arguments, parts, arguments.get("features") or before.features)


def _is_to_be_newer(arguments: Mapping[str, Any]) -> bool:
    """The script asks for what the hub has now."""
    mode = str(arguments.get("download_mode") or "").lower()
    return mode.endswith(("redownload", "reuse_cache_if_exists"))


def _load(original: Callable[..., Any], arguments: Mapping[str, Any], parts: Mapping[str, Part], features: Any) -> Any:
    """The subset's shards through `datasets`, as the script asked for them."""
    passed = {name: arguments[name] for name in ("cache_dir", "keep_in_memory") if name in arguments}
    split = arguments.get("split")
    if arguments.get("streaming"):
        # Whole splits only: `datasets` refuses a slice of a stream itself.
        passed |= {"streaming": True, "num_proc": arguments.get("num_proc")}
    elif split is not None:
        split = _translated(split, parts)
    shards = {name: part.shards for name, part in parts.items()}
    return original("parquet", data_files=shards, split=split, features=features, **passed)


def _translated(split: Any, parts: Mapping[str, Part]) -> Any:
    """The same structure of splits, with every slice as rows of the subset."""
    if isinstance(split, dict):
        return {name: _translated(value, parts) for name, value in split.items()}
    if isinstance(split, list | tuple):
        return type(split)(_translated(value, parts) for value in split)
    spans = [(one.split, _span(one, parts)) for one in slices_of(split, list(parts))]
    return "+".join(f"{name}[{span.start}:{span.stop}]" for name, span in spans)


def _span(one: Slice, parts: Mapping[str, Part]) -> slices.Span:
    part = parts[one.split]
    return slices.place(one, part.rows, is_whole=part.is_whole)


def _say(subset: Subset, name: str, parts: Mapping[str, Part], asked: list[Slice], home: Path) -> None:
    """One line of what the script gets, and one more where slices overlap that were apart."""
    told = []
    for one in dict.fromkeys(asked):
        span = _span(one, parts)
        told.append(f"{one} is its rows {span.start:,} to {span.stop:,}")
        for other in _given.setdefault(name, []):
            if both := slices.shared(one, other, parts[one.split].rows):
                tell(f"{name}: {one} and {other} share {both:,} rows of the subset; ask for a larger one")
        _given[name].append(one)
    rows = {split: parts[split].rows for split in dict.fromkeys(one.split for one in asked)}
    traveled = sum(parts[split].traveled_bytes for split in rows)
    commits = {part.revision[:8] for part in parts.values() if part.revision}
    tell(
        f"{name} is a subset here, of {' and '.join(f'{count:,}' for count in rows.values())} rows "
        f"({', '.join([subset.because, *(f'commit {commit}' for commit in sorted(commits))])}): {', '.join(told)}"
        + (f"; {show_bytes(traveled)} fetched into {home}" if traveled else "")
    )
    from_environment(Path()).write(
        "subset_given", name=name, because=subset.because, asked_rows=subset.rows, rows=rows,
        slices=[str(one) for one in asked], folder=str(home), traveled_bytes=traveled,
    )  # fmt: skip
