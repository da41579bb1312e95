"""An audit: the figures of each layer of an adapter, over all of them, and which smaller ranks would do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from outlast.audit.adapter import Adapter, Factors, read
from outlast.audit.base_norms import BaseNorm, Tell, base_norms
from outlast.audit.spectra import Spectrum, spectra
from outlast.audit.suggest import Ranked, Suggestion, suggestions
from outlast.audit.totals import Totals, depth_of, grouped, kind_of, totals
from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Layer:
    """What is known of one layer. What cannot be known is None."""

    name: str
    """Its name in the base model."""
    kind: str
    """``attention``, ``mlp``, ``embedding`` or ``other``."""
    depth: int | None
    """The number of its block."""
    r: int
    """Rank."""
    alpha: float | None
    """lora_alpha."""
    scale: float | None
    """alpha / r, or alpha / sqrt r."""
    parameters: int
    """Numbers in A and B."""
    stable_rank: float | None
    """||dW||_F^2 / ||dW||_2^2, from 1 to r; None for an update of zero."""
    effective_rank: float | None
    """exp of the entropy of the singular values' shares; None for an update of zero."""
    utilization: float | None
    """Stable rank / r."""
    energy_rank_90: int
    """The least rank that holds 90 % of the update's energy; 0 for an update of zero."""
    energy_rank_95: int
    """95 %."""
    energy_rank_99: int
    """99 %."""
    delta_sigma_max: float | None
    """Spectral norm of the update dW = scale x B A; None where the scale is unknown."""
    delta_fro_norm: float | None
    """Frobenius norm of the update."""
    base_sigma_max: float | None
    """Spectral norm of the base's matrix."""
    base_fro_norm: float | None
    """Its Frobenius norm."""
    udr: float | None
    """Update dominance ratio: delta_sigma_max / base_sigma_max."""
    udr_fro: float | None
    """The same of Frobenius norms."""
    sdi: float | None
    """Spectral drift index: log10(udr + 1e-12)."""
    sigmas: tuple[float, ...]
    """Singular values of the update, largest first; of B A where the scale is unknown."""


@dataclass(frozen=True, slots=True)
class Audit:
    """An adapter's figures."""

    path: str
    """The folder that its files are in."""
    step: int | None
    """Steps done when it was sealed."""
    base: str | None
    """The base model that norms were taken from; None without one."""
    named_base: str | None
    """The base model that its configuration names."""
    is_rslora: bool
    """The scale is alpha / sqrt r."""
    bytes: int
    """Of all of its tensors."""
    rest_bytes: int
    """Of those that are no factors: magnitudes, whole modules, biases."""
    layers: tuple[Layer, ...]
    """One for each pair of factors."""
    totals: Totals
    """Over all layers."""
    by_kind: Mapping[str, Totals]
    """By kind of module."""
    by_depth: Mapping[str, Totals]
    """By block."""
    suggestions: tuple[Suggestion, ...]
    """Smaller ranks for the next training; empty where nothing has been trained yet."""
    sealed_beside: int | None
    """Sealed checkpoints that the run keeps now; None where the adapter is in no run's folder."""
    skipped: tuple[str, ...]
    """Layers that are left out, and why."""
    notes: tuple[str, ...]
    """What the reader of figures should know."""


def audit_lora_peft_dir(
    path: str | Path,
    base_model_id: str | None = None,
    base_norms_cache: str | Path | None = None,
    *,
    adapter: str | None = None,
    revision: str | None = None,
    tell: Tell | None = None,
) -> Audit:
    """How much of an adapter's rank is used.

    Args:
        path: a folder that PEFT wrote, a checkpoint that Outlast sealed, or a run's folder: its newest with an adapter.
        base_model_id: folder or hub id of the base model, for UDR and SDI; None leaves them unknown.
        base_norms_cache: folder for the base's norms; None: ``$GRADIENCE_CACHE_DIR/base_norms``, else Outlast's own.
        adapter: which one, where there are several.
        revision: of the base on the hub; None: what the adapter's configuration names, else ``main``.
        tell: called with (layers done, layers in all, what) as the base's norms are computed.

    Raises:
        BadInput: when there is no LoRA adapter, its parts do not fit, or the base is not its base.
        SealError: when a sealed file is not as it was sealed.
    """
    found = read(Path(path), adapter)
    return audit(found, base_model_id, base_norms_cache, revision=revision, tell=tell)


