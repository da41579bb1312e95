"""Which trainings are saving into a folder now: each holds a lock on a file of its own while its process lives.

Two trainings in one folder (the same command started twice, two jobs with one output folder) must not prune each
other's checkpoints. The kernel gives the lock back when its holder dies, so nothing is left to be cleared up by hand.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = "alive-"
_TRIES, _BREATH = 5, 0.01
"""Somebody who looks or sweeps holds the lock for a moment too."""
_held: dict[Path, int] = {}
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


def claim(own: Path, lineage: str) -> bool:
    """Say that this process is saving a training's checkpoints here, from now until it ends.

    Args:
        own: Outlast's folder in the folder of checkpoints.
        lineage: the training.

    Returns:
        False when another living process has said so of the same training.
    """
    path = _path(own, lineage)
    while path not in _held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError:
            return True  # a full or read-only volume: said with the next save
        if not _is_locked_soon(fd):
            os.close(fd)
            return False
        if _is_still(path, fd):
            _held[path] = fd
        else:
            os.close(fd)  # swept between our open and our lock
    return True


def is_alive(own: Path, lineage: str) -> bool:
    """True when another process, which lives, is saving this training's checkpoints here."""
    path = _path(own, lineage)
    if path in _held:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not _is_locked(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def sweep(own: Path) -> None:
    """Remove what trainings that have ended left here."""
    with suppress(OSError):
        for path in own.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    if path not in _held and _is_locked(fd, fcntl.LOCK_EX):
                        path.unlink()
                finally:
                    os.close(fd)


def _path(own: Path, lineage: str) -> Path:
    # A seal's lineage is any text, a file's name is not.
    return own / (_PREFIX + hashlib.blake2b(lineage.encode(errors="replace"), digest_size=8).hexdigest())


def _is_locked_soon(fd: int) -> bool:
    for _ in range(_TRIES):
        if _is_locked(fd, fcntl.LOCK_EX):
            return True
        time.sleep(_BREATH)
    return False


def _is_locked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        return True
    except OSError as error:
        return error.errno in _NO_LOCKS


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except OSError:
        return False


def _let_go() -> None:
    """In a forked child: its parent's lock must not outlive the parent in a DataLoader worker."""
    for fd in _held.values():
        with suppress(OSError):
            os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
