"""The command line before Hydra sees it: unknown keys are errors with near names, also behind a ``+``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from duo.settings import known_keys, unknown_key
from outlast.errors import BadInput


def checked(words: Sequence[str], configs: Path) -> list[str]:
    """The words for Hydra: options as they are, overrides whose keys exist, without a ``+`` that is not needed.

    Args:
        words: the command line.
        configs: the folder of the configuration groups.

    Raises:
        BadInput: for a key that there is not, a choice that there is not, or what cannot be read.
    """
    return [word if word.startswith("-") else _override(word, configs) for word in words]


def _override(word: str, configs: Path) -> str:
    try:
        parsed = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise BadInput(f"cannot read {word!r} on the command line", hint="KEY=VALUE, without spaces") from error
    key = parsed.key_or_group
    if key.startswith("hydra.") or key.startswith("hydra/"):
        return word
    if parsed.is_delete():
        raise BadInput(f"{word!r}: a key cannot be taken away", hint=f"{key}=null where that is allowed")
    if key not in known_keys():
        raise unknown_key(key)
    if (configs / key).is_dir():
        choices = sorted(path.stem for path in (configs / key).glob("*.yaml"))
        if str(parsed.value()) not in choices:
            raise BadInput(f"{key} is {parsed.value()!r}; there is {', '.join(choices)}", hint=f"{key}={choices[0]}")
    return word.lstrip("+")
