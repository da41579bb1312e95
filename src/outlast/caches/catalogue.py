"""The caches that machine-learning tools leave behind: a table, and where each of them is on this machine.

Facts are those of November 2026; what was measured or read in source, and which threads, is in docs/caches.md. Libraries
are not imported to find their paths (``import datasets.config`` takes 730 ms): their rules are in the rows.
"""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Cost(Enum):
    """What it costs to make something again; in this order things are given up."""

    SECONDS = 1
    """Nothing but a moment: partial downloads that no tool resumes, a font list."""
    MINUTES = 2
    """Compiling or extracting again."""
    DOWNLOAD = 3
    """Downloading again, gigabytes maybe."""
    NEVER = 4
    """It cannot be made again: credentials, results, models that the user asked for."""


class Sweep(Enum):
    """How a cache is swept."""

    NEVER = "never"
    """It is no cache: results, credentials, settings."""
    ENTRIES = "entries"
    """Each file or folder directly in it is a thing of its own that may go."""
    HUB = "hub"
    """By Hugging Face's rules: revisions, blobs, partial downloads, the shared store."""
    DATASETS = "datasets"
    """By the rules of ``datasets``: partial builds and the results of ``map``."""
    TOOL = "tool"
    """By the owner's own command alone; it shares its files with others by hard links, or keeps an index."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A row: one kind of thing that some tool keeps on disk."""

    id: str
    """Stable name, for the command line and the journal."""
    owner: str
    """Library or tool that reads it."""
    variables: tuple[str, ...]
    """Variables that name its place, the strongest first."""
    default: str
    """Where it is when none is set: ``{home}``, ``{xdg}``, ``{tmp}``, ``{user}``, ``{cwd}`` and ``{ID}`` of another row."""
    holds: str
    """What is in it."""
    sweep: Sweep
    """How it is swept."""
    cost: Cost
    """What it costs to make again."""
    role: str = "data"
    """Where it belongs: ``data`` (large files: the roomy volume), ``small`` (many small files: fast and local),
    ``results`` (kept volume), ``none`` (never moved)."""
    expands: frozenset[str] = frozenset()
    """What the owner expands in a variable's value: ``~``, ``$``. What it doesn't becomes a folder of that very name."""
    suffix: str = ""
    """Appended to a variable's value by the owner."""
    command: tuple[str, ...] = ()
    """The owner's own command that frees it."""
    locks: tuple[str, ...] = ()
    """Globs below it: lock files that are held while it is in use."""
    idle_minutes: float = 10.0
    """In use while anything in it is younger than this."""
    traps: str = ""
    """What goes wrong when it is moved or cleaned by hand."""
    ignored: bool = False
    """True for a variable that nobody reads any more: old folders may still be where it points."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cache is, and why."""

    cache: Cache
    """The row."""
    path: Path
    """Absolute; need not exist."""
    variable: str | None
    """The variable that put it there; None for the default."""
    literal: bool = False
    """True when the value holds a ``~`` or ``$`` that its owner does not expand: a folder of that very name."""


_BOTH = frozenset("~$")
_TILDE = frozenset("~")

CATALOGUE: tuple[Cache, ...] = (
    Cache(
        "hf-home", "huggingface_hub", ("HF_HOME",), "{xdg}/huggingface",
        "the parent of the others, the login token, accelerate's settings, trackio's results",
        Sweep.NEVER, Cost.NEVER, role="data", expands=_BOTH,
        traps="deleting it whole loses credentials and experiment results",
    ),
    Cache(
        "hf-hub", "huggingface_hub", ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"), "{hf-home}/hub",
        "models and data sets from the hub, shared blobs", Sweep.HUB, Cost.DOWNLOAD, expands=_BOTH,
        locks=(".locks/**/*.lock",),
        traps="rm -rf of a repository frees nothing where blobs are shared; one dangling link hides it from hf cache",
    ),
    Cache(
        "pip", "pip", ("PIP_CACHE_DIR",), "{xdg}/pip", "wheels and http answers", Sweep.ENTRIES, Cost.DOWNLOAD,
        role="small", expands=_TILDE, command=("pip", "cache", "purge"),
    ),
)  # fmt: skip
"""Every cache that Outlast knows. Adding one is adding a row."""


def by_id(name: str) -> Cache:
    """A row by its id.

    Raises:
        KeyError: when there is none.
    """
    return {cache.id: cache for cache in CATALOGUE}[name]


def places(environment: Mapping[str, str] | None = None, *, cwd: Path | None = None) -> dict[str, Place]:
    """Where each cache is under an environment, by id. Reads no file.

    Args:
        environment: variables; None takes those of the process.
        cwd: folder that relative values start from; None takes the process's.
    """
    values = os.environ if environment is None else environment
    here = Path.cwd() if cwd is None else cwd
    found: dict[str, Place] = {}
    for cache in CATALOGUE:
        found[cache.id] = _place(cache, values, here, found)
    return found


def _place(cache: Cache, values: Mapping[str, str], cwd: Path, before: Mapping[str, Place]) -> Place:
    for variable in cache.variables:
        if value := values.get(variable):
            text = _expanded(value, cache.expands, values)
            literal = text.startswith("~") or "$" in text
            return Place(cache, _absolute(text + cache.suffix, cwd), variable, literal)
    return Place(cache, _absolute(_filled(cache.default, values, cwd, before), cwd), None)


def _filled(template: str, values: Mapping[str, str], cwd: Path, before: Mapping[str, Place]) -> str:
    home = values.get("HOME") or str(Path.home())
    words = {
        "home": home,
        "xdg": values.get("XDG_CACHE_HOME") or f"{home}/.cache",
        "tmp": values.get("TMPDIR") or tempfile.gettempdir(),
        "user": _user(values),
        "cwd": str(cwd),
    } | {name: str(place.path) for name, place in before.items()}
    return re.sub(r"\{([a-z-]+)\}", lambda match: words[match[1]], template)


def _user(values: Mapping[str, str]) -> str:
    try:
        return values.get("USER") or getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as containers have it
        return str(os.getuid())


def _expanded(value: str, expands: frozenset[str], values: Mapping[str, str]) -> str:
    if "~" in expands and (value == "~" or value.startswith("~/")):
        value = (values.get("HOME") or str(Path.home())) + value[1:]
    if "$" in expands:
        value = re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda m: values.get(m[1] or m[2], m[0]), value)
    return value


def _absolute(text: str, cwd: Path) -> Path:
    return Path(os.path.normpath(cwd / text))
