"""``outlast audit``: how much of a LoRA adapter is used, and the best adapter of a smaller rank."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outlast import durable
from outlast.cli import _app
from outlast.cli._audit_text import lines, truncation_lines
from outlast.errors import BadInput

if TYPE_CHECKING:
    from outlast.audit.adapter import Adapter
    from outlast.audit.report import Audit

app = _app.new(__doc__ or "")
_EPILOG = "Exit codes: 0 shown or written; 2 no LoRA adapter, not its base, or nothing to write; 1 an error."


@app.command(epilog=_EPILOG)
def audit(
    path: Annotated[
        Path,
        typer.Argument(metavar="ADAPTER", help="PEFT's folder, a sealed checkpoint, or a run's folder (its newest)."),
    ],
    base: Annotated[
        str, typer.Option(metavar="MODEL", help="Folder or hub id of the base model: shows the update against it.")
    ] = "",
    revision: Annotated[str, typer.Option(metavar="REV", help="Of the base on the hub.")] = "",
    adapter: Annotated[str, typer.Option(metavar="NAME", help="Which adapter, where there are several.")] = "",
    layers: Annotated[bool, typer.Option("--layers", help="Show each layer.")] = False,
    ranks: Annotated[
        str,
        typer.Option(metavar="NAME", help="What --write-config writes: uniform-median, uniform-p90 or per-layer."),
    ] = "per-layer",
    write_config: Annotated[
        str, typer.Option("--write-config", metavar="F", help="Write a LoraConfig for PEFT with smaller ranks.")
    ] = "",
    truncate: Annotated[
        str,
        typer.Option(
            metavar="R|per-layer", help="Write the best adapter of this rank, or of the ranks of a suggestion."
        ),
    ] = "",
    out: Annotated[str, typer.Option("--out", "-o", metavar="OUT", help="Where --truncate writes.")] = "",
    as_json: _app.Json = False,
) -> None:
    """Show how much of an adapter's rank is used, and which smaller one would do."""
    if bool(truncate) != bool(out):
        given, missing = ("--truncate", "-o OUT") if truncate else ("-o", "--truncate R or per-layer")
        raise BadInput(f"{given} is given without {missing}", hint="outlast audit ADAPTER --truncate per-layer -o OUT")
    if revision and not base:
        raise BadInput("--revision is given without --base", hint="--base MODEL --revision REV")
    _needs_numpy()
    from outlast.audit import adapter as adapters
    from outlast.audit import report

    found = adapters.read(_app.folder(path), adapter or None)
    result = report.audit(found, base or None, revision=revision or None, tell=_progress if base else None)
    document: dict[str, Any] = asdict(result)
    text = lines(result, each=layers)
    if write_config:
        _write_config(found, result, ranks, Path(write_config))
        text += ["", f"wrote {write_config} ({ranks})"]
        document["config"] = write_config
    if truncate:
        from outlast.audit.truncation import truncate as cut

        made = cut(path, _rank(truncate), out, adapter=adapter or None)
        text += ["", *truncation_lines(made, each=layers)]
        document["truncation"] = asdict(made)
    _app.print_json(document) if as_json else print("\n".join(text))


def _needs_numpy() -> None:
    from outlast import audit as room

    _ = room.audit_lora_peft_dir  # says what to install where numpy is missing


def _rank(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _write_config(found: Adapter, result: Audit, name: str, file: Path) -> None:
    from outlast.audit.report import chosen
    from outlast.audit.truncation import config_of

    if found.settings is None:
        raise BadInput(
            "there is no adapter_config.json to write a smaller one from", hint="put PEFT's beside the weights"
        )
    document = {**found.settings.document, **config_of(chosen(result, name).pattern), "inference_mode": False}
    durable.write_bytes(file.absolute(), json.dumps(document, indent=2, sort_keys=True).encode() + b"\n")


def _progress(done: int, total: int, what: str) -> None:
    if not what:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        return
    if sys.stderr.isatty():
        bar = ("#" * (20 * done // max(1, total))).ljust(20, ".")
        print(f"\r\x1b[Knorms of the base [{bar}] {done}/{total} {what[-60:]}", end="", file=sys.stderr, flush=True)
    elif done == 0:
        print(f"outlast: norms of the base, {total} matrices: {what}", file=sys.stderr)
