"""Hugging Face's hub cache by its own rules: what can go without another part of it breaking.

Layout (huggingface_hub 2.4): ``{models,datasets,spaces,kernels}--org--name/{blobs,refs,snapshots}``, locks in
``.locks``, and the shared store ``blobs/HH/HASH`` with a list of references ``HASH.refs`` beside each payload. A
payload goes only under its lock, with a readable list that names no link any more, as the hub's own collector does it.

``hf cache`` does not show a repository in which one link leads nowhere, nor blobs that no revision needs, and it
deletes downloads that are under way; here the first two are found and the last are left alone.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from outlast import durable
from outlast.caches.catalogue import Cache, Cost
from outlast.caches.plan import Item, Stored
from outlast.caches.survey import Survey
from outlast.host import is_locked

_REPOSITORY = re.compile(r"(models|datasets|spaces|kernels)--.+", re.DOTALL)
_HASH = re.compile(r"[0-9a-f]{64}")
_MARKER = ".huggingface-shared-blobs"
_VERSION = "1\n"


@dataclass(slots=True)
class _Repo:
    """One repository's folder, read once."""

    path: Path
    revisions: dict[str, set[str]] = field(default_factory=dict)
    """Blobs (by name) that each snapshot links to."""
    blobs: set[str] = field(default_factory=set)
    """Names in ``blobs``, partial downloads apart."""
    partials: list[Path] = field(default_factory=list)
    refs: set[str] = field(default_factory=set)
    """Revisions that a branch or tag names."""
    broken: str | None = None
    """Why ``hf cache`` does not show it."""
    unclear: str | None = None
    """Why it cannot be told which blobs are needed: then all are."""


def is_repository(name: str) -> bool:
    """Whether a folder of a hub cache is a repository's, by its name: ``models--bert-base-uncased``."""
    return _REPOSITORY.fullmatch(name) is not None


def items(cache: Cache, root: Path, survey: Survey) -> Iterator[Item]:
    """What can be freed in a hub cache.

    Args:
        cache: its row.
        root: its folder, real path.
        survey: who uses what.
    """
    store = _Store(root)
    for path in _folders(root):
        if is_repository(path.name):
            yield from _of_repo(cache, root, _read(path), survey, store)
    for payload in store.unreferenced():
        yield _item(cache, root, "shared", f"shared blob {payload.name[:12]}", (payload,), Cost.SECONDS, survey, store)


def _of_repo(cache: Cache, root: Path, repo: _Repo, survey: Survey, store: _Store) -> Iterator[Item]:
    name = repo.path.name
    for partial in repo.partials:
        held = "a download is under way" if is_locked(_lock_of(root, name, partial)) else None
        label = f"partial download in {name}"
        yield _item(cache, root, "partial", label, (partial,), Cost.SECONDS, survey, store, held)
    busy = _busy(root, name)
    needed = set().union(*repo.revisions.values()) if repo.revisions else set()
    for blob in sorted(repo.blobs - needed) if not repo.unclear else ():
        label = f"blob {blob[:12]} of {name}, which no revision needs"
        yield _item(cache, root, "orphan", label, (repo.path / "blobs" / blob,), Cost.SECONDS, survey, store, busy)
    detached = sorted(set(repo.revisions) - repo.refs) if repo.refs and not repo.unclear else []
    for revision in detached:
        others = set().union(*(blobs for other, blobs in repo.revisions.items() if other != revision))
        own = sorted(repo.revisions[revision] - others)
        paths = (repo.path / "snapshots" / revision, *(repo.path / "blobs" / blob for blob in own))
        label = f"revision {revision[:12]} of {name}, which no branch names"
        yield _item(cache, root, "revision", label, paths, Cost.DOWNLOAD, survey, store, busy)
    kind = "broken" if repo.broken else "repo"
    yield _item(cache, root, kind, name, (repo.path,), Cost.DOWNLOAD, survey, store, busy, repo.broken or "")


def _item(
    cache: Cache,
    root: Path,
    kind: str,
    name: str,
    paths: tuple[Path, ...],
    cost: Cost,
    survey: Survey,
    store: _Store,
    held: str | None = None,
    note: str = "",
) -> Item:
    seen = survey.look(paths, idle_minutes=cache.idle_minutes)
    stored = store.behind(paths) if kind != "shared" else ()
    used = next((why for one in stored if (why := store.user_of(one.path, survey))), None)
    return Item(
        cache.id, kind, name, root, paths, cost, seen.single_bytes, seen.linked, tuple(stored), seen.files,
        seen.newest, seen.written, seen.problem or held or seen.used or used, note,
    )  # fmt: skip


def _read(path: Path) -> _Repo:
    repo = _Repo(path)
    for folder in ("snapshots", "refs", "blobs"):
        repo.unclear = repo.unclear or _illegible(path / folder)
    for blob in _entries(path / "blobs"):
        if blob.name.endswith(".incomplete"):
            repo.partials.append(Path(blob.path))
        elif not blob.name.startswith("."):  # a link that is just being made
            repo.blobs.add(blob.name)
    if not os.path.lexists(path / "snapshots"):
        repo.broken = "it has no snapshots" if repo.blobs else None
    for revision in _entries(path / "snapshots"):
        if revision.is_dir(follow_symlinks=False):
            repo.revisions[revision.name] = set()
            _read_links(repo, revision.name, Path(revision.path))
    for ref in _files(path / "refs"):
        try:
            revision_name = durable.read_small(ref).decode().strip()
        except (OSError, UnicodeError) as error:
            repo.unclear = repo.unclear or f"{ref.name!r} cannot be read: {error}"
            continue
        repo.refs.add(revision_name)
        if revision_name not in repo.revisions and repo.broken is None and repo.revisions:
            repo.broken = f"{ref.name} names a revision that is not there"
    return repo


