"""Checks of the caches: where they really are, what hides in them, and what must not be deleted with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from outlast.caches import CATALOGUE, Cache
from outlast.doctor.facts import CacheFact, Facts
from outlast.doctor.findings import Finding, Mend, error, export, fine, line, quoted, skipped, warning
from outlast.doctor.volumes import fix_access
from outlast.host import show_bytes, show_seconds

_TRUE = frozenset({"1", "TRUE", "YES", "ON"})


def hf_home_literal(facts: Facts) -> Sequence[Finding]:
    """A quoted ``~`` or ``$HOME`` that the owner does not expand: a folder of that very name, and two caches."""
    found: dict[str, Finding] = {}
    for cache in facts.caches.values():
        variable = cache.place.variable or _spoilt(cache.place.cache, facts)
        if not cache.place.literal or variable is None:
            continue
        value = facts.environment.get(variable, "")
        said = f"{variable}={quoted(value)}: {cache.place.cache.owner} does not expand that: {cache.place.path}"
        found.setdefault(variable, error(said, export(variable, _expanded(value, facts)), cache.place.path))
    return list(found.values())


def _spoilt(cache: Cache, facts: Facts) -> str | None:
    """The variable that moves a cache's parent, with something in it that is not expanded."""
    names = ("HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TRITON_HOME")
    return next((n for n in names if set("~$") & set(facts.environment.get(n, ""))), None)


def _expanded(value: str, facts: Facts) -> str:
    home = facts.environment.get("HOME", "")
    text = home + value[1:] if value == "~" or value.startswith("~/") else value
    for name in sorted(facts.environment, key=len, reverse=True):
        text = text.replace(f"${{{name}}}", facts.environment[name]).replace(f"${name}", facts.environment[name])
    return text


def split_caches(facts: Facts) -> Sequence[Finding]:
    """The same kind of cache in two places: what is in the other one is downloaded again."""
    found = []
    for cache in facts.caches.values():
        for other in cache.others:
            here = cache.place.path
            said = f"{cache.place.cache.holds} are in {other} too; only {here} is looked at"
            if cache.is_there:
                # -u: of two files the newer one stays. The old folder is only renamed: look before you delete it.
                copied = other.with_name(f"{other.name}.copied")
                fix = f"cp -au {quoted(other)}/. {line(here)} && {line('mv', other, copied)}"
            else:
                fix = line("outlast", "migrate", other, here)
            found.append(warning(said, fix, other))
    return found


def ignored_variable(facts: Facts) -> Sequence[Finding]:
    """Variables that their owner no longer reads."""
    found = []
    for cache in (row for row in CATALOGUE if row.ignored):
        for variable in cache.variables:
            value = facts.environment.get(variable)
            if not value or _major(facts, "transformers", 5) < 5:
                continue
            fix = line("unset", variable)
            if not {"HF_HUB_CACHE", "HF_HOME"} & facts.environment.keys():
                fix += f"; {export('HF_HUB_CACHE', _expanded(value, facts))}"
            found.append(warning(f"{variable}={value} is set, and {cache.owner} no longer reads it", fix))
    return found


def _major(facts: Facts, package: str, default: int) -> int:
    version = ((facts.interpreter.packages if facts.interpreter else None) or {}).get(package, "")
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else default


def hf_transfer_ignored(facts: Facts) -> Sequence[Finding]:
    """The fast downloader of old, gone since huggingface_hub 1."""
    name = "HF_HUB_ENABLE_HF_TRANSFER"
    if not facts.environment.get(name) or _major(facts, "huggingface-hub", 1) < 1:
        return []
    said = f"{name} is set, and huggingface_hub ignores it: hf_transfer was replaced by hf-xet"
    return [warning(said, f"unset {name}; export HF_XET_HIGH_PERFORMANCE=1")]


def xet_disabled(facts: Facts) -> Sequence[Finding]:
    """Old advice that costs speed and room."""
    name = "HF_HUB_DISABLE_XET"
    if facts.environment.get(name, "").upper() not in _TRUE:
        return []
    said = f"{name} is set: downloads are slower, and equal files of different repositories are stored twice"
    return [warning(said, f"unset {name}")]


def cache_missing(facts: Facts) -> Sequence[Finding]:
    """A folder that a variable names and that is not there: a typing error, or a volume that is not mounted."""
    found: dict[Path, Finding] = {}
    for cache in facts.caches.values():
        place = cache.place
        is_set = place.variable in place.cache.variables and not place.literal
        if is_set and not cache.is_there and place.cache.role in ("data", "small"):
            said = f"{place.variable} names {place.path}, which is not there: misspelt, or a volume not mounted?"
            fix = line("mkdir", "-p", place.path)
            found.setdefault(place.path, warning(said, fix, place.path, Mend("make-folder", place.path)))
    return list(found.values())


