"""recipes/legal/train.py as it is, on a machine that gets slow or small; the arguments after -- are its own.

Usage: legal_train.py [--pause SECONDS] [--room MIB] -- ARGUMENTS
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import sklearn.linear_model  # noqa: F401 (its libraries are mapped before memory is short)
import torch

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "legal"
parser = argparse.ArgumentParser()
parser.add_argument("--pause", type=float, default=0.0, help="seconds that each step lasts longer")
parser.add_argument("--room", type=int, help="from step 2 on the process may take so many MiB more than it has")
own = sys.argv[1 : sys.argv.index("--")]
options = parser.parse_args(own)
sys.path.insert(0, str(RECIPE))
torch.set_num_threads(1)
moved = 0
move = torch.optim.AdamW.step


def slow(self, *arguments, **more):
    global moved
    result = move(self, *arguments, **more)
    moved += 1
    time.sleep(options.pause)
    if moved == 2 and options.room:
        has_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = has_bytes + options.room * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    return result


def roomy(*arguments):
    # Its solver was seen to spin in the kernel for want of memory. The promise is about training, which is over here.
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return learn(*arguments)


torch.optim.AdamW.step = slow
import train  # noqa: E402 (the recipe's program)
from legal import baselines  # noqa: E402

learn, baselines.tf_idf = baselines.tf_idf, roomy

sys.exit(train.main(sys.argv[len(own) + 2 :]))
