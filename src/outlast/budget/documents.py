"""Reading a configuration from a file: JSON, and YAML where PyYAML is there. Nothing is unpickled, nothing is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from outlast.errors import BadInput

_LARGEST = 16 << 20
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_HINT = "a YAML or JSON file with keys such as output_dir, save_steps, save_total_limit, max_steps"


def load(path: Path) -> Any:
    """What a configuration file holds.

    Args:
        path: ``.json``, ``.yaml`` or ``.yml``.

    Raises:
        BadInput: when it is a pickle, cannot be read or parsed, or is YAML and PyYAML is not installed.
    """
    if path.suffix in _PICKLES:
        raise BadInput(
            f"{path} is a pickle: to read it is to run what it holds, which Outlast never does",
            hint="write the arguments as JSON: Path('training_args.json').write_text(args.to_json_string())",
        )
    try:
        data = path.read_bytes()[: _LARGEST + 1]
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}", hint=_HINT) from None
    if len(data) > _LARGEST:
        raise BadInput(f"{path} is larger than 16 MiB: no configuration", hint=_HINT)
    return _json(text, path) if path.suffix == ".json" else _yaml(text, path)


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}", hint=_HINT) from None


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        try:
            return json.loads(text)  # JSON is YAML
        except (ValueError, RecursionError):
            raise BadInput(f"{path} is YAML, and there is no PyYAML", hint="pip install pyyaml, or give JSON") from None
    try:
        return yaml.safe_load(text)
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:
        # PyYAML's own slips among them: `!!int ""` is an IndexError, `!!timestamp x` an AttributeError.
        raise BadInput(f"{path} is not YAML: {error}", hint=_HINT) from None