def audit(
    adapter: Adapter,
    base: str | None = None,
    cache: str | Path | None = None,
    *,
    revision: str | None = None,
    tell: Tell | None = None,
) -> Audit:
    """The audit of an adapter that was read; see `audit_lora_peft_dir`."""
    settings = adapter.settings
    notes = list(adapter.notes)
    norms: Mapping[str, BaseNorm | str] = {}
    if base is not None:
        wanted = revision or (settings.revision if settings and settings.base == base else None)
        norms = base_norms(adapter.factors, base, revision=wanted, cache=cache, tell=tell)
        missing = [f"{name}: {reason}" for name, reason in norms.items() if isinstance(reason, str)]
        notes += [f"no norm of the base for {one}" for one in missing]
        if settings and settings.base and settings.base != base:
            notes.append(f"the adapter names {settings.base} as its base, the norms are those of {base}")
    spectrums = spectra(adapter.factors)
    layers = tuple(_layer(one, seen, norms.get(one.name)) for one, seen in zip(adapter.factors, spectrums, strict=True))
    if layers and not any(seen.sigma_max for seen in spectrums):
        notes.append("every update is zero: nothing has been trained yet")
    return Audit(
        str(adapter.place.folder),
        adapter.place.step,
        base,
        settings.base if settings else None,
        bool(settings and settings.is_rslora),
        adapter.bytes,
        adapter.rest_bytes,
        layers,
        totals(layers),
        grouped(layers, lambda layer: layer.kind),
        grouped(layers, lambda layer: layer.depth),
        suggestions(
            [_ranked(one, layer) for one, layer in zip(adapter.factors, layers, strict=True)],
            is_rslora=bool(settings and settings.is_rslora),
        ),
        adapter.place.sealed_beside,
        adapter.skipped,
        tuple(notes),
    )


def _ranked(one: Factors, layer: Layer) -> Ranked:
    stored = (one.a.length + one.b.length) // one.r
    return Ranked(one.name, one.r, one.alpha, layer.energy_rank_90, stored, one.parameters // one.r)


def _layer(one: Factors, seen: Spectrum, norm: BaseNorm | str | None) -> Layer:
    has_scale = one.scale is not None
    base = norm if isinstance(norm, BaseNorm) else None
    udr = seen.sigma_max / base.sigma_max if has_scale and base and base.sigma_max else None
    return Layer(
        one.name,
        "embedding" if one.is_embedding else kind_of(one.name),
        depth_of(one.name),
        one.r,
        one.alpha,
        one.scale,
        one.parameters,
        seen.stable_rank,
        seen.effective_rank,
        None if seen.stable_rank is None else seen.stable_rank / one.r,
        *seen.energy_ranks,
        seen.sigma_max if has_scale else None,
        seen.fro_norm if has_scale else None,
        base.sigma_max if base else None,
        base.fro_norm if base else None,
        udr,
        seen.fro_norm / base.fro_norm if has_scale and base and base.fro_norm else None,
        None if udr is None else math.log10(udr + 1e-12),
        seen.sigmas,
    )


def chosen(audit: Audit, name: str) -> Suggestion:
    """A suggestion by name.

    Raises:
        BadInput: when there is none of that name.
    """
    for one in audit.suggestions:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in audit.suggestions)
    raise BadInput(
        f"there is no suggestion {name!r}",
        hint=f"one of: {known}" if known else "nothing has been trained yet, so nothing is suggested",
    )
