"""The caches that machine-learning tools leave behind, and where each of them is on this machine."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from outlast.caches.rows import CATALOGUE, Cache, Cost, Sweep

__all__ = ["CATALOGUE", "Cache", "Cost", "Place", "Sweep", "by_id", "expanded", "place_of", "places"]
_SHELL = frozenset("~$")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cache is, and why."""

    cache: Cache
    """The row."""
    path: Path
    """Absolute; need not exist."""
    variable: str | None
    """The variable that put it there, its own or one that it follows (HF_HOME); None for the default."""
    literal: bool = False
    """True when the value holds a ``~`` or ``$`` that its owner does not expand: a folder of that very name."""


def by_id(name: str) -> Cache:
    """A row by its id.

    Raises:
        KeyError: when there is none.
    """
    return {cache.id: cache for cache in CATALOGUE}[name]


def places(environment: Mapping[str, str] | None = None, *, cwd: Path | None = None) -> dict[str, Place]:
    """Where each cache is under an environment, by id; one that is off or that nobody placed is not among them.

    Reads nothing but which folder for temporary files there is, and the user's name and home where they are not said.

    Args:
        environment: variables; None takes those of the process.
        cwd: folder that relative values start from; None takes the process's.
    """
    values = os.environ if environment is None else environment
    here = Path.cwd() if cwd is None else cwd
    found = ((cache.id, place_of(cache, values, here)) for cache in CATALOGUE)
    return {name: place for name, place in found if place}


def expanded(value: str, environment: Mapping[str, str]) -> str:
    """A value with ``~`` and ``$NAME`` filled in, as a shell would have done it."""
    return _expanded(value, _SHELL, environment)


def place_of(cache: Cache, values: Mapping[str, str], cwd: Path) -> Place | None:
    """Where one cache is; None when it is off or nobody placed it. The arguments are those of `places`."""
    for variable in cache.variables:
        value = values.get(variable)
        if value or (value is not None and cache.blank):
            first = value.partition(cache.separator)[0] if cache.separator else value
            text = _expanded(first, cache.expands, values)
            return Place(cache, _absolute(text + cache.suffix, cwd), variable, _is_literal(text))
    if cache.default is None:
        return None
    made = _Making(cache, values, cwd)
    text = re.sub(r"\{(?:([A-Z_]+):)?([a-z-]+)\}", made.word, cache.default)
    return Place(cache, _absolute(text, cwd), made.variable, made.literal)


class _Making:
    """A default being filled in, as its own owner does it.

    Owners do not ask each other: datasets reads HF_HOME by itself, and expands less in it than the hub does.
    """

    def __init__(self, cache: Cache, values: Mapping[str, str], cwd: Path) -> None:
        self.cache, self.values, self.cwd = cache, values, cwd
        self.expands = cache.expands if cache.default_expands is None else cache.default_expands
        self.variable: str | None = None
        self.literal = False

    def word(self, match: re.Match[str]) -> str:
        name, key = match[1], match[2]
        if name and self.values.get(name):
            self.variable = name
            return self._value(name)
        if key in ("xdg", "data", "config"):
            name, below = _XDG[key]
            self.variable = name if self._is_set(name) else self.variable
            return (self._value(name) or ".") if self._is_set(name) else f"{_home(self.values)}/{below}"
        plain = {"home": _home, "tmp": _temporary, "user": _user}
        if key in plain:
            return plain[key](self.values)
        return str(self.cwd) if key == "cwd" else self._parent(key)

    def _parent(self, key: str) -> str:
        parent = replace(by_id(key), expands=self.expands, default_expands=self.expands)
        place = place_of(parent, self.values, self.cwd)
        if place is None:  # a row without a default has no children
            raise KeyError(key)
        self.literal |= place.literal
        self.variable = place.variable or self.variable
        return str(place.path)

    def _is_set(self, name: str) -> bool:
        value = self.values.get(name)
        return bool(value) or (value is not None and self.cache.blank)

    def _value(self, name: str) -> str:
        text = _expanded(self.values[name], self.expands, self.values)
        self.literal |= _is_literal(text)
        return text


_XDG = {
    "xdg": ("XDG_CACHE_HOME", ".cache"),
    "data": ("XDG_DATA_HOME", ".local/share"),
    "config": ("XDG_CONFIG_HOME", ".config"),
}


def _home(values: Mapping[str, str]) -> str:
    try:
        return values.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a uid without a name, as containers have it: where such programs end up
        return "/"


def _temporary(values: Mapping[str, str]) -> str:
    """As tempfile does it: a TMPDIR that is not there is passed over in silence."""
    candidates = [values.get(name) for name in ("TMPDIR", "TEMP", "TMP")] + ["/tmp", "/var/tmp", "/usr/tmp"]
    usable = (path for path in candidates if path and os.access(path, os.W_OK | os.X_OK) and os.path.isdir(path))
    return next(usable, "/tmp")


def _user(values: Mapping[str, str]) -> str:
    """As getpass does it, then as torch cleans it."""
    named = (values.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME"))
    try:
        name = next(filter(None, named), None) or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a uid without a name, as containers have it
        name = f"uid_{os.getuid()}"
    return re.sub(r'[\\/:*?"<>|]', "_", name)


def _expanded(value: str, expands: frozenset[str], values: Mapping[str, str]) -> str:
    if "~" in expands and value.startswith("~"):
        name, slash, rest = value.partition("/")
        # Of a user that there is not, expanduser leaves the name as it is.
        value = (_home(values) if name == "~" else os.path.expanduser(name)) + slash + rest  # noqa: PTH111
    if "$" in expands:
        value = re.sub(r"\$(?:(\w+)|\{([^}]*)\})", lambda m: values.get(m[1] or m[2], m[0]), value, flags=re.ASCII)
    return value


def _is_literal(text: str) -> bool:
    return text.startswith("~") or "$" in text


def _absolute(text: str, cwd: Path) -> Path:
    return Path(os.path.normpath(cwd / text))
