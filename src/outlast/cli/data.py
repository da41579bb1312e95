"""``outlast data``: a subset of a data set, planned before a byte of it travels, fetched in bounded disk and memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outlast.cli import _app
from outlast.errors import BadInput
from outlast.host import show_bytes, show_seconds

if TYPE_CHECKING:
    from outlast.data import Plan, Progress

app = _app.new(__doc__ or "")
_TELL_SECONDS = 5.0

_Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A file, folder or pattern here, https://, s3://, gs://, az://, or hf://datasets/org/name[@revision].",
    ),
]
_Rows = Annotated[int | None, typer.Option(metavar="N", help="How many rows; default: all.")]
_Columns = Annotated[str | None, typer.Option(metavar="A,B", help="Only these columns; default: all.")]
_Split = Annotated[
    str | None, typer.Option(metavar="SHARES", help="90/10 by order, hash:90/10 by a hash; default: all is train.")
]
_Sample = Annotated[str, typer.Option(metavar="NAME", help="head, spread, random, or random-groups (fewer bytes).")]
_Seed = Annotated[int, typer.Option(metavar="N", help="Of the sample and of a split by hash.")]
_MaxBytes = Annotated[str | None, typer.Option(metavar="SIZE", help="The subset takes at most so much disk.")]
_KeepFree = Annotated[str | None, typer.Option(metavar="SIZE", help="So much of the volume stays free.")]


@app.command(epilog="Exit codes: 0 it fits; 3 it does not fit; 2 bad input; 1 an error.")
def plan(
    source: _Source,
    rows: _Rows = None,
    columns: _Columns = None,
    split: _Split = None,
    sample: _Sample = "head",
    seed: _Seed = 0,
    max_bytes: _MaxBytes = None,
    keep_free: _KeepFree = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="DIR", help="Where it would go.")] = None,
    as_json: _app.Json = False,
) -> None:
    """Say what a subset would be and cost; downloads nothing but footers, or the first part of a text."""
    data = _data()
    found = data.plan(
        source, rows=rows, columns=columns, split=split, sample=sample, seed=seed, max_bytes=max_bytes,
        keep_free=keep_free, out=out,
    )  # fmt: skip
    _app.print_json(_document(found)) if as_json else print("\n".join(_lines(found)))
    raise typer.Exit(3 if found.fits is False else 0)


@app.command(epilog="Exit codes: 0 it is there, whole; 1 an error: what is done is kept; 2 bad input.")
def fetch(
    source: _Source,
    out: Annotated[str, typer.Option("-o", "--out", metavar="DIR", help="Its folder.")],
    rows: _Rows = None,
    columns: _Columns = None,
    split: _Split = None,
    sample: _Sample = "head",
    seed: _Seed = 0,
    max_bytes: _MaxBytes = None,
    keep_free: _KeepFree = None,
    as_json: _app.Json = False,
) -> None:
    """Make a subset, as Parquet files that everything reads; goes on where it was."""
    data = _data()
    begin = time.monotonic()
    done = data.fetch_telling(
        source, out, _teller(), rows=rows, columns=columns, split=split, sample=sample, seed=seed,
        max_bytes=max_bytes, keep_free=keep_free,
    )  # fmt: skip
    manifest = done.manifest
    if as_json:
        facts = {"wire_bytes": done.wire_bytes, "reused_rows": done.reused_rows, "notes": done.notes}
        _app.print_json({"out": str(Path(out).absolute()), **facts, "manifest": asdict(manifest)})
        return
    size = sum(shard.size_bytes for shard in manifest.shards)
    for note in done.notes:
        print(f"note: {note}")
    parts = ", ".join(f"{part} {rows:,}" for part, rows in manifest.rows.items())
    print(f"{out}: {parts} rows in {len(manifest.shards)} files, {show_bytes(size)}")
    print(
        f"{show_bytes(done.wire_bytes)} travelled, {done.reused_rows:,} rows were here already, "
        f"{show_seconds(time.monotonic() - begin)}"
    )


def _data() -> Any:
    try:
        import pyarrow  # noqa: F401

        from outlast import data
    except ModuleNotFoundError as error:
        raise BadInput(
            f"outlast data needs the package {error.name}", hint="pip install '.[data]' in a clone of Outlast brings it"
        ) from None
    return data


def _document(plan: Plan) -> dict[str, Any]:
    index = plan.index
    return {
        "source": index.source,
        "revision": index.revision,
        "files": len(index.files),
        "total_rows": index.total_rows,
        "columns": dict(index.columns),
        "rows": plan.rows,
        "parts": dict(plan.parts),
        "must_count": plan.must_count,
        "shards": sum(len(span.shards) for span in plan.spans),
        **asdict(plan.cost),
        "bytes_per_second": index.bytes_per_second,
        "room_bytes": plan.room_bytes,
        "fits": plan.fits,
        "rows_that_fit": plan.rows_that_fit,
        "notes": plan.notes,
    }


def _lines(plan: Plan) -> list[str]:
    index, cost = plan.index, plan.cost
    about = "about " if cost.is_estimate else ""
    total = "unknown" if index.total_rows is None else f"{index.total_rows:,}"
    looked = f"{len(index.files):,} files looked at" + ("" if index.is_complete else ", more behind them")
    revision = f" at {index.revision[:12]}" if index.revision else ""
    chosen = "to be counted" if plan.rows is None else ", ".join(f"{part} {rows:,}" for part, rows in plan.parts)
    wire = f"{about}{show_bytes(cost.wire_bytes)}" if cost.wire_bytes else "nothing: it lies here"
    speed = index.bytes_per_second
    lines = [
        f"source   {index.source}{revision}",
        f"         {total} rows; {looked}",
        f"columns  {', '.join(f'{name} ({kind})' for name, kind in index.columns)}",
        f"rows     {chosen}" + (f", in {cost.row_groups:,} row groups" if cost.row_groups is not None else ""),
        f"wire     {wire}",
        f"disk     at most about {show_bytes(cost.disk_bytes)}; {show_bytes(plan.room_bytes)} may be written there",
        f"memory   about {show_bytes(cost.ram_bytes)}",
    ]
    if cost.seconds is not None and speed is not None:
        lines.append(f"time     about {show_seconds(cost.seconds)} at {show_bytes(int(speed))}/s, measured now")
    lines += [f"note     {note}" for note in plan.notes]
    if plan.fits is False:
        lines.append(f"DOES NOT FIT: about {plan.rows_that_fit or 0:,} rows would: --rows {plan.rows_that_fit or 1}")
    return lines


def _teller() -> Callable[[Progress], None]:
    """Prints how far it is to stderr: over the last line on a terminal, else a line now and then."""
    is_terminal = sys.stderr.isatty()
    last = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        is_last = progress.rows >= progress.of_rows
        if not is_terminal and time.monotonic() - last < _TELL_SECONDS:
            return
        last = time.monotonic()
        line = f"{progress.rows:,} of {progress.of_rows:,} rows, {show_bytes(progress.wire_bytes)} travelled"
        print(f"\r{line}\x1b[K" if is_terminal else line, end="\n" if is_last or not is_terminal else "",
              file=sys.stderr, flush=True)  # fmt: skip

    return tell
