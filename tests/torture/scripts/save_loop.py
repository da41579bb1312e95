"""A raw loop as small GPT trainers have it: knows nothing of Outlast, saves to one fixed path with torch.save.

Usage: save_loop.py PATH [--saves N] [--kb SIZE]. Prints ``saved N`` after each save; --fast loops until killed.
"""

import argparse

import torch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--saves", type=int, default=10**9)
    parser.add_argument("--kb", type=int, default=600)
    options = parser.parse_args()
    step = 0
    print("started", flush=True)
    while step < options.saves:
        step += 1
        weights = torch.full((options.kb, 256), float(step))
        torch.save({"step": step, "model": {"w": weights}, "note": "x" * 1000}, options.path)
        print("saved", step, flush=True)


if __name__ == "__main__":
    main()
