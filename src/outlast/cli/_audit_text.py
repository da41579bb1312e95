"""An audit as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from outlast.cli._table import table
from outlast.host import show_bytes

if TYPE_CHECKING:
    from outlast.audit.report import Audit, Layer
    from outlast.audit.suggest import Suggestion
    from outlast.audit.totals import Totals
    from outlast.audit.truncation import Truncation

_TOP = 5
_NOTES = 12


def lines(audit: Audit, *, each: bool) -> list[str]:
    """The whole audit.

    Args:
        audit: what was found.
        each: a row for each layer, not only for the heaviest.
    """
    step = f", step {audit.step}" if audit.step is not None else ""
    ranks = sorted({layer.r for layer in audit.layers})
    rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}" if ranks else "no rank"
    found = [
        f"{_printable(audit.path)}{step}",
        f"{audit.totals.layers} layers of {rank}, {audit.totals.parameters:,} parameters, {show_bytes(audit.bytes)}",
        "",
        _totals({"all": audit.totals, **audit.by_kind}),
    ]
    if each:
        found += (
            ["", _totals({f"block {depth}": one for depth, one in _by_number(audit.by_depth)})]
            if audit.by_depth
            else []
        )
        found += ["", _layers(audit.layers)]
    else:
        found += ["", *_heaviest(audit.layers)]
    found += ["", *_suggestions(audit)]
    notes = [_printable(note) for note in (*(f"left out: {one}" for one in audit.skipped), *audit.notes)]
    more = [f"({len(notes) - _NOTES} more notes; --json has all)"] if len(notes) > _NOTES else []
    return found + (["", *notes[:_NOTES], *more] if notes else [])


def _by_number(groups: Mapping[str, Totals]) -> list[tuple[str, Totals]]:
    return sorted(groups.items(), key=lambda pair: int(pair[0]))


def _totals(groups: Mapping[str, Totals]) -> str:
    head = ["", "layers", "stable rank", "utilization", "90 % in (median)", "90 % in (p90)", "UDR (median)", "energy"]
    rows = [
        [
            name,
            str(one.layers),
            _number(one.stable_rank.mean if one.stable_rank else None),
            _percent(one.utilization.mean if one.utilization else None),
            _number(one.energy_rank_90_p50),
            _number(one.energy_rank_90_p90),
            _ratio(one.udr.median if one.udr else None),
            _percent(one.energy_share),
        ]
        for name, one in groups.items()
    ]
    return table(head, rows)


def _layers(layers: Sequence[Layer]) -> str:
    head = ["layer", "r", "alpha", "stable", "effective", "utilization", "90 %", "95 %", "99 %", "norm", "UDR", "SDI"]
    rows = [
        [
            _printable(one.name),
            str(one.r),
            _number(one.alpha),
            _number(one.stable_rank),
            _number(one.effective_rank),
            _percent(one.utilization),
            str(one.energy_rank_90),
            str(one.energy_rank_95),
            str(one.energy_rank_99),
            _ratio(one.delta_sigma_max),
            _ratio(one.udr),
            "-" if one.sdi is None else f"{one.sdi:.2f}",
        ]
        for one in layers
    ]
    return table(head, rows)


def _heaviest(layers: Sequence[Layer]) -> list[str]:
    """The layers that are changed most: against the base where that is known, else by their norm."""
    known = [layer for layer in layers if layer.udr is not None]
    if known:
        top = sorted(known, key=lambda layer: layer.udr or 0.0, reverse=True)[:_TOP]
        return ["changed most against the base:", _layers(top)]
    moved = [layer for layer in layers if layer.delta_fro_norm]
    top = sorted(moved, key=lambda layer: layer.delta_fro_norm or 0.0, reverse=True)[:_TOP]
    return ["changed most:", _layers(top)] if top else []


def _suggestions(audit: Audit) -> list[str]:
    if not audit.suggestions:
        return ["no smaller rank is suggested: nothing has been trained yet"]
    kept = audit.sealed_beside
    head = [
        "ranks for the next training",
        "r",
        "adapter",
        "saves",
        "a checkpoint",
        *([f"the {kept} here"] if kept else []),
    ]
    rows = [
        [
            one.name,
            _rank_text(one),
            show_bytes(one.adapter_bytes + audit.rest_bytes),
            show_bytes(one.saves_bytes),
            show_bytes(one.saves_checkpoint_bytes),
            *([show_bytes(one.saves_checkpoint_bytes * kept)] if kept else []),
        ]
        for one in audit.suggestions
    ]
    return [table(head, rows), "(a checkpoint: weights and AdamW's moments in float32)", *_in_a_line(audit)]


def _rank_text(one: Suggestion) -> str:
    ranks = sorted(set(one.ranks.values()))
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _in_a_line(audit: Audit) -> list[str]:
    median = next((one for one in audit.suggestions if one.name == "uniform-median"), None)
    ranks = {layer.r for layer in audit.layers}
    if median is None or not median.saves_bytes or len(ranks) != 1:
        return []
    used = audit.totals.energy_rank_90_p50
    return [
        "",
        f"rank {ranks.pop()}, 90 % of the energy in {_number(used)}: a rank of {median.pattern.r} would cut the "
        f"adapter from {show_bytes(audit.bytes)} to {show_bytes(audit.bytes - median.saves_bytes)}",
    ]


def truncation_lines(made: Truncation, *, each: bool) -> list[str]:
    """What a truncation wrote, and what it lost."""
    errors = [cut.error for cut in made.cuts if cut.error is not None]
    worst = max((cut for cut in made.cuts if cut.error is not None), key=lambda cut: cut.error or 0.0, default=None)
    text = [
        f"wrote {_printable(made.folder)}: {show_bytes(made.bytes_before)} before, {show_bytes(made.bytes_after)} now"
    ]
    if worst is not None:
        mean = sum(errors) / len(errors)
        text.append(
            f"error of the update: {mean:.2%} in the mean, {worst.error:.2%} at most ({_printable(worst.name)})"
        )
    if each:
        rows = [
            [_printable(cut.name), str(cut.r), str(cut.rank), _percent(cut.error), _percent(cut.stored_error)]
            for cut in made.cuts
        ]
        text.append(table(["layer", "r", "now", "error", "as stored"], rows))
    return [*text, *made.notes]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]
