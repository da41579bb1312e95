"""Classify the sentences of legal documents with BERT, on a machine that may run out of disk, memory or time.

    python train.py --data documents                         a folder of JSON, JSON lines or CSV
    python train.py --config config.yaml --preset ultra-low --deadline 9h
    python train.py --licences documents                     writes documents to try it with

The same command goes on where the last one stopped, however it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from legal import licences, settings
from legal.keys import KEYS, SWITCH
from outlast.errors import OutlastError


def parser() -> argparse.ArgumentParser:
    """One flag for each key of the configuration, from the same table."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, argument_default=argparse.SUPPRESS
    )
    made.add_argument("--config", type=Path, help="YAML or JSON with the keys below, and memory_config, preset")
    made.add_argument("--preset", metavar="NAME", help=", ".join(settings.presets()))
    made.add_argument("--licences", type=Path, metavar="FOLDER", help="write the system's licences there, as documents")
    keys = made.add_argument_group("keys, also of the configuration")
    for key in KEYS:
        flag = "--" + key.name.replace("_", "-")
        said = key.meaning + (f" (default: {key.default})" if key.default is not None else "")
        if key.kind is SWITCH:
            keys.add_argument(flag, action=argparse.BooleanOptionalAction, help=said)
        else:
            keys.add_argument(flag, metavar="X", help=said)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Train and report; 0 when it came to its end or left in time, 2 for what cannot be done."""
    said = vars(parser().parse_args(arguments))
    config, preset, folder = (said.pop(name, None) for name in ("config", "preset", "licences"))
    try:
        if folder is not None:
            print(f"{licences.write(folder)} sentences of {len(licences.LICENCES)} licences are in {folder}")
            return 0
        settled = settings.settle(settings.load(config) if config else {}, preset_name=preset, flags=said)
        print(settled.shown(), flush=True)
        # Here, so that --help and a wrong word in the configuration need not wait for torch.
        import outlast
        from legal import report, training

        try:
            done = training.train(settled)
        except outlast.Stopped as stopped:
            print(f"legal: {stopped}; the same command goes on from there", flush=True)
            raise
        print("\n" + report.table(report.write(done)))
        print(f"\n{settled['out']}/report.md has each class and the confusion matrix, {settled['out']}/best the model")
    except OutlastError as error:
        print(f"legal: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
