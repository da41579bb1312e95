"""``outlast plan``: will a run fit its disk, when is it full, what would each change do. Trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from outlast.budget import counting, documents, found, inputs, knobs, outlook, sizes
from outlast.budget.settings import OPTIONS, Said, first, from_document, told
from outlast.checkpoints import Keep, Policy
from outlast.cli import _app, _plan_text, _plan_volumes
from outlast.errors import BadInput
from outlast.host import Budget, parse_bytes, recognise
from outlast.launch import rehearse

app = _app.new(__doc__ or "")
_CONFIGURATIONS = (".json", ".yaml", ".yml", ".bin", ".pt", ".pth", ".pkl")
_EPILOG = (
    "Exit codes: 0 it fits; 1 it fits only under outlast run, or an error of Outlast's own, which is on stderr; "
    "2 it does not fit, or bad input."
)


@app.command(epilog=_EPILOG)
def plan(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [-- COMMAND]",
            help="A YAML or JSON file with the Trainer's keys; after --, a script whose arguments are read.",
        ),
    ] = None,
    output_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Where checkpoints go; those there count, and say how large one is.")
    ] = "",
    framework: Annotated[
        str, typer.Option(metavar="NAME", help="transformers (default), lightning, accelerate, torch.save ...")
    ] = "",
    steps: Annotated[int | None, typer.Option(metavar="N", help="Optimizer steps of the run.")] = None,
    epochs: Annotated[float | None, typer.Option(metavar="N", help="Epochs, with --samples.")] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="Samples of the data set.")] = None,
    steps_per_epoch: Annotated[int | None, typer.Option(metavar="N", help="In place of --samples.")] = None,
    save_every: Annotated[str, typer.Option(metavar="N", help="1000 (steps), 0.1 (of the run), 1epoch, 30min.")] = "",
    save_limit: Annotated[
        int | None, typer.Option(metavar="N", help="How many checkpoints are kept; 0 keeps all.")
    ] = None,
    only_model: Annotated[bool, typer.Option("--only-model", help="Saved without the optimizer's state.")] = False,
    save_bytes: Annotated[str, typer.Option(metavar="SIZE", help="What one full save takes, e.g. 3GB.")] = "",
    params: Annotated[str, typer.Option(metavar="N", help="Parameters of the model, e.g. 8B: counts a save.")] = "",
    trainable: Annotated[str, typer.Option(metavar="N", help="Of those the trained ones (an adapter), e.g. 40M.")] = "",
    model: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A Transformers configuration here: counts a save. Needs torch.")
    ] = None,
    lora_rank: Annotated[int | None, typer.Option(metavar="R", help="With --model: an adapter is trained.")] = None,
    lora_targets: Annotated[str, typer.Option(metavar="A,B", help="With --lora-rank; default: all linear.")] = "",
    optimizer: Annotated[str, typer.Option(metavar="NAME", help="adamw, adamw-8bit, adafactor, sgd ...")] = "",
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="What is trained is held in fp32 (default), bf16.")] = "",
    volume: Annotated[str, typer.Option(metavar="SIZE", help="The volume, in place of that of --output-dir.")] = "",
    used: Annotated[str, typer.Option(metavar="SIZE", help="What lies on it before the run; with --volume.")] = "",
    budget: Annotated[
        list[str] | None, typer.Option(metavar="DIR=SIZE", help="At most this much may lie under DIR. Repeatable.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE[/step][@STEP][:DIR]",
            help="What else comes: a data set, a download at a step, a log that grows. Repeatable.",
        ),
    ] = None,
    keep: Annotated[str, typer.Option(metavar="RULES", help="As of outlast run.")] = "",
    keep_exact: Annotated[bool, typer.Option("--keep-exact", help="As of outlast run.")] = False,
    save: Annotated[str, typer.Option(metavar="full|light", help="As of outlast run.")] = "full",
    forbid_rung: Annotated[list[int] | None, typer.Option(metavar="N", help="As of outlast run. Repeatable.")] = None,
    deletions_fail: Annotated[
        bool, typer.Option("--deletions-fail", help="Suppose that no old checkpoint can be deleted.")
    ] = False,
    was_full_at: Annotated[
        int | None, typer.Option(metavar="STEP", help="A run died at this save: what else must have lain there?")
    ] = None,
    seconds_per_step: Annotated[float | None, typer.Option(metavar="S", help="For hours and sessions.")] = None,
    seconds_per_save: Annotated[float | None, typer.Option(metavar="S", help="For hours and sessions.")] = None,
    session_hours: Annotated[
        float | None, typer.Option(metavar="H", help="How long a session lasts; default: the platform's.")
    ] = None,
    price_gb_month: Annotated[float | None, typer.Option(metavar="P", help="Price of a GB for a month.")] = None,
    price_gb_hour: Annotated[float | None, typer.Option(metavar="P", help="Price of a GB for an hour.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Write a plot of disk over time.")] = None,
    timeout: Annotated[float, typer.Option(metavar="S", help="For COMMAND to come to its training.")] = 300.0,
    as_json: _app.Json = False,
) -> None:
    """Simulate the saves of a run on its volume, without Outlast and with it."""
    flags: dict[str, tuple[object, str]] = {
        "output_dir": (output_dir or None, "--output-dir"),
        "framework": (framework or None, "--framework"),
        "steps": (steps, "--steps"),
        "epochs": (epochs, "--epochs"),
        "samples": (samples, "--samples"),
        "steps_per_epoch": (steps_per_epoch, "--steps-per-epoch"),
        "every": (save_every or None, "--save-every"),
        "limit": (save_limit, "--save-limit"),
        "only_model": (only_model or None, "--only-model"),
        "save_bytes": (parse_bytes(save_bytes) if save_bytes else None, "--save-bytes"),
        "params": (sizes.parse_count(params) if params else None, "--params"),
        "trainable": (sizes.parse_count(trainable) if trainable else None, "--trainable"),
        "optimizer": (optimizer or None, "--optimizer"),
        "dtype": (dtype or None, "--dtype"),
        "deletions_fail": (deletions_fail or None, "--deletions-fail"),
        "seconds_per_step": (seconds_per_step, "--seconds-per-step"),
        "seconds_per_save": (seconds_per_save, "--seconds-per-save"),
    }
    session, month, hour, died_at, patience = (
        _number(name, value)
        for name, value in {
            "session_hours": session_hours, "price_gb_month": price_gb_month, "price_gb_hour": price_gb_hour,
            "was_full_at": was_full_at, "timeout": timeout,
        }.items()
    )  # fmt: skip
    layers = [_given(flags), *_read(words or [], patience)]
    if model is not None:
        targets = [name.strip() for name in lora_targets.split(",") if name.strip()]
        counts = counting.count(model.expanduser(), rank=lora_rank, targets=targets, dtype=dtype or "fp32")
        layers.insert(1, {name: Said(value, f"--model {model}") for name, value in counts.items()})
    said = inputs.with_defaults(first(*layers))
    root = _app.folder(str(said["output_dir"].value)) if "output_dir" in said else None
    there = found.look(root) if root else found.Found(None, ())
    volumes = _plan_volumes.volumes(
        root, there.lying, [Budget.parse(text) for text in budget or ()], also or (),
        parse_bytes(volume) if volume else None, parse_bytes(used) if used else None,
    )  # fmt: skip
    if there.seconds_per_step is not None:
        said.setdefault("seconds_per_step", Said(there.seconds_per_step, there.paced_by))
    policy = Policy(Keep.parse(keep) if keep else None, keep_exact, frozenset(forbid_rung or ()), save=save)
    run, said = inputs.resolve(
        said, volumes.own, inputs.size_of(said, None if params else there.size), lying=there.lying, policy=policy
    )
    now = outlook.look_ahead(run)
    seconds = _platform_session() if session is None else session * 3600
    price = hour * knobs.HOURS_PER_MONTH if month is None and hour is not None else month
    seen = _plan_text.Seen(now, knobs.knobs(now), said, volumes, seconds, price, died_at)
    if plot is not None:
        _write(plot, _plan_text.plot(seen))
    if as_json:
        _app.print_json(_plan_text.document(seen))
    else:
        print("\n".join(_plan_text.lines(seen)))
    fits_elsewhere = all(other.fits(run.last_step) for other in volumes.others)
    raise typer.Exit(now.exit_code if fits_elsewhere else 2)


def _given(flags: dict[str, tuple[object, str]]) -> dict[str, Said]:
    found = {name: (_number(name, value, flag), flag) for name, (value, flag) in flags.items()}
    return {name: Said(value, flag) for name, (value, flag) in found.items() if value is not None}


def _number(name: str, value: Any, flag: str = "") -> Any:
    """An option's value, which makes sense where it is a number; None when it was not given."""
    kind = OPTIONS.get(name)
    return value if value is None or kind is None else kind.given(flag or "--" + name.replace("_", "-"), value)


def _read(words: list[str], timeout: float) -> list[dict[str, Said]]:
    """Settings of the script, then those of the configuration: what the script really has stands above."""
    layers = []
    configuration = words[0] if words and words[0].endswith(_CONFIGURATIONS) else None
    command = words[1:] if configuration else words
    if command:
        name = " ".join(command)
        layers.append(told(rehearse(command, timeout), name))
    if configuration:
        path = Path(configuration).expanduser()
        layers.append(from_document(documents.load(path), path.name))
    return layers


def _platform_session() -> float | None:
    fact = recognise().session_seconds
    return fact.value if fact else None


def _write(path: Path, text: str) -> None:
    try:
        path.expanduser().write_text(text)
    except OSError as error:
        raise BadInput(f"--plot {path} cannot be written: {error.strerror}", hint="name another file") from None
