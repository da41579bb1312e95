"""Does `outlast run` slow down a training step? One unmodified script with and without it, in paired rounds.

Each of ``--starts`` starts `step_loop.py` (a Transformers Trainer, 1.1 million parameters) three times: plain, plain
once more, and under `outlast run`. They take turns, a few steps each in an order drawn anew. A step's time is from its
turn to the moment when it is ready for the next one: data, forward, backward, optimizer, callbacks; its CPU time is
what the script's process used meanwhile, which other work on the machine disturbs less. A round is a window of steps,
its figure the median of them, a pair's ratio guarded / plain of the same round; "plain again / plain" shows what the
machine's own noise looks like. The interval of the median ratio is the sign test's (order statistics, at least 95 %).

What the supervisor does beside the script hits whoever's turn it is, so it is measured apart: its CPU time, as a part
of one core.

A second part saves every few steps: the steps without a save are compared in the same way, and what a save adds to a
step is given apart (Trainer's is not durable; Outlast's is, and sealed).

A third part is `outlast.Run.step` in a loop of one's own, where memory never runs out, beside the same loop in plain
torch: models of one process, which take turns in the same way ("guarded" is `run.step`). What it adds does not depend
on the model, so it is measured with a tiny one too, where it stands out of the noise.

    python benchmarks/step.py                     # 20 rounds of each part, about 6 minutes
    python benchmarks/step.py --rounds 6 --starts 2
    python benchmarks/step.py --only own          # the third part alone
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ARMS = ("plain", "plain again", "guarded")
BLOCK, WARM = 4, 8
Round = dict[str, list[tuple[int, tuple[float, float]]]]
"""For each arm its steps: number, then wall and CPU seconds."""
LOOP = Path(__file__).with_name("step_loop.py")


class Process:
    """One running script, stopped except in its turn."""

    def __init__(self, arm: str, folder: Path, steps: int, save: int) -> None:
        folder.mkdir()
        ready, turn = folder / "ready", folder / "turn"
        os.mkfifo(ready)
        os.mkfifo(turn)
        words = [sys.executable, str(LOOP), str(folder / "out"), str(ready), str(turn), str(steps), str(save)]
        if arm == "guarded":
            words = [str(Path(sys.executable).parent / "outlast"), "run", "--dir", str(folder), "--", *words]
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        # Both ends, so that neither open waits for a script that died before it came so far.
        self.ready = os.open(ready, os.O_RDWR | os.O_NONBLOCK)
        self.turn = os.open(turn, os.O_RDWR)
        self.seconds: list[tuple[float, float]] = []
        """Wall and CPU time of each step."""
        self.cpu = self.wait_ready()

    def wait_ready(self) -> float:
        """Wait until the script has done its step; its CPU seconds so far."""
        while True:
            try:
                return struct.unpack("d", os.read(self.ready, 8))[0]
            except BlockingIOError:
                if self.process.poll() is not None:
                    raise SystemExit(f"{self.process.args} died:\n{self.process.communicate()[1]}") from None
                time.sleep(0.0002)

    def take_steps(self, count: int) -> None:
        """Its turn."""
        for _ in range(count):
            start = time.perf_counter()
            os.write(self.turn, b"t")
            cpu = self.wait_ready()
            self.seconds.append((time.perf_counter() - start, cpu - self.cpu))
            self.cpu = cpu

    def cpu_seconds(self) -> float:
        """CPU time of all threads of the process that was started: the supervisor, where there is one."""
        tasks = Path("/proc", str(self.process.pid), "task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def end(self) -> None:
        """Let it finish; it has no steps left."""
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait()
        finally:
            self.process.stderr.close()
            os.close(self.ready)
            os.close(self.turn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="paired rounds of each part (default: 20)")
    parser.add_argument("--starts", type=int, default=5, help="spread over so many starts of the script (default: 5)")
    parser.add_argument("--steps", type=int, default=24, help="steps a round and process (default: 24)")
    parser.add_argument("--save", type=int, default=12, help="in the second part, save every so many (default: 12)")
    parser.add_argument("--dir", type=Path, default=Path(), help="where checkpoints are written (default: here)")
    parser.add_argument("--only", choices=("trainer", "own"), help="these parts alone")
    options = parser.parse_args()
    print(f"{options.rounds} rounds of {options.steps} steps in {options.starts} starts; ms, median over rounds")
    head = f"{'':<28}{'plain':>8}{'again':>8}{'guarded':>9}"
    print(f"{head}  {'guarded / plain (95 % interval)':<34}plain again / plain")
    if options.only != "own":
        _trainers(options)
    if options.only != "trainer":
        rounds = _own_loops(options, _gpt2)
        _print("Run.step", [_medians(one, 0, 0) for one in rounds])
        _print("Run.step, CPU", [_medians(one, 0, 1) for one in rounds])
        tiny = [_medians(one, 0, 1) for one in _own_loops(options, _tiny)]
        adds = [1e6 * (one["guarded"] - one["plain"]) for one in tiny]
        print(f"Run.step of a tiny model adds {_interval(adds, 0)} us of CPU time to a step")


def _trainers(options: argparse.Namespace) -> None:
    shares: list[float] = []
    for title, save in (("no saves", 0), (f"saves every {options.save}", options.save)):
        rounds: list[Round] = []
        for number in range(options.starts):
            rounds += _start(options, save, random.Random(number), shares)
            print(f"{title}: start {number + 1}/{options.starts}", file=sys.stderr)
        _print(f"step, {title}", [_medians(one, save, 0) for one in rounds])
        _print(f"step, {title}, CPU", [_medians(one, save, 1) for one in rounds])
        if save:
            _print("what a save adds", [_medians(one, save, 0, saves=True) for one in rounds])
    print(f"the supervisor takes {100 * statistics.median(shares):.2f} % of one core")


def _start(options: argparse.Namespace, save: int, order: random.Random, shares: list[float]) -> list[Round]:
    """The rounds of one start of all three; adds the supervisor's part of a core to ``shares``."""
    rounds, steps = -(-options.rounds // options.starts), -(-options.steps // BLOCK) * BLOCK
    folder = Path(tempfile.mkdtemp(prefix="outlast-step-", dir=options.dir.absolute()))
    running: dict[str, Process] = {}
    try:
        for arm in order.sample(ARMS, len(ARMS)):
            running[arm] = Process(arm, folder / arm.replace(" ", "-"), WARM + rounds * steps, save)
        cpu, start = running["guarded"].cpu_seconds(), time.perf_counter()
        for _ in range((WARM + rounds * steps) // BLOCK):
            for arm in order.sample(ARMS, len(ARMS)):
                running[arm].take_steps(BLOCK)
        shares.append((running["guarded"].cpu_seconds() - cpu) / (time.perf_counter() - start))
        numbered = {arm: list(enumerate(running[arm].seconds, 1))[WARM:-1] for arm in ARMS}
        return [{arm: numbered[arm][n * steps : (n + 1) * steps] for arm in ARMS} for n in range(rounds)]
    finally:
        for process in running.values():
            process.end()
        shutil.rmtree(folder, ignore_errors=True)


Part = tuple[object, object, Callable[[object], object]]
"""A model, an iterator of batches, and the loss of one."""


def _own_loops(options: argparse.Namespace, make: Callable[[], Part]) -> list[Round]:
    """Rounds of three loops in this process: the same model, the same samples."""
    with tempfile.TemporaryDirectory(prefix="outlast-step-", dir=options.dir.absolute()) as folder:
        loops = {arm: _own_loop(make(), Path(folder) if arm == "guarded" else None) for arm in ARMS}
        order = random.Random(0)
        steps, rounds = -(-options.steps // BLOCK) * BLOCK, []
        for number in range(options.rounds + 1):
            taken: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
            for _ in range(steps // BLOCK):
                for arm in order.sample(ARMS, len(ARMS)):
                    taken[arm] += [_timed(loops[arm]) for _ in range(BLOCK)]
            if number:  # the first one is to get warm
                rounds.append({arm: list(enumerate(taken[arm], 1)) for arm in ARMS})
        return rounds


def _timed(step: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def _own_loop(part: Part, folder: Path | None) -> Callable[[], object]:
    """One step of a loop of one's own: with `outlast.Run` in a folder, or in plain torch."""
    import torch

    import outlast

    torch.set_num_threads(1)
    model, batches, loss_of = part
    optimizer = torch.optim.AdamW(model.parameters())

    def plain() -> object:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(next(batches))
        loss.backward()
        optimizer.step()
        return loss.detach()

    if folder is None:
        return plain
    run = outlast.Run(folder, model=model, optimizer=optimizer)
    return lambda: run.step(next(batches), loss_of)


def _gpt2() -> Part:
    import torch
    from step_loop import Text
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size = {"vocab_size": 256, "n_positions": 128, "n_embd": 132, "n_layer": 5, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=1, eos_token_id=1)).train()
    return model, iter(torch.utils.data.DataLoader(Text(), batch_size=4, shuffle=True)), lambda b: model(**b).loss


def _tiny() -> Part:
    import torch

    model = torch.nn.Linear(4, 1)
    x, y = torch.randn(8, 4), torch.randn(8, 1)
    return model, itertools.repeat((x, y)), lambda b: torch.nn.functional.mse_loss(model(b[0]), b[1])


def _medians(one: Round, save: int, column: int, *, saves: bool = False) -> dict[str, float]:
    """For each arm the median of its steps without a save, or what a save adds to that."""
    found = {}
    for arm, steps in one.items():
        found[arm] = statistics.median(times[column] for number, times in steps if not save or number % save)
        if saves:
            found[arm] = statistics.median(times[column] for number, times in steps if number % save == 0) - found[arm]
    return found


def _print(title: str, rounds: list[dict[str, float]]) -> None:
    medians = [1e3 * statistics.median(one[arm] for one in rounds) for arm in ARMS]
    guarded = _interval([one["guarded"] / one["plain"] for one in rounds])
    again = _interval([one["plain again"] / one["plain"] for one in rounds])
    print(f"{title:<28}{medians[0]:>8.2f}{medians[1]:>8.2f}{medians[2]:>9.2f}  {guarded:<34}{again}", flush=True)


def _interval(ratios: list[float], digits: int = 4) -> str:
    """The median and its interval: the widest pair of order statistics that the sign test leaves at 95 % or more."""
    ordered, count = sorted(ratios), len(ratios)
    tail, rank = 0.0, 0
    while rank < count // 2 and (tail := tail + math.comb(count, rank) / 2**count) <= 0.025:
        rank += 1
    low, high = ordered[max(0, rank - 1)], ordered[min(count - 1, count - rank)]
    return f"{statistics.median(ordered):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main()
