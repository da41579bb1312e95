"""`torch.save` to a path: written beside and renamed, so that the old file survives a kill or a full disk.

File objects, devices and pipes are left to torch. Works as installed by `outlast run`, or after `install_here()`.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast import durable
from outlast.caches import Reclaim
from outlast.checkpoints import Policy, ReservedFile, is_full, reserved_file, say
from outlast.errors import NoRoom
from outlast.host import room, show_bytes
from outlast.integrations import staged
from outlast.journal import FOLDER, HOME_VARIABLE, Journal, from_environment

_SLACK = 256 * 1024
_TRIES = 5
_CANNOT_REPLACE = frozenset({errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG})
_LONGEST_BREATH = 60.0
_TELL_EVERY = 10.0


def install(module: ModuleType) -> None:
    """Replace ``torch.serialization.save`` and ``torch.save`` by the guarded one; once.

    Args:
        module: ``torch.serialization``.
    """
    original = module.save
    if getattr(original, "_outlast", False):
        return

    # A plain function, so that it pickles by name: spawn and Ray send `torch.save` to their workers.
    @functools.wraps(original)
    def save(obj: object, f: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(f, str | os.PathLike) and isinstance(os.fspath(f), str):
            _save_to_path(original, obj, Path(f), args, kwargs)
        else:
            original(obj, f, *args, **kwargs)

    save._outlast = True  # type: ignore[attr-defined]
    module.save = save  # type: ignore[attr-defined]
    torch = sys.modules.get("torch")
    if torch is not None and getattr(torch, "save", None) is original:
        torch.save = save  # type: ignore[attr-defined]


def install_here() -> None:
    """Guard ``torch.save`` in this process."""

    install(sys.modules["torch.serialization"])


def tensor_bytes(obj: object) -> int:
    """Bytes of the tensor storages that saving an object writes, each storage once; 0 for what is not known."""
    import torch

    storages: dict[int, int] = {}
    stack, seen = [obj], set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            with suppress(Exception):  # sparse, fake and subclass tensors have no storage to ask
                storage = item.untyped_storage()
                storages[storage.data_ptr() or id(storage)] = storage.nbytes()
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set):
            stack.extend(item)
        elif isinstance(item, torch.nn.Module):
            stack.extend([*item.parameters(), *item.buffers()])
        elif isinstance(item, torch.optim.Optimizer):
            stack.append(item.state_dict())
    return sum(storages.values())


def _save_to_path(original: Callable[..., Any], obj: object, path: Path, args: Any, kwargs: Any) -> None:
    stage = staged.stage_of(path.absolute())
    if stage and path.name in stage.skipped:
        return
    size = tensor_bytes(obj)
    if stage:
        with reserved_file(stage, path, size) as file:
            original(obj, file, *args, **kwargs)
        return
    target = Path(os.path.realpath(path))
    mode = _mode_of(target)
    if mode is not None and not stat.S_ISREG(mode):
        original(obj, path, *args, **kwargs)
        return
    try:
        _replace(lambda file: original(obj, file, *args, **kwargs), target, size, mode)
    except OSError as error:
        if error.errno not in _CANNOT_REPLACE:
            raise
        # A bind-mounted file, a folder that may not be written, a name of 250 bytes: as it was without Outlast.
        if HOME_VARIABLE in os.environ:
            from_environment(target.parent).write("not_guarded", path=str(target), reason=durable.why_not(error))
        original(obj, path, *args, **kwargs)


def _mode_of(path: Path) -> int | None:
    try:
        return os.stat(path).st_mode
    except OSError:
        return None


def _replace(
    write: Callable[[ReservedFile], None],
    target: Path,
    size: int,
    mode: int | None,
    *,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Write beside the target and rename over it; on a full volume wait for room, the old file untouched."""
    journal = from_environment(target.parent) if HOME_VARIABLE in os.environ else None
    _sweep_dead_parts(target)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    tries = 0
    while True:
        file = None
        try:
            if not _has_room(part.parent, size):
                # A declared budget, which the file system knows nothing of.
                raise OSError(errno.ENOSPC, "no room within the volume or the declared budget")
            _reserve(part, size)
            file = ReservedFile(part)
            write(file)
            file.close()
            if file.error:
                raise file.error  # a pickler that swallowed it: what it wrote has a hole
            if mode is not None:
                part.chmod(stat.S_IMODE(mode))
            durable.sync_file(part)
            durable.replace(part, target)
            _count(target, size, journal)
            return
        except BaseException as error:
            if file is not None:
                with suppress(OSError):
                    file.close()
            with suppress(OSError):
                part.unlink()
            tries += 1
            if not (is_full(file.error if file else None) or is_full(error)):
                raise
            _make_room(target, size, tries, error, journal, wait)


