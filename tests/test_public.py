"""What `import outlast` gives, and what it does not cost."""

from __future__ import annotations

import pytest

import outlast
from tests.builders import python


def test_the_public_surface_is_exactly_this() -> None:
    assert outlast.__all__ == [
        "Keep", "OutlastError", "Policy", "Run", "Stopped", "__version__", "check_memory", "setup",
    ]  # fmt: skip
    assert dir(outlast) == outlast.__all__


def test_every_public_name_can_be_had() -> None:
    assert all(getattr(outlast, name) is not None for name in outlast.__all__)


def test_a_name_that_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Vault'"):
        outlast.Vault  # noqa: B018


@pytest.mark.parametrize("module", ["outlast", "outlast.cli", "outlast.checkpoints", "outlast.cli.doctor"])
def test_importing_it_brings_in_neither_torch_nor_numpy(module: str) -> None:
    heavy = "{'torch', 'numpy', 'transformers', 'safetensors'}"
    done = python(f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))")
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_importing_it_loads_no_other_room() -> None:
    done = python("import sys, outlast; print([name for name in sys.modules if name.startswith('outlast.')])")
    assert done.stdout.strip() == "['outlast.version']"


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert outlast.__version__ == version("outlast")


def test_it_runs_as_a_module() -> None:
    from subprocess import run
    from sys import executable

    done = run([executable, "-m", "outlast", "--version"], capture_output=True, text=True)
    assert done.stdout == f"outlast {outlast.__version__}\n"
