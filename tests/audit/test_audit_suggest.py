from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from outlast.audit.suggest import ALLOWED, Ranked, pattern_of, quantile, rounded_up, suggestions

_NAMES = ["q", "a.q", "b.a.q", "layers.1.q", "layers.11.q", "layersX1.q", "x.layers.1.q", "v", "mlp.up"]
_layers = st.lists(
    st.tuples(st.sampled_from(_NAMES), st.integers(1, 300), st.integers(0, 300), st.sampled_from([4, 8, 16, 32.0])),
    min_size=1,
    unique_by=lambda one: one[0],
).map(lambda found: [Ranked(name, r, alpha, min(used, r), 100, 25) for name, r, used, alpha in found])


def _as_peft_reads(pattern: dict[str, float], name: str, default: float) -> float:
    return pattern.get(get_pattern_key(list(pattern), name), default)


@given(_layers, st.booleans())
def test_each_layer_gets_its_rank_and_keeps_its_scale_by_pefts_own_lookup(layers: list[Ranked], rslora: bool) -> None:
    for one in suggestions(layers, is_rslora=rslora):
        pattern = one.pattern
        assert pattern.lora_alpha is not None
        for layer in layers:
            r = _as_peft_reads(dict(pattern.rank_pattern), layer.name, pattern.r)
            alpha = _as_peft_reads(dict(pattern.alpha_pattern), layer.name, pattern.lora_alpha)
            assert r == one.ranks[layer.name]
            assert layer.alpha is not None
            power = math.sqrt if rslora else float
            assert alpha / power(r) == pytest.approx(layer.alpha / power(layer.r), rel=1e-12)


@given(_layers)
def test_no_suggestion_is_above_the_present_rank(layers: list[Ranked]) -> None:
    for one in suggestions(layers, is_rslora=False):
        assert all(1 <= one.ranks[layer.name] <= layer.r for layer in layers)
        assert one.saves_bytes == sum((layer.r - one.ranks[layer.name]) * 100 for layer in layers) >= 0
        assert one.saves_checkpoint_bytes == one.saves_bytes + one.saves_bytes // 100 * 25 * 8


def test_nothing_is_suggested_where_nothing_has_been_trained() -> None:
    assert suggestions([Ranked("q", 8, 8, 0, 100, 25)], is_rslora=False) == ()


def test_a_wish_is_rounded_up_to_an_allowed_rank() -> None:
    assert [rounded_up(wish, 64) for wish in (0.5, 1, 3, 16, 16.5, 500)] == [1, 1, 4, 16, 32, 64]
    assert set(ALLOWED) == {2**k for k in range(9)}


def test_the_two_uniform_ones_are_the_median_and_nine_tenths_of_the_energy_ranks() -> None:
    layers = [Ranked(f"layers.{i}.q", 64, 64, used, 100, 25) for i, used in enumerate([3, 3, 3, 3, 3, 3, 3, 3, 30, 60])]
    found = {one.name: set(one.ranks.values()) for one in suggestions(layers, is_rslora=False)}
    assert found["uniform-median"] == {4}
    assert found["uniform-p90"] == {64}  # 33 of 64
    assert found["per-layer"] == {4, 64}
    assert quantile([3, 3, 3, 3, 3, 3, 3, 3, 30, 60], 0.9) == pytest.approx(33)


def test_an_unknown_alpha_stays_unknown() -> None:
    pattern = pattern_of([Ranked("q", 8, None, 3, 1, 1)], {"q": 4}, is_rslora=False)
    assert (pattern.r, pattern.lora_alpha, pattern.alpha_pattern) == (4, None, {})


def test_peft_takes_the_patterns() -> None:
    (one, *_) = suggestions([Ranked("a.q", 8, 16, 3, 1, 1), Ranked("a.v", 8, 8, 1, 1, 1)], is_rslora=False)
    made = LoraConfig(r=one.pattern.r, lora_alpha=one.pattern.lora_alpha, alpha_pattern=dict(one.pattern.alpha_pattern))
    assert made.alpha_pattern
