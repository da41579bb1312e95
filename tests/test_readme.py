"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "runs/a").glob("step-*")) == ["step-30", "step-40"]


def test_the_commands_in_the_table_are_those_that_there_are() -> None:
    from outlast.cli import COMMANDS

    named = set(re.findall(r"^\| `outlast (\w+)", README.read_text(), flags=re.MULTILINE))
    assert named == set(COMMANDS)
