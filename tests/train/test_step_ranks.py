"""A step in several processes (DistributedDataParallel): each splits its own part, the gradient is that of all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys
from datetime import timedelta
import torch, torch.distributed as dist
sys.path.insert(0, sys.argv[3])
from tests.train.short_memory import Short
import outlast

rank, place = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2,
                        timeout=timedelta(seconds=60))
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def build(room, where, name, wrap=torch.nn.parallel.DistributedDataParallel):
    torch.manual_seed(0)
    short = Short(room, where)
    layers = [torch.nn.Linear(4, 8), short, torch.nn.Tanh(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 1)]
    model = torch.nn.Sequential(*layers)
    model.register_buffer("sent_by_rank_0", torch.zeros(3))
    model = wrap(model) if wrap else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    return model, short, outlast.Run(f"{place}/{name}-{rank}", model=model, optimizer=optimizer, every=None)


def train(room, where, name):
    model, short, run = build(room, where, name)
    for number in range(12):
        now[0] = number
        # Each rank has samples of its own, and another number of features' worth at times: a new size.
        data = torch.randn(8 + number % 3, 4, generator=torch.Generator().manual_seed(10 * number + rank))
        run.step(data, lambda x: (model(x) - x.sum(1, keepdim=True)).pow(2).mean())
    return torch.cat([p.detach().flatten() for p in model.parameters()]), short


now = [0]
whole, _ = train(lambda: 100, "forward", "whole")
story = {}
for where in ("forward", "backward"):
    # Only rank 1 runs out. At step 4 with a size that had gone through, in the forward that ends in the all-reduce; at
    # step 2 with a new size, which takes no part in it; at step 9 in pieces that had gone through.
    steps = {4: 3, 5: 3, 9: 1} if where == "forward" else {2: 3, 3: 3, 9: 1}
    room = lambda: steps.get(now[0], 100) if rank == 1 else 100
    split, short = train(room, where, where)
    assert float(whole.norm()) < 10
    both = [torch.zeros_like(split) for _ in range(2)]
    dist.all_gather(both, split)
    story[where] = [float((split - whole).abs().max()), bool(torch.equal(*both)), short.failed]

# Without DistributedDataParallel nobody knows what the other rank is waiting for.
model, short, run = build(lambda: 3, "forward", "other", wrap=None)
try:
    run.step(torch.randn(8, 4), lambda x: model(x).mean())
except torch.OutOfMemoryError as error:
    story["other"] = error.__notes__
print(json.dumps(story))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes met; they are started once for all tests."""
    place, root = tmp_path_factory.mktemp("ranks"), str(Path(__file__).parents[2])
    children = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(rank), place, root], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    return [json.loads(child.communicate(timeout=120)[0]) for child in children]


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_one_rank_that_runs_out_leaves_the_weights_as_if_none_had(stories: list[dict[str, Any]], where: str) -> None:
    for rank, story in enumerate(stories):
        far, are_equal, failed = story[where]
        assert far < 1e-12 and are_equal and (failed > 0) == (rank == 1)


def test_a_model_that_others_compute_too_is_not_split_and_the_error_says_why(stories: list[dict[str, Any]]) -> None:
    for story in stories:
        assert story["other"] == [
            "outlast: several processes compute this model's forward together; one alone cannot repeat it in pieces"
        ]