def _read_links(repo: _Repo, revision: str, folder: Path) -> None:
    blobs = os.path.realpath(repo.path / "blobs")
    for path in _files(folder):
        repo.unclear = repo.unclear or _illegible(path.parent)
        if not path.is_symlink():
            continue
        # The first hop, by whatever way the link goes there: the blob may itself be a link into the shared store.
        target = path.parent / os.readlink(path)  # noqa: PTH115
        if os.path.realpath(target.parent) == blobs:
            repo.revisions[revision].add(target.name)
        else:
            repo.unclear = repo.unclear or f"a link in it leads elsewhere: {path.relative_to(repo.path)}"
        if not os.path.exists(path):  # noqa: PTH110 (Path.exists raises where a folder may not be searched)
            repo.broken = f"a link in it leads nowhere: {path.relative_to(repo.path)}"


def _illegible(folder: Path) -> str | None:
    """Why a folder's content cannot be known; None when it can, or when there is no such folder."""
    try:
        if stat.S_ISDIR(os.lstat(folder).st_mode):
            os.scandir(folder).close()
            return None
        return f"{folder.name!r} is a link or a file"
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{folder.name!r} cannot be read: {os.strerror(error.errno or 0)}"


def objection(item: Item) -> str | None:
    """Why a thing of a hub cache must stay by now, though it was found to be free; None when nothing has changed."""
    path = next((one for one in (item.paths[0], *item.paths[0].parents) if one.parent == item.root), None)
    if path is None or item.kind == "shared":
        return None
    if item.kind == "partial":
        return "a download is under way" if is_locked(_lock_of(item.root, path.name, item.paths[0])) else None
    if busy := _busy(item.root, path.name):
        return busy
    repo = _read(path)
    if item.kind == "orphan" and item.paths[0].name in set().union(*repo.revisions.values(), set()):
        return "a revision needs it by now"
    if item.kind == "revision" and item.paths[0].name in repo.refs:
        return "a branch names it by now"
    return repo.unclear if item.kind in ("orphan", "revision") else None


def _lock_of(root: Path, repo: str, partial: Path) -> Path:
    # ETAG.incomplete, or ETAG.RANDOM8.incomplete since attempts do not share a file.
    etag = re.sub(r"(\.[0-9a-f]{8})?\.incomplete$", "", partial.name)
    return root / ".locks" / repo / f"{etag}.lock"


def _busy(root: Path, repo: str) -> str | None:
    locks = _entries(root / ".locks" / repo)
    return "a download is under way" if any(is_locked(lock.path) for lock in locks) else None


def _folders(root: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(root) if entry.is_dir(follow_symlinks=False)]


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    with suppress(OSError):
        # A link in the place of a folder leads who knows where.
        if stat.S_ISDIR(os.lstat(folder).st_mode):
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
    return []


def _files(folder: Path) -> Iterator[Path]:
    stack = [folder]
    while stack:
        for entry in _entries(stack.pop()):
            if entry.is_dir(follow_symlinks=False):
                stack.append(Path(entry.path))
            else:
                yield Path(entry.path)


class _Store:
    """The shared store of a hub cache."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "blobs"
        self.is_ours = _is_store(self.folder)

    def behind(self, paths: Sequence[Path]) -> list[Stored]:
        """Payloads that links in these paths lead to, with all links that refer to them."""
        found: dict[Path, Stored] = {}
        for path in paths if self.is_ours else ():
            links = [path] if path.is_symlink() else list(_files(path / "blobs"))
            for link in links:
                payload = self._payload(link)
                references = references_of(payload, self.root) if payload else None
                if payload and references:
                    with suppress(OSError):
                        size = os.lstat(payload).st_blocks * 512
                        found[payload] = Stored(payload, size, references)
        return list(found.values())

    def unreferenced(self) -> Iterator[Path]:
        """Payloads whose list of references can be read and names no link that is there."""
        for prefix in _entries(self.folder) if self.is_ours else ():
            for entry in _entries(Path(prefix.path)):
                path = Path(entry.path)
                if _HASH.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    references = references_of(path, self.root)
                    if references is not None and not references:
                        yield path

    def user_of(self, payload: Path, survey: Survey) -> str | None:
        """Why a payload must stay."""
        seen = survey.look([payload], idle_minutes=0)
        return seen.problem or seen.used

    def _payload(self, link: Path) -> Path | None:
        if not link.is_symlink():
            return None
        target = Path(os.path.normpath(link.parent / os.readlink(link)))  # noqa: PTH115
        is_payload = target.parent.parent == self.folder and _HASH.fullmatch(target.name)
        return target if is_payload and target.parent.name == target.name[:2] else None


def _is_store(folder: Path) -> bool:
    with suppress(OSError, UnicodeError):
        marker = folder / _MARKER
        return not folder.is_symlink() and durable.read_small(marker).decode() == _VERSION
    return False


def references_of(payload: Path, root: Path) -> frozenset[Path] | None:
    """Links that refer to a payload of the shared store; None when its list cannot be read: then it stays.

    The list is a hint, not trusted: each line counts only while the link is there and leads to the payload.
    """
    try:
        lines = durable.read_small(payload.with_name(f"{payload.name}.refs"), 64 << 20).decode().splitlines()
    except (OSError, UnicodeError):
        return None
    found = set()
    for line in lines:
        link = Path(os.path.normpath(root / line))
        if Path(line).is_absolute() or root not in link.parents:
            continue
        with suppress(OSError):
            if link.is_symlink() and Path(os.path.normpath(link.parent / os.readlink(link))) == payload:  # noqa: PTH115
                found.add(link)
    return frozenset(found)