_counts: dict[Path, tuple[int, float]] = {}


def _count(target: Path, size: int, journal: Journal | None) -> None:
    """Journal the first save to a path, and then not more than one in ten seconds: some loops save each step."""
    count, told = _counts.get(target, (0, float("-inf")))
    now = time.monotonic()
    if journal and now - told >= _TELL_EVERY:
        journal.write("file_saved", path=str(target), bytes=size, count=count + 1)
        told = now
    _counts[target] = (count + 1, told)


def _reserve(part: Path, size: int) -> None:
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        durable.allocate(fd, int(size * 1.01) + 4096)
    finally:
        os.close(fd)


def _make_room(
    target: Path,
    size: int,
    tries: int,
    error: BaseException,
    journal: Journal | None,
    wait: Callable[[float], None],
) -> None:
    """The ladder for a file that is the user's own: the ballast, then a pause. Nothing of theirs is deleted."""
    policy = Policy.from_environment()
    if 3 not in policy.forbid and _swept(target, int(size * 1.01) + _SLACK, policy, journal):
        return
    home = Path(os.environ.get(HOME_VARIABLE, target.parent))
    freed = 0 if 8 in policy.forbid else durable.Ballast(home / FOLDER / "ballast").release()
    if journal:
        journal.write("save_failed", name=str(target), cause="full", attempt=tries, message=str(error)[:300])
        if freed:
            journal.write(
                "rung", number=8, action="release_ballast", name="ballast", why="the last reserve", frees_bytes=freed
            )
    if freed or tries < 2:
        return
    need = int(size * 1.01) + _SLACK
    why = f"{target} needs {show_bytes(need)} beside the old file, which is kept until the new one is whole"
    if 9 in policy.forbid or tries > _TRIES * 1000:
        raise NoRoom(why, hint="free some space on that volume, or save to another one") from error
    if journal:
        journal.write("paused", name=str(target), why=why, short_bytes=need)
    say(f"training is paused: {why}", "free some space there; it goes on by itself")
    # A quota that free space does not show: again, but not without a breath.
    wait(min(_LONGEST_BREATH, max(0, tries - _TRIES)))
    while not _has_room(target.parent, need):
        wait(1.0)
    if journal:
        journal.write("continued", name=str(target))


def _swept(target: Path, need: int, policy: Policy, journal: Journal | None) -> bool:
    """Rung 3: what caches on the volume can give, as far as it is needed. True when something was removed."""
    reclaim = Reclaim(policy.reclaim, journal or from_environment(target.parent))
    has_taken = False
    for name, size in reclaim.offers(target.parent).items():
        if _has_room(target.parent, need):
            break
        if journal:
            journal.write(
                "rung", number=3, action="sweep_cache", name=name, why="it can be made again", frees_bytes=size
            )
        reclaim.take(name)
        has_taken = True
    return has_taken


def _has_room(folder: Path, need: int) -> bool:
    free = room(folder).free_bytes
    return free is None or free >= need


def _sweep_dead_parts(target: Path) -> None:
    """Remove what a killed process left of this very file."""
    for part in target.parent.glob(f".{_escaped(target.name)}.*.part"):
        pid = part.name.rsplit(".", 2)[1]
        if pid.isdigit() and int(pid) != os.getpid() and not Path("/proc", pid).exists():
            with suppress(OSError):
                part.unlink()


def _escaped(name: str) -> str:
    import glob

    return glob.escape(name)
