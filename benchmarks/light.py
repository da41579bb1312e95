"""How far does a run stray after resuming from a light checkpoint, from bare weights, and as plain Trainer resumes?

A GPT-2 of 7.4 million parameters (vocabulary 8192, untied) is trained with AdamW on the Python library's own sources
for 200 steps, under a schedule that warms up for 20 and falls to zero at step 1000 (``--total``). From there 100 steps
more, on the same batches, five ways:

* uninterrupted;
* full: weights, both moments, schedule;
* light: `outlast.checkpoints.codec`: weights, the first moment's signs, the second's row and column means, schedule;
* bare: weights and a fresh optimizer, the schedule continued;
* restarted: weights, a fresh optimizer and a fresh schedule, as plain Trainer resumes a folder without optimizer.pt.

Every state goes through real files, whose bytes are in the table. Straying is |loss - uninterrupted loss| of the same
batch, its mean and its most over the 100 steps. With several seeds (model, batches) the figures are means over them,
and "light / bare" is given for each.

    python benchmarks/light.py                    # 3 seeds, about 10 minutes on one core
    python benchmarks/light.py --seeds 1 --before 50 --after 25
"""

from __future__ import annotations

import argparse
import collections
import random
import re
import statistics
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from outlast.checkpoints import codec

VOCABULARY, LENGTH, BATCH, PEAK, WARM = 8192, 64, 8, 1e-3, 20
WAYS = ("uninterrupted", "full", "light", "bare", "restarted")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way of going on."""

    bytes: int
    """Of the files that it resumed from."""
    rate: float
    """Learning rate at the first step after the resume."""
    step: int
    """Steps that the optimizer had counted before it; 0 when it is fresh."""
    losses: tuple[float, ...]
    """Of each step after the resume."""
    validation: float
    """Final loss on held-out text."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--before", type=int, default=200, help="steps before the checkpoint (default: 200)")
    parser.add_argument("--total", type=int, default=1000, help="steps that the schedule is made for (default: 1000)")
    parser.add_argument("--after", type=int, default=100, help="steps after it (default: 100)")
    options = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)  # the figures are then the same on every machine, and threads of other work cost less
    text = _tokens()
    runs = []
    for seed in range(options.seeds):
        runs.append(_all_ways(text, seed, options))
        print(f"seed {seed + 1}/{options.seeds}", file=sys.stderr)
    _print(runs, options)


