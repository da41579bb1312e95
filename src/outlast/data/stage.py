"""A subset's folder while it is made: ``.outlast/next`` is filled, then takes the place of what is readable.

    OUT/.outlast/lock            one fetch at a time
    OUT/.outlast/next/           the shards that are done, under the names that they will have, and `plan.json`
    OUT/.outlast/next/part       the shard that is being written
    OUT/.outlast/left-*/         shards of a fetch that was cut short and then asked for otherwise: rows to take from
    OUT/.outlast/past/           what was readable before, on its way out

The change: the new manifest is written into ``next``, durably; from then on it is finished whatever happens, by the
next command if need be. Each part's folder takes its place by one exchange; the manifest is renamed last.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.data.manifest import NAME, Manifest, digest
from outlast.data.request import PARTS
from outlast.errors import BadInput, VaultBusy

OWN = ".outlast"
_EXCHANGE = 2
_HERE = -100  # AT_FDCWD


class Stage:
    """The folder of one subset, held by one process.

    Args:
        out: the subset's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.own = out / OWN
        self.next = self.own / "next"
        self.past = self.own / "past"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder ours alone, and finish a change that was cut short.

        Raises:
            VaultBusy: another process is fetching into it.
            BadInput: something else lies there.
        """
        self._check_ours()
        made = not self.out.exists()
        self.own.mkdir(parents=True, exist_ok=True)
        with durable.locked(self.own / "lock", wait=False) as is_ours:
            if not is_ours:
                raise VaultBusy(f"another process is fetching into {self.out}", hint="wait for it, or name another -o")
            if (self.next / NAME).is_file():
                self._change()
            self._empty_past()
            try:
                yield
            finally:
                self._tidy(made)

    def _tidy(self, made: bool) -> None:
        """Take back what was made for nothing: a fetch that did not come to its first shard leaves nothing behind.

        Args:
            made: the folder itself is of this fetch; otherwise it stays, empty as it was.
        """
        with suppress(OSError):
            if self.next.is_dir() and not any(self.next.glob("*/*.parquet")):
                durable.remove_tree(self.next)
            if {path.name for path in self.own.iterdir()} == {"lock"} and not (self.out / NAME).exists():
                (self.own / "lock").unlink()
                self.own.rmdir()
                if made:
                    self.out.rmdir()

    def _check_ours(self) -> None:
        if os.path.islink(self.own) or (self.out.exists() and not self.out.is_dir()):
            raise BadInput(f"{self.out} is no folder that a subset can go to", hint="name another one with -o")
        if self.out.is_dir() and not self.own.is_dir() and any(self.out.iterdir()):
            raise BadInput(f"{self.out} holds something else", hint="name an empty or a new folder with -o")

    def current(self) -> Manifest | None:
        """The subset that is readable now; None when there is none."""
        return Manifest.load(self.out) if (self.out / NAME).is_file() else None

    def check_strangers(self) -> None:
        """Nothing but our shards may lie where shards are replaced.

        Raises:
            BadInput: a file that the manifest does not name.
        """
        now = self.current()
        ours = {shard.path for shard in now.shards} if now else set()
        for part in PARTS:
            folder = self.out / part
            if os.path.islink(folder):
                raise BadInput(f"{folder} is a link", hint="name another folder with -o")
            if not folder.is_dir():
                continue
            for path in folder.iterdir():
                if f"{part}/{path.name}" not in ours:
                    raise BadInput(
                        f"{path} is not of this subset, and its folder is about to be replaced",
                        hint="move it elsewhere, or name another folder with -o",
                    )

    def begin(self, plan: dict[str, object]) -> None:
        """Go on with the shards of the same plan; those of another plan are put aside as rows to take from."""
        told = json.dumps(plan, indent=1).encode()
        try:
            before = durable.read_small(self.next / "plan.json", 1 << 30)
        except OSError:
            before = b""
        if before != told:
            if before:
                os.rename(self.next, self.own / f"left-{self._free_number()}")
            elif self.next.exists():
                durable.remove_tree(self.next)
            self.next.mkdir(parents=True)
            durable.write_bytes(self.next / "plan.json", told)
        for part in self.next.glob("part*"):
            part.unlink()

    def begun(self) -> dict[str, str]:
        """States of the files that the fetch under way was begun from; empty where none is."""
        found = _read(self.next / "plan.json").get("states")
        return found if isinstance(found, dict) else {}

    def _free_number(self) -> int:
        return next(i for i in range(10**6) if not (self.own / f"left-{i}").exists())

    def left(self) -> list[tuple[Path, dict[str, object]]]:
        """Folders of fetches that were cut short and asked for otherwise, each with its plan."""
        found = []
        for folder in sorted(self.own.glob("left-*")):
            try:
                found.append((folder, json.loads(durable.read_small(folder / "plan.json", 1 << 30))))
            except (OSError, ValueError):
                durable.remove_tree(folder)
        return found

    def counts(self) -> dict[str, tuple[str | None, int]]:
        """Files whose rows were counted before: version and rows."""
        return {path: (version, rows) for path, (version, rows) in _read(self.own / "counts.json").items()}

    def add_count(self, path: str, version: str | None, rows: int) -> None:
        """Keep what it took to read a whole file to learn."""
        durable.write_bytes(self.own / "counts.json", json.dumps({**self.counts(), path: (version, rows)}).encode())

    def marks(self) -> dict[str, list[tuple[int, int]]]:
        """Where files without row groups can be entered: rows and their first bytes."""
        return {path: [(row, at) for row, at in marks] for path, marks in _read(self.next / "marks.json").items()}

    def keep_marks(self, marks: dict[str, list[tuple[int, int]]]) -> None:
        """Keep where reading can go on."""
        durable.write_bytes(self.next / "marks.json", json.dumps(marks).encode())

    def publish(self, manifest: Manifest) -> None:
        """Let the new subset take the old one's place."""
        self.check_strangers()
        durable.write_bytes(self.next / NAME, manifest.to_bytes())
        self._change()
        self._empty_past()

    def _change(self) -> None:
        """Idempotent: each step is done once, wherever the last attempt ended."""
        self.past.mkdir(exist_ok=True)
        manifest = Manifest.load(self.next)
        coming = {shard.path.partition("/")[0] for shard in manifest.shards}
        for part in PARTS:
            new, now, gone = self.next / part, self.out / part, self.past / part
            if part not in coming:
                if now.is_dir() and not gone.exists():
                    os.rename(now, gone)
            elif new.is_dir() and not _holds(now, manifest, part):
                _exchange(new, now, gone)
        durable.sync_folder(self.out)
        os.replace(self.next / NAME, self.out / NAME)
        durable.sync_folder(self.out)

    def _empty_past(self) -> None:
        """What was readable before, and what rows were taken from, goes once the new subset stands."""
        if self.past.exists():
            # The past last: what else is there is known by it to be in vain, after a kill too.
            for folder in (*self.own.glob("left-*"), self.next, self.past):
                if folder.exists():
                    durable.remove_tree(folder)


def _read(path: Path) -> dict[str, Any]:
    """A small file of our own; empty where there is none, or another hand was in it."""
    try:
        found = json.loads(durable.read_small(path, 1 << 30))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _holds(folder: Path, manifest: Manifest, part: str) -> bool:
    """True when a folder holds the new shards: a kill came between its exchange and what follows."""
    mine = [shard for shard in manifest.shards if shard.path.startswith(part + "/")]
    wanted = {shard.path.partition("/")[2]: (shard.size_bytes, shard.blake3) for shard in mine}
    if not folder.is_dir() or {path.name for path in folder.iterdir()} != set(wanted):
        return False
    return all(
        (folder / name).stat().st_size == size and digest(folder / name) == its for name, (size, its) in wanted.items()
    )


def _exchange(new: Path, now: Path, gone: Path) -> None:
    """Put a folder in another's place; what was there goes to ``gone``."""
    if not now.exists():
        os.rename(new, now)
        return
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        call = None
    if call is not None and call(_HERE, os.fsencode(new), _HERE, os.fsencode(now), _EXCHANGE) == 0:
        os.rename(new, gone)
        return
    if call is not None and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(now))
    os.rename(now, gone)
    os.rename(new, now)
