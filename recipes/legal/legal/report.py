"""How well it went: ``report.md`` for people, ``report.json`` for programs, and ``best/``, the model to use."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from legal import baselines
from legal.scores import Scores, score
from legal.training import METRIC, Trained
from outlast import durable

_MODEL, _COMMONEST, _TF_IDF = "this model", "the commonest class", "TF-IDF + logistic regression"


def write(done: Trained) -> dict[str, Any]:
    """Write both reports and the best model.

    Returns:
        What ``report.json`` holds.
    """
    labels, out = done.split.labels, Path(done.settings["out"])
    truth = [labels.index(one.label) for one in done.held_out]
    rows: dict[str, Scores] = {
        _MODEL: score(truth, done.predicted, labels),
        _TF_IDF: score(truth, baselines.tf_idf(done.train, done.held_out, labels), labels),
        _COMMONEST: score(truth, baselines.commonest(done.train, done.held_out, labels), labels),
    }
    report = _document(done, rows)
    _with_room(done, lambda: _write_best(done, out / "best"))
    _with_room(done, lambda: durable.write_bytes(out / "report.json", json.dumps(report, indent=1).encode()))
    _with_room(done, lambda: durable.write_bytes(out / "report.md", as_text(report).encode()))
    return report


def table(report: dict[str, Any]) -> str:
    """The honest table: the model beside what it has to beat."""
    lines = ["| | macro F1 | accuracy |", "|---|---|---|"]
    lines += [f"| {name} | {row['macro_f1']:.3f} | {row['accuracy']:.3f} |" for name, row in report["scores"].items()]
    return "\n".join(lines)


def as_text(report: dict[str, Any]) -> str:
    """The report for people, as Markdown."""
    data, own = report["data"], report["scores"][_MODEL]
    lines = [
        "# Report",
        "",
        f"Model: {report['model']}. Checkpoint: {report['chosen']['name']}, the best by {METRIC} of those kept.",
        f"Learned from {data['train_sentences']} sentences of {data['train_documents']} documents"
        f" ({report['subset']:.0%} of the documents there are for it).",
        f"Scored on {data['held_out_sentences']} sentences of {data['held_out_documents']} documents that were held out"
        " whole. Macro F1 is the mean over the classes that they have. The checkpoint was chosen by these sentences"
        " too, so its figure is a little too good; the other two rows had no such choice.",
        "",
        table(report),
        "",
        "| class | F1 | precision | recall | sentences | TF-IDF's F1 |",
        "|---|---|---|---|---|---|",
    ]
    for one, other in zip(own["classes"], report["scores"][_TF_IDF]["classes"], strict=True):
        known = one["support"] > 0
        figures = [f"{one[name]:.3f}" if known else "-" for name in ("f1", "precision", "recall")]
        last = f"{other['f1']:.3f}" if known else "-"
        lines.append(f"| {_cell(one['label'])} | {' | '.join(figures)} | {one['support']} | {last} |")
    names = [_cell(one["label"]) for one in own["classes"]]
    lines += ["", "Rows: what it is. Columns: what the model says.", "", f"| | {' | '.join(names)} |"]
    lines.append("|---" * (len(names) + 1) + "|")
    lines += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in zip(names, own["confusion"], strict=True)]
    lines += ["", "| epoch | step | macro F1 | accuracy |", "|---|---|---|---|"]
    lines += [
        f"| {one['epoch']} | {one['step']} | {one['val_f1']:.3f} | {one['val_accuracy']:.3f} |"
        for one in report["epochs"]
    ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _document(done: Trained, rows: dict[str, Scores]) -> dict[str, Any]:
    return {
        "model": done.start.said,
        "settings": dict(done.settings.values),
        "effective_batch": done.settings.batch,
        "subset": done.settings["subset_ratio"] if done.settings["use_subset"] else 1.0,
        "precision": str(done.run.precision),
        "steps": done.run.steps_done,
        "data": {
            "train_documents": len(done.split.train),
            "train_sentences": len(done.train),
            "held_out_documents": len(done.split.validation),
            "held_out_sentences": len(done.held_out),
            "not_in_training": done.split.unseen(),
            "not_held_out": done.split.untested(),
        },
        "labels": list(done.split.labels),
        "chosen": {
            "name": done.chosen.name,
            "step": done.chosen.step,
            METRIC: done.chosen.seal.metrics.get(METRIC),
        },
        "scores": {name: asdict(row) for name, row in rows.items()},
        "epochs": done.log.entries("epoch"),
    }


def _write_best(done: Trained, folder: Path) -> None:
    """A folder for `from_pretrained`. Its weights are the checkpoint's own file by a hard link: no byte twice."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(Path(done.settings["out"]) / "start", part, ignore=shutil.ignore_patterns("said.json"))
    weights = done.chosen.path / "model.safetensors"
    try:
        os.link(weights, part / "model.safetensors")
    except OSError as error:
        if error.errno in durable.FULL:
            raise
        shutil.copyfile(weights, part / "model.safetensors")  # no hard links on this file system
    shutil.rmtree(folder, ignore_errors=True)
    durable.replace(part, folder)


def _with_room(done: Trained, write: Callable[[], None]) -> None:
    """Write; where the disk is full, the run's ballast gives way, which is kept for the end."""
    try:
        write()
    except OSError as error:
        if error.errno not in durable.FULL or not done.run.vault.ballast.release():
            raise
        write()
