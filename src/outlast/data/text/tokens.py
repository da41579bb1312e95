"""Fast tokenizers, whichever way they are given: all cores, no special tokens of their own. Needs tokenizers."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from outlast.checkpoints import say
from outlast.errors import BadInput

_FILES = ("tokenizer.json", "tokenizer_config.json")
_PAIRS = (
    ("<|begin_of_text|>", "<|end_of_text|>"),
    ("<|startoftext|>", "<|endoftext|>"),
    ("<|endoftext|>", "<|endoftext|>"),
    ("<s>", "</s>"),
    ("<bos>", "<eos>"),
    ("[BOS]", "[EOS]"),
    ("[CLS]", "[SEP]"),
)
"""Which tokens begin and end a text, where nothing else says so; the first pair that a vocabulary has."""


_PARALLELISM = "TOKENIZERS_PARALLELISM"
_forking: list[bool] = []


@dataclass(frozen=True, slots=True)
class Named:
    """A tokenizer, and what its maker says of its special tokens."""

    core: Any
    """A `tokenizers.Tokenizer`."""
    bos: str | None
    """Token that begins a text; None when not said."""
    eos: str | None
    """Token that ends a text; None when not said."""


class Encoder:
    """Texts into token numbers.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, Transformers' fast tokenizer, a ``tokenizer.json``, a folder with one, or
            the id of one on the Hub.
        bos: token, or its number, that begins a block; None takes what the tokenizer says.
        eos: token, or its number, that ends a document; None likewise.
        wrap: whether BOS is needed at all.

    Raises:
        BadInput: for a tokenizer that is not fast or not there, or has no such tokens.
    """

    def __init__(self, tokenizer: Any, bos: str | int | None, eos: str | int | None, *, wrap: bool) -> None:
        from tokenizers import Tokenizer

        _quiet_forks()
        named = named_tokenizer(tokenizer)
        # The user's own may be set to cut or to fill up; a copy is set to neither.
        self._core = Tokenizer.from_str(named.core.to_str())
        self._core.no_truncation()
        self._core.no_padding()
        if getattr(self._core.model, "dropout", None):
            # Drawn anew each time: not the same bytes twice, and no going on after a kill.
            self._core.model.dropout = None
            say("the tokenizer's BPE dropout is off for blocks, which are made once", "tokenise in the loop to have it")
        self._vocabulary = self._core.get_vocab(with_added_tokens=True)
        found = _special(named, self._vocabulary)
        self.eos = self._number(eos, found[1], "eos")
        self.bos = self._number(bos, found[0], "bos") if wrap else self.eos
        self.digest = str(blake3(self._core.to_str().encode()).hexdigest())
        """Of all that the tokenizer is: its vocabulary, merges, normalisation, in its own serialisation."""
        largest = max([*self._vocabulary.values(), self.bos, self.eos])
        self.dtype = "<u2" if largest < 1 << 16 else "<u4"

    def encode(self, texts: Sequence[str]) -> list[Any]:
        """An encoding of each text, whose ``ids`` are its tokens; on all cores unless TOKENIZERS_PARALLELISM=false."""
        try:
            found: list[Any] = self._core.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            odd = next((text for text in texts if not _is_unicode(text)), None)
            if odd is None:
                raise
            raise BadInput(
                f"a text holds half of a surrogate pair, which no tokenizer takes: {ascii(odd)[:80]}",
                hint='clean it: text.encode("utf-8", "replace").decode()',
            ) from None
        return found

    def _number(self, given: str | int | None, found: int | None, name: str) -> int:
        if isinstance(given, str):
            if given not in self._vocabulary:
                raise BadInput(f"{name} is {given!r}, which the tokenizer does not have", hint=f"give {name}=NUMBER")
            return int(self._vocabulary[given])
        number = found if given is None else given
        if number is None:
            known = ", ".join(sorted({token for pair in _PAIRS for token in pair}))
            raise BadInput(
                f"the tokenizer does not say which token is its {name.upper()}, and has none of {known}",
                hint=f"say it: {name}='<token>' or {name}=NUMBER"
                + (", or wrap=False, which needs none" if name == "bos" else ""),
            )
        if not 0 <= number < 1 << 32:
            raise BadInput(f"{name} is {number}", hint="a token's number is from 0 up")
        return int(number)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@functools.cache
def _quiet_forks() -> None:
    """Keep `tokenizers` from warning in every worker of every loader that is started after it has used all cores.

    It looks for its variable as a process is forked, and warns where that is not set. The child gets what the warning
    says that it does anyway, one core; this process keeps all of them.
    """

    def before() -> None:
        if _PARALLELISM not in os.environ:
            os.environ[_PARALLELISM] = "false"
            _forking.append(True)

    def after_in_parent() -> None:
        if _forking:
            _forking.clear()
            os.environ.pop(_PARALLELISM, None)

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=_forking.clear)


def _special(named: Named, vocabulary: Mapping[str, int]) -> tuple[int | None, int | None]:
    bos, eos = (vocabulary.get(token or "") for token in (named.bos, named.eos))
    if bos is None and eos is None:
        pair = next((pair for pair in _PAIRS if set(pair) <= vocabulary.keys()), None)
        return (vocabulary[pair[0]], vocabulary[pair[1]]) if pair else (None, None)
    return bos, eos


def named_tokenizer(tokenizer: Any) -> Named:
    """A tokenizer from what the user has.

    Raises:
        BadInput: when there is no fast one.
    """
    from tokenizers import Tokenizer

    if isinstance(tokenizer, Tokenizer):
        return Named(tokenizer, None, None)
    if isinstance(tokenizer, str | os.PathLike):
        return _from_files(os.fspath(tokenizer))
    core = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(core, Tokenizer):
        raise BadInput(
            f"the tokenizer is a {type(tokenizer).__name__}; expected a fast one",
            hint="AutoTokenizer.from_pretrained(...) gives one where there is one; a tokenizers.Tokenizer, or its file",
        )
    # Where a token is not set, Transformers gives None.
    return Named(core, tokenizer.bos_token, tokenizer.eos_token)


def _from_files(name: str) -> Named:
    from tokenizers import Tokenizer

    place = Path(name).expanduser()
    core, config = place, place.with_name(_FILES[1])
    if place.is_dir():
        core, config = place / _FILES[0], place / _FILES[1]
    elif not place.exists():
        core, config = _from_hub(name)
    try:
        loaded = Tokenizer.from_file(str(core))
    except Exception as error:  # its errors are of no class of their own
        hint = "a tokenizer.json as `tokenizers` and Transformers save it; a slow tokenizer has none"
        raise BadInput(f"{core} is no tokenizer: {error}", hint=hint) from None
    said = _config(config)
    return Named(loaded, _token(said.get("bos_token")), _token(said.get("eos_token")))


def _config(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}", hint="delete it, or fetch the tokenizer again") from None
    return said if isinstance(said, dict) else {}


def _token(said: Any) -> str | None:
    """A token as tokenizer_config.json writes it: the text, or an object that has it."""
    text = said.get("content") if isinstance(said, dict) else said
    return text if isinstance(text, str) else None


def _from_hub(name: str) -> tuple[Path, Path]:
    """The two files of a tokenizer on the Hub, with the user's own token, endpoint and cache."""
    hint = "a tokenizer.json, a folder with one, or the id of one on the Hub (pip install '.[data]')"
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError:
        raise BadInput(f"there is no tokenizer at {name}", hint=hint) from None
    try:
        core = Path(hf_hub_download(name, _FILES[0]))
    except Exception as error:
        raise BadInput(f"there is no tokenizer at {name}, and none on the Hub: {error}", hint=hint) from None
    try:
        return core, Path(hf_hub_download(name, _FILES[1]))
    except EntryNotFoundError:
        return core, core.with_name(_FILES[1])
