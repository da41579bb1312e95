"""How fast is a sealed, durable save? Outlast beside its peers, in one process, in rounds.

State: a GPT-2 of random weights with AdamW's two moments, 1 GiB in all (``--mib``). Every round runs each writer once,
in an order that is drawn anew; before each save the disk is synced and the last save deleted. A save's
time ends when its bytes are durable (fsync), except for "Trainer (as it is)", which does not make them so. Outlast's
time has everything in it: admission, reservation, writing, fsync, BLAKE3 of every file, seal, rename, retention.

"CPU s" is what the process used, all threads; it moves less than the rest when the machine has other work.
Ratios to a peer are medians over rounds of (peer's seconds / ours) in the same round, with their quartiles.

    python benchmarks/save.py                     # 1 GiB, 7 rounds, on the disk of the current folder
    python benchmarks/save.py --mib 256 --rounds 15 --dir /mnt/scratch
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from transformers.utils import logging

from outlast.checkpoints import Draft, Keep, Needs, Policy, Saver, Stage, Vault
from outlast.integrations import staged
from outlast.integrations.transformers import OutlastCallback

WIDTH = 1024
Writer = Callable[[Path], None]


def main() -> None:
    options = _options()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, optimizer, schedule = _training(options.mib)
    tensors = dict(_tensors(model, optimizer))
    size = sum(tensor.nbytes for tensor in tensors.values())
    folder = Path(tempfile.mkdtemp(prefix="outlast-save-", dir=options.dir))
    try:
        writers = _writers(folder, model, optimizer, schedule, tensors, size)
        seconds: dict[str, list[float]] = {name: [] for name in writers}
        cpu: dict[str, list[float]] = {name: [] for name in writers}
        names, order = list(writers), random.Random(0)
        for number in range(-options.warm, options.rounds):
            for name in order.sample(names, len(names)):
                wall, used = _timed(writers[name], folder / "save")
                if number >= 0:
                    seconds[name].append(wall)
                    cpu[name].append(used)
            print(f"round {number + 1}/{options.rounds}", file=sys.stderr)
        _print(seconds, cpu, size, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="state in MiB (default: 1024)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default: 7)")
    parser.add_argument("--warm", type=int, default=1, help="rounds before them that do not (default: 1)")
    parser.add_argument("--dir", type=Path, default=Path(), help="where to write (default: here; not a tmpfs)")
    return parser.parse_args()


def _training(mib: int) -> tuple[Any, Any, Any]:
    """A GPT-2 whose weights and two moments take ``mib`` MiB, with the optimizer's state filled by hand."""
    parameters = mib * 2**20 // 12
    layers = max(1, (parameters * 9 // 10) // (12 * WIDTH * WIDTH))
    vocabulary = max(256, (parameters - layers * 12 * WIDTH * WIDTH) // WIDTH)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=vocabulary, n_positions=64, n_embd=WIDTH, n_layer=layers, n_head=16)
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for parameter in model.parameters():
        moments = {"exp_avg": torch.randn_like(parameter) * 1e-3, "exp_avg_sq": torch.rand_like(parameter) * 1e-6}
        optimizer.state[parameter] = {"step": torch.tensor(100.0), **moments}
    return model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def _tensors(model: Any, optimizer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        yield name, parameter.data
        for key in ("exp_avg", "exp_avg_sq"):
            yield f"{name}.{key}", optimizer.state[parameter][key]


def _writers(folder: Path, model: Any, optimizer: Any, schedule: Any, tensors: Any, size: int) -> dict[str, Writer]:
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith(("exp_avg", "exp_avg_sq"))}
    state = {"model": weights, "optimizer": optimizer.state_dict()}

    def trainer(*callbacks: Any) -> Any:
        arguments = TrainingArguments(str(folder / "save"), use_cpu=True, report_to=[], save_total_limit=2)
        made = Trainer(model, arguments, optimizers=(optimizer, schedule), callbacks=list(callbacks))
        made.state.global_step = 100
        return made

    plain, guarded = trainer(), trainer(OutlastCallback())

    def torch_save(path: Path) -> None:
        torch.save(state, path / "state.pt")
        _sync(path)

    def save_file(path: Path) -> None:
        safetensors.torch.save_file(tensors, path / "state.safetensors")
        _sync(path)

    def trainer_as_is(path: Path) -> None:
        plain._save_checkpoint(model, None)

    def trainer_synced(path: Path) -> None:
        plain._save_checkpoint(model, None)
        _sync(path)

    def distributed(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcp.save(state, checkpoint_id=str(path / "dcp"), no_dist=True)
        _sync(path)  # it fsyncs its data; the folder is ours to do

    def outlast_trainer(path: Path) -> None:
        guarded._save_checkpoint(model, None)
        guarded.callback_handler.on_save(guarded.args, guarded.state, guarded.control)

    def outlast_saver(path: Path) -> None:
        saver = Saver(Vault(path), Policy(keep=Keep(last=2)))

        def write(stage: Stage) -> Draft:
            with staged.staging(stage):
                safetensors.torch.save_file(tensors, stage.path / "state.safetensors")
            return Draft("outlast", {"full": ()})

        saver.settle(saver.save("checkpoint-100", 100, Needs({"full": (size,)}, 4096), write))

    found: dict[str, Writer] = {
        "torch.save + fsync": torch_save,
        "safetensors + fsync": save_file,
        "Trainer (as it is)": trainer_as_is,
        "Trainer + fsync": trainer_synced,
        "DCP": distributed,
        "Outlast, safetensors": outlast_saver,
        "Outlast, Trainer": outlast_trainer,
    }
    if run := _own_run(model, optimizer, schedule):
        found["Outlast, Run"] = run
    return found


def _own_run(model: Any, optimizer: Any, schedule: Any) -> Writer | None:
    """`outlast.Run` with the same state, where this Outlast has it."""
    import outlast

    if not hasattr(outlast, "Run"):
        return None

    def write(path: Path) -> None:
        run = outlast.Run(path, keep=Keep(last=2), model=model, optimizer=optimizer, scheduler=schedule)
        run.checkpoint(now=True)

    return write


def _sync(folder: Path) -> None:
    """Make every file and folder below durable."""
    for place, _, names in os.walk(folder, topdown=False):
        for path in [Path(place, name) for name in names] + [Path(place)]:
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)


@contextmanager
def _torch_as_it_is() -> Iterator[None]:
    """Outlast guards torch.save once a guarded save has run in a process; the peers get the real one back."""
    real = torch.serialization.save
    try:
        yield
    finally:
        torch.serialization.save = torch.save = real


def _timed(write: Writer, path: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one save."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    os.sync()
    time.sleep(0.2)
    with _torch_as_it_is():
        start, cpu = time.perf_counter(), time.process_time()
        write(path)
        return time.perf_counter() - start, time.process_time() - cpu


def _print(
    seconds: dict[str, list[float]], cpu: dict[str, list[float]], size: int, options: argparse.Namespace
) -> None:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    durable = [name for name in seconds if not name.startswith("Outlast") and "as it is" not in name]
    best = min(durable, key=median.__getitem__)
    print(f"{size / 2**20:.0f} MiB of state, {options.rounds} rounds, {options.dir.absolute()}")
    head = f"{'writer':<22}{'durable':<9}{'sealed':<8}{'median s':>9}{'least s':>9}{'CPU s':>7}{'MB/s':>7}"
    print(f"{head}  speed against {best}")
    for name, values in sorted(seconds.items(), key=lambda pair: median[pair[0]]):
        ours = name.startswith("Outlast")
        ratios = sorted(other / value for other, value in zip(seconds[best], values, strict=True))
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        used = statistics.median(cpu[name])
        print(
            f"{name:<22}{'no' if 'as it is' in name else 'yes':<9}{'yes' if ours else 'no':<8}"
            f"{median[name]:>9.3f}{min(values):>9.3f}{used:>7.2f}{size / median[name] / 1e6:>7.0f}"
            f"  {statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
