"""Instruction data that is on every machine: what the Python library's own docstrings say of its names.

Enough to try the recipe, and for its tests; not enough to teach a model anything of use.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lora.records import Conversation, Turn

_LEAST = 12
"""Characters of a docstring's first line; shorter ones say nothing."""


def conversations(limit: int = 4000) -> list[Conversation]:
    """Question and answer for the library's names: "What does json.dumps do?", "Serialize ``obj`` to a JSON ...".

    Args:
        limit: at most so many; the same ones in the same order for the same Python.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = [*sorted(folder.glob("*.py")), *sorted(folder.glob("[a-z]*/*.py"))]
    found = (pair for path in files if _is_library(path, folder) for pair in _documented(path, folder))
    return [
        (Turn("user", f"What does {name} do?"), Turn("assistant", first_line))
        for name, first_line in islice(found, limit)
    ]


def _is_library(path: Path, folder: Path) -> bool:
    package = path.relative_to(folder).parts[0]
    return not package.startswith(("_", "test", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages"))


def _documented(path: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Public names of a file with the first line of what they say of themselves. Nothing is imported."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # some files of the library are there to be wrong
    words = path.relative_to(folder).with_suffix("").parts
    module = ".".join(words[:-1] if words[-1] == "__init__" else words)
    yield from _within(tree, module)


def _within(scope: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for node in ast.iter_child_nodes(scope):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        said = (ast.get_docstring(node) or "").partition("\n")[0].strip()
        if len(said) >= _LEAST:
            yield f"{prefix}.{node.name}", said
        if isinstance(node, ast.ClassDef):
            yield from _within(node, f"{prefix}.{node.name}")