def _tokens() -> torch.Tensor:
    """The library's sources as numbers of their 8191 most frequent words, blanks and signs; 0 is any other."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py"))
    random.Random(0).shuffle(files)
    words = re.findall(r"\w+|\s+|[^\w\s]", "\n".join(path.read_text(errors="replace") for path in files))
    frequent = {word: n + 1 for n, (word, _) in enumerate(collections.Counter(words).most_common(VOCABULARY - 1))}
    return torch.tensor([frequent.get(word, 0) for word in words])


class Training:
    """A model, its optimizer and schedule; batches are a function of seed and step."""

    def __init__(self, text: torch.Tensor, seed: int, total: int) -> None:
        self.text, self.seed = text, seed
        self.held_out = len(text) * 9 // 10
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=256, n_layer=4, n_head=4, tie_word_embeddings=False,
            bos_token_id=None, eos_token_id=None, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
        )  # fmt: skip
        self.model = GPT2LMHeadModel(config)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=PEAK, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / WARM, max(0.0, (total - step) / (total - WARM)))
        )

    def train(self, start: int, end: int) -> list[float]:
        """Steps from ``start`` to ``end``; their losses."""
        losses = []
        for step in range(start, end):
            batch = self._batch(random.Random(self.seed * 10**6 + step), 0, self.held_out)
            loss = self.model(input_ids=batch, labels=batch).loss
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            losses.append(loss.item())
        return losses

    def _batch(self, order: random.Random, start: int, end: int) -> torch.Tensor:
        places = [order.randrange(start, end - LENGTH) for _ in range(BATCH)]
        return torch.stack([self.text[place : place + LENGTH] for place in places])

    @torch.no_grad()
    def validation(self) -> float:
        """Mean loss over 32 batches of the held-out tenth."""
        order = random.Random(1)
        batches = [self._batch(order, self.held_out, len(self.text)) for _ in range(32)]
        return statistics.fmean(self.model(input_ids=batch, labels=batch).loss.item() for batch in batches)


def _all_ways(text: torch.Tensor, seed: int, options: argparse.Namespace) -> dict[str, Outcome]:
    before, end = options.before, options.before + options.after
    found = {}
    with tempfile.TemporaryDirectory(prefix="outlast-light-") as name:
        folder = Path(name)
        first = Training(text, seed, options.total)
        first.train(0, before)
        _save(folder, first)
        for way in WAYS:
            training = first if way == "uninterrupted" else Training(text, seed, options.total)
            size = 0 if way == "uninterrupted" else _resume(folder, training, way)
            rate = training.schedule.get_last_lr()[0]
            step = max((int(slots["step"]) for slots in training.optimizer.state.values()), default=0)
            losses = tuple(training.train(before, end))
            found[way] = Outcome(size, rate, step, losses, training.validation())
    return found


def _save(folder: Path, training: Training) -> None:
    state = training.optimizer.state_dict()
    light = codec.to_light(state)
    assert light is not None
    safetensors.torch.save_model(training.model, str(folder / "model.safetensors"))
    torch.save(state, folder / "optimizer.pt")
    torch.save(training.schedule.state_dict(), folder / "scheduler.pt")
    tensors, metadata = codec.pack({"optimizer": light})
    safetensors.torch.save_file(tensors, folder / codec.SIDECAR, metadata=metadata)


def _resume(folder: Path, training: Training, way: str) -> int:
    """Load what this way of resuming has; returns the bytes of its files."""
    files = {"full": ["optimizer.pt", "scheduler.pt"], "light": [codec.SIDECAR, "scheduler.pt"], "bare": [],
             "restarted": []}[way]  # fmt: skip
    safetensors.torch.load_model(training.model, str(folder / "model.safetensors"))
    if way == "full":
        training.optimizer.load_state_dict(torch.load(folder / "optimizer.pt"))
    if way == "light":
        training.optimizer.load_state_dict(codec.from_light(codec.unpack(folder / codec.SIDECAR)["optimizer"]))
    if way != "restarted":
        training.schedule.load_state_dict(torch.load(folder / "scheduler.pt"))
        for group, rate in zip(training.optimizer.param_groups, training.schedule.get_last_lr(), strict=True):
            group["lr"] = rate
    return sum((folder / name).stat().st_size for name in ["model.safetensors", *files])


def _print(runs: list[dict[str, Outcome]], options: argparse.Namespace) -> None:
    def mean(way: str, figure: Any) -> float:
        return statistics.fmean(figure(run[way], run["uninterrupted"]) for run in runs)

    def gaps(one: Outcome, other: Outcome) -> list[float]:
        return [abs(a - b) for a, b in zip(one.losses, other.losses, strict=True)]

    full = mean("full", lambda one, other: one.bytes)
    validation = mean("uninterrupted", lambda one, other: one.validation)
    print(f"{options.before} steps of {options.total}, then {options.after}; means over {len(runs)} seeds")
    print(f"final validation loss {validation:.4f} uninterrupted")
    print(f"{'resumed from':<14}{'bytes':>12}{'%':>5}{'lr':>11}{'step':>6}{'strays':>10}{'most':>9}{'val change':>12}")
    for way in WAYS:
        size = mean(way, lambda one, other: one.bytes)
        rate = mean(way, lambda one, other: one.rate)
        strays = mean(way, lambda one, other: statistics.fmean(gaps(one, other)))
        most = mean(way, lambda one, other: max(gaps(one, other)))
        change = mean(way, lambda one, other: one.validation - other.validation)
        print(
            f"{way:<14}{f'{size:,.0f}' if size else '-':>12}{f'{100 * size / full:.0f}' if size else '-':>5}"
            f"{rate:>11.3e}{runs[0][way].step:>6}{strays:>10.5f}{most:>9.4f}{change:>+12.4f}"
        )
    ratios = []
    for run in runs:
        light, bare = (statistics.fmean(gaps(run[way], run["uninterrupted"])) for way in ("light", "bare"))
        ratios.append(light / bare)
    verdict = "met" if max(ratios) <= 1 / 3 else "MISSED"
    print(f"light / bare: {', '.join(f'{ratio:.3f}' for ratio in ratios)} (at most 0.333: {verdict})")


if __name__ == "__main__":
    main()
