"""The tokenizer of a run: from the hub or a folder, else a BPE of the run's own text; saved with the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.errors import BadInput

END = "<|endoftext|>"
"""Between documents, and around blocks; GPT-2's name for it."""
ENDS = (END, "</s>", "<|end_of_text|>", "<eos>", "[SEP]")
"""What other tokenizers call it."""
_TRAIN_CHARACTERS = 20_000_000
"""As much text as a BPE is trained on: more changes its merges little and takes minutes."""


def for_run(
    wanted: str | None,
    saved: Path,
    texts: Callable[[], Iterable[str]],
    vocab_size: int,
    say: Callable[[str], None],
    *,
    is_online: bool = True,
) -> Any:
    """The tokenizer of a run, a `tokenizers.Tokenizer`: the saved one where the run has one.

    Args:
        wanted: a hub id, a folder, a tokenizer.json; None for a BPE of the text.
        saved: where the run keeps its tokenizer.
        texts: the documents to train a BPE on.
        vocab_size: of such a BPE.
        say: tells the user.
        is_online: the hub can be asked; otherwise its cache alone is, for the hub's own client tries for half a minute.

    Raises:
        BadInput: for a file or folder that holds no tokenizer, or one without an end-of-text token.
    """
    if saved.exists():
        return _from_file(saved)
    if wanted is None:
        tokenizer = train(texts(), vocab_size)
    elif Path(wanted).exists():
        place = Path(wanted)
        tokenizer = _from_file(place / "tokenizer.json" if place.is_dir() else place)
    elif (cached := _cached(wanted)) is not None:
        tokenizer = _from_file(cached)
    else:
        tokenizer, reason = _from_hub(wanted) if is_online else (None, "no network")
        if tokenizer is None:
            say(f"tokenizer {wanted} is not to be had ({reason}): a BPE of {vocab_size:,} is trained on the text")
            tokenizer = train(texts(), vocab_size)
    end_of_text(tokenizer)
    saved.parent.mkdir(parents=True, exist_ok=True)
    durable.write_bytes(saved, tokenizer.to_str().encode())
    return tokenizer


def train(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE of the texts; the same texts give the same one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_first(texts, _TRAIN_CHARACTERS), trainer)
    return tokenizer


def from_text(text: str) -> Any:
    """The tokenizer that a checkpoint carries."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(text)


def end_of_text(tokenizer: Any) -> int:
    """Number of the token that ends a document.

    Raises:
        BadInput: when none is known.
    """
    for name in ENDS:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return int(number)
    raise BadInput(
        f"the tokenizer has none of {', '.join(ENDS)}, and documents need an end",
        hint="data.tokenizer=null trains one on the text",
    )


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "tokenizer.json")
    except HFValidationError as error:
        raise BadInput(
            f"data.tokenizer={name} is no file, no folder and no name of the hub", hint="data.tokenizer=gpt2, or null"
        ) from error
    return Path(found) if isinstance(found, str) else None


def _from_hub(name: str) -> tuple[Any, str]:
    """The tokenizer, or None and why not."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_pretrained(name), ""
    except Exception as error:  # the library raises bare Exception for whatever went wrong
        return None, str(error).partition("\n")[0].partition(". ")[0][:120]


def _from_file(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for whatever went wrong
        raise BadInput(
            f"{path} holds no tokenizer: {str(error)[:200]}", hint="a tokenizer.json of the tokenizers library"
        ) from error


def _first(texts: Iterable[str], most: int) -> Iterable[str]:
    for text in texts:
        yield text[:most]
        most -= len(text)
        if most <= 0:
            return
