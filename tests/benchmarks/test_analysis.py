"""Both sides of a comparison do the same work: they choose the same lambda and predict the same."""

from __future__ import annotations

from benchmarks.analysis import auroc, concepts, ridge_path, streaming, sweep, tokens


def test_the_ridge_path_is_compared_on_the_same_predictions() -> None:
    faster, apart = ridge_path.measure(rows=120, width=150, rounds=1)
    assert faster.value > 0
    assert apart.value < 1e-6


def test_a_streaming_fit_finds_what_is_planted_in_the_memory_it_says(monkeypatch) -> None:
    monkeypatch.setattr(streaming, "WIDTH", 64)
    peak, cosine = streaming._run(9_000)
    assert 50 < peak < 5_000
    assert cosine > 0.9


def test_the_bootstrap_is_compared_on_the_same_resamples() -> None:
    faster, apart = auroc.measure(rows=60, resamples=20, rounds=1)
    assert faster.value > 1
    assert apart.value < 1e-12


def test_the_layer_sweep_is_compared_on_the_same_figures(monkeypatch) -> None:
    monkeypatch.setattr(sweep, "RESAMPLES", 40)
    monkeypatch.setattr(sweep, "SHUFFLES", 20)
    faster, apart = sweep.measure(
        widths=(12, 16), layers=1, timed_layers=1, alignment_rows=80, labelled_rows=40, rounds=1
    )
    assert faster.value > 1
    assert apart.value < 1e-6


def test_several_concepts_are_timed_against_one_and_tokens_against_reading_them(
    monkeypatch,
) -> None:
    (times,) = concepts.measure({"alpha": 12, "beta": 14}, 2, 2, 40, 12, rounds=1)
    assert (times.name, times.better) == ("study of 2 concepts / of one", "lower")
    assert times.value > 1
    monkeypatch.setattr(tokens, "POOLINGS", tokens.POOLINGS[1:2])
    (scored,) = tokens.measure(width=16, pairs=20, length=30, rounds=1)
    assert scored.value > 0
