"""A training loop without torch that saves through Outlast's Saver; its bytes follow from the seed and the step.

Usage: driver.py ROOT [--seed S] [--saves N] [--weights KB] [--optimizer KB] [--keep RULES] [--keep-exact] [--home DIR]
       [--fill-at N --filler FILE] [--count] [--refuse-fsync N] [--refuse-close N]

Prints ``sealed STEP``, ``settled STEP`` and, with --count, ``tick N WHAT`` for each moment that --fill-at can name.
"""

import argparse
import errno
import fcntl
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from outlast import durable
from outlast.checkpoints import Draft, Keep, Needs, Policy, Saver, Stage, Vault
from outlast.checkpoints import save as saving
from outlast.integrations.staged import reserved_file
from outlast.journal import Journal

EVERY = 10
FILL = Path(__file__).with_name("fill.py")


def content(seed: int, step: int, name: str, size: int) -> bytes:
    """What a file of a step holds: a safetensors file of one tensor where the name says so, else random bytes."""
    data = random.Random(f"{seed}/{step}/{name}").randbytes(size)
    if not name.endswith(".safetensors"):
        return data
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def pieces(data: bytes, dice: random.Random) -> Iterator[bytes]:
    """Cut into pieces of odd lengths, as frameworks write."""
    start = 0
    while start < len(data):
        length = dice.choice((len(data), 300_000, 77_777, 4096, 1))
        yield data[start : start + length]
        start += length


class Ticks:
    """Counts the moments of a save; at one of them another process fills the volume."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.count = 0

    def __call__(self, what: str) -> None:
        self.count += 1
        if self.options.count:
            print("tick", self.count, what, flush=True)
        if self.count == self.options.fill_at:
            subprocess.run([sys.executable, "-S", FILL, self.options.filler], check=True)
            print("filled", what, flush=True)

    def refuse(self, owner: object, name: str, times: int) -> None:
        """Let the first calls of a function fail as on a used-up quota."""
        original = getattr(owner, name)
        left = [times]

        def refusing(*args: object, **kwargs: object) -> object:
            if left[0]:
                left[0] -= 1
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            return original(*args, **kwargs)

        setattr(owner, name, refusing)

    def before(self, owner: object, name: str) -> None:
        """Tick each time that a function of Outlast's is called."""
        original = getattr(owner, name)

        def ticking(*args: object, **kwargs: object) -> object:
            self(name)
            return original(*args, **kwargs)

        setattr(owner, name, ticking)


def refuse_at_close(times: int) -> None:
    """Let closing a staged file report a used-up quota, as NFS does: the file is closed all the same."""
    original = os.close
    left = [times]

    def close(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}") if left[0] else ""
        is_written = bool(path) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        original(fd)
        if is_written and "/stage/" in path:
            left[0] -= 1
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    os.close = close


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--saves", type=int, default=10**6)
    parser.add_argument("--weights", type=int, default=400)
    parser.add_argument("--optimizer", type=int, default=800)
    parser.add_argument("--keep", default="last=3")
    parser.add_argument("--keep-exact", action="store_true")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--fill-at", type=int, default=0)
    parser.add_argument("--filler")
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--refuse-fsync", type=int, default=0)
    parser.add_argument("--refuse-close", type=int, default=0)
    options = parser.parse_args()
    tick = Ticks(options)
    for owner, name in (
        (saving.seals, "write"),
        (durable, "replace"),
        (durable, "into_trash"),
        (durable, "remove_tree"),
    ):
        tick.before(owner, name)
    tick.refuse(durable, "sync_file", options.refuse_fsync)
    refuse_at_close(options.refuse_close)
    sizes = {"model.safetensors": options.weights << 10, "optimizer.bytes": options.optimizer << 10}
    journal = Journal(options.home) if options.home else None
    vault = Vault(options.root, journal=journal)
    saver = Saver(vault, Policy(Keep.parse(options.keep), options.keep_exact), lineage=f"seed-{options.seed}")
    vault.recover()
    choice = vault.take(keep_exact=options.keep_exact)
    step = choice.checkpoint.step if choice else 0
    dice = random.Random(f"{options.seed}/{step}")
    print("started at", step, flush=True)
    os.access("/outlast-the-loop-starts", os.F_OK)  # seen in a system-call trace

    def write(stage: Stage) -> Draft:
        tick("stage")
        for name, size in sizes.items():
            if name == "optimizer.bytes" and stage.kind == "light":
                continue
            data = content(options.seed, step, name, size)
            with reserved_file(stage, stage.path / name, len(data)) as file:
                for piece in pieces(data, dice):
                    file.write(piece)
                    tick(name)
        (stage.path / "light.bytes").write_bytes(content(options.seed, step, "light.bytes", 5000))
        # As transformers writes its state: on a full volume this leaves an empty file and raises nothing.
        with open(stage.path / "trainer_state.json", "w") as file:
            json.dump({"global_step": step, "log": list(range(2000))}, file)
        tick("written")
        without = {"full": (), "light": ("optimizer.bytes",)} if stage.kind == "full" else {"light": ()}
        return Draft("driver", without, {"loss": 1.0 / step})

    files = {"full": tuple(sizes.values()), "light": (sizes["model.safetensors"],)}
    for _ in range(options.saves):
        step += EVERY
        tick("save")
        checkpoint = saver.save(f"checkpoint-{step}", step, Needs(files, 32 * 1024), write)
        print("sealed", step, flush=True)
        if dice.random() < 0.3:
            # A user's callback adds a file after the seal; on a full volume it fails, which is theirs to see to.
            with suppress(OSError):
                (checkpoint.path / "callback.txt").write_text("added by a callback\n")
        tick("settle")
        saver.settle(checkpoint)
        print("settled", step, flush=True)
    os.access("/outlast-the-loop-ends", os.F_OK)


if __name__ == "__main__":
    main()
