"""``outlast why``: how the last run here ended, with evidence and the fix."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from outlast.cli import _app
from outlast.launch import explain
from outlast.launch.why import lines

app = _app.new(__doc__ or "")


@app.command(epilog="Exit codes: 0 explained, 2 no guarded run is journaled there.")
def why(dir: _app.Dir = Path(), json: _app.Json = False) -> None:
    """Explain the end of the last guarded run: cause, evidence, fix, rungs taken, what was deleted."""
    story = explain(_app.folder(dir))
    if json:
        _app.print_json(asdict(story))
    else:
        print("\n".join(lines(story)))
