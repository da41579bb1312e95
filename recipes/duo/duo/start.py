"""What the weights are at the start: published ones where some are named, else random, and said so."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import seed_everything

from duo import published, training
from duo.dit import DiT
from duo.settings import Settings
from outlast.errors import BadInput


def network(settings: Settings, vocab: int, say: Callable[[str], None]) -> DiT:
    """The network of a new training."""
    if settings.algo.backbone == "hf_dit" and settings.eval.checkpoint_path:
        return named(settings, vocab, say)
    if settings.algo.backbone == "hf_dit":
        say("hf_dit without eval.checkpoint_path: the same architecture from random weights")
    seed_everything(settings.seed, verbose=False)
    return training.network(settings.model, vocab)


def named(settings: Settings, vocab: int, say: Callable[[str], None]) -> DiT:
    """The network with the published weights that ``eval.checkpoint_path`` names, a folder or a hub id.

    Raises:
        BadInput: when they cannot be loaded, are of other sizes, or their vocabulary is not the tokenizer's.
    """
    source, model = str(settings.eval.checkpoint_path), settings.model
    made = published.load(
        source,
        length=model.length,
        dropout=model.dropout,
        attention=model.attention,
        allow_remote_code=settings.eval.allow_remote_code,
    )
    sizes = {"hidden_size": made.embedding.embedding_dim, "n_blocks": len(made.blocks), "n_heads": made.heads}
    sizes["cond_dim"] = made.noise.mix.out_features
    other = [f"{key} {size} (here {getattr(model, key)})" for key, size in sizes.items() if size != getattr(model, key)]
    if other:
        raise BadInput(f"{source} has {', '.join(other)}", hint=" ".join(f"model.{k}={v}" for k, v in sizes.items()))
    if made.vocab < vocab:
        raise BadInput(
            f"{source} knows {made.vocab:,} tokens, and the tokenizer has {vocab:,}",
            hint="data.tokenizer has to be the one that it was trained with: gpt2 for the published ones",
        )
    say(f"the published weights of {source}")
    return made