def cache_not_writable(facts: Facts) -> Sequence[Finding]:
    """A cache that a library cannot write to."""
    found: dict[Path, Finding] = {}
    for cache in facts.caches.values():
        access, path = cache.access, cache.place.path
        if access is None or access.is_writable:
            continue
        simple = access.is_ours and not access.is_read_only and not access.is_immutable
        mend = Mend("let-write", path) if simple else None
        said = f"{path} ({cache.place.cache.owner}) cannot be written to"
        found.setdefault(path, error(said, fix_access(path, access, str(path)), path, mend))
    return list(found.values())


def hf_broken_repo(facts: Facts) -> Sequence[Finding]:
    """One link that leads nowhere hides a whole repository from ``hf cache``."""
    found: list[Finding] = [
        warning(f"{repo.name}: {link.name} leads nowhere: hf cache ignores the whole repository",
                f"find {quoted(repo / 'snapshots')} -xtype l -delete  # it is downloaded again when needed",
                repo)
        for repo, link in facts.hub.broken
    ]  # fmt: skip
    if facts.hub.repos < facts.hub.all_repos:
        found.append(skipped(f"looked at {facts.hub.repos} of {facts.hub.all_repos} repositories; --deep takes all"))
    return found


def hf_partial_downloads(facts: Facts) -> Sequence[Finding]:
    """Downloads that nobody resumes: each attempt has a name of its own."""
    idle = [partial for partial in facts.hub.partials if partial.is_idle]
    if not idle:
        return []
    size = show_bytes(sum(partial.bytes for partial in idle))
    fix = "outlast clean --only hf-hub --up-to seconds --yes"
    return [warning(f"{len(idle)} partial downloads hold {size}, and no tool resumes them", fix, idle[0].path.parent)]


def stale_torch_lock(facts: Facts) -> Sequence[Finding]:
    """A killed build leaves it, and the next one waits for ever (pytorch#189245)."""
    found = []
    for lock in facts.locks:
        if lock.user or lock.is_free is False:
            continue
        age = show_seconds(lock.age_seconds)
        aside = line("mv", lock.path, lock.path.with_name("lock.stale"))
        if lock.is_free:
            said = f"{lock.path}: {age} old, its maker is dead: every build of this extension waits for it for ever"
            found.append(error(said, aside, lock.path, Mend("set-aside", lock.path)))
        else:
            said = f"{lock.path}: {age} old, and the kernel cannot tell whether its maker lives"
            found.append(warning(said, aside, lock.path))
    return found


def token_in_cache_you_clean(facts: Facts) -> Sequence[Finding]:
    """The login token where people delete."""
    token = facts.token
    if token is None:
        return []
    swept = [c.place.path for c in facts.caches.values() if c.place.cache.id in ("hf-hub", "hf-datasets", "hf-xet")]
    holder = next((path for path in (facts.temporary, *swept) if path in token.parents), None)
    if holder is None:
        return [fine(f"the token is {token}: never delete {token.parent} whole", token)]
    better = Path(facts.environment.get("HOME", "/root")) / ".config" / "huggingface" / "token"
    fix = f"{line('mkdir', '-p', better.parent)} && {line('mv', token, better)} && {export('HF_TOKEN_PATH', better)}"
    return [warning(f"the login token {token} lies in {holder}, which is cleaned", fix, token)]


def wandb_unsynced(facts: Facts) -> Sequence[Finding]:
    """Runs that are nowhere else: ``wandb clean`` would delete them after a day."""
    if not facts.unsynced:
        return []
    first = facts.unsynced[0]
    said = f"{len(facts.unsynced)} offline runs were never uploaded, {first.name} for one"
    return [warning(said, line("wandb", "sync", *facts.unsynced[:20]), first.parent)]


def cache_declared_effective(facts: Facts) -> Sequence[Finding]:
    """Where your variables say, and where the libraries of your interpreter really look."""
    if facts.probed is None:
        return [skipped("asked with --deep only")]
    if facts.probed.problem:
        return [skipped(facts.probed.problem)]
    found = []
    for name, path in facts.probed.effective.items():
        cache: CacheFact | None = facts.caches.get(name)
        if cache is not None and cache.place.path != path:
            said = f"{name}: {cache.place.path} is declared, {cache.place.cache.owner} looks in {path}"
            variable = next(iter(cache.place.cache.variables), None)
            fix = export(variable, cache.place.path) if variable else 'eval "$(outlast env)"'
            found.append(warning(said, fix, path))
    return found
