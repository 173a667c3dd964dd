from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score

from axes.analysis.stats.bootstrap import (
    LEAST_COMPLETIONS,
    auroc_bootstrap,
    auroc_difference_bootstrap,
    draw_counts,
    mean_difference,
    percentile_interval,
    resampled_aurocs,
)
from tests.analysis.pairs import labelled_scores
from tests.drifting import plant


def scored(count: int, seed: int = 0, apart: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 0
    return random.standard_normal(count) + apart * labels, labels


def interval(scores, labels, *, groups=None, count=1000, seed=0):
    counts = draw_counts(len(labels), strata=labels, groups=groups, count=count, seed=seed)
    return auroc_bootstrap(scores, labels, counts)


@settings(max_examples=60, deadline=None)
@given(labelled_scores(2, 40), st.integers(0, 100))
def test_resampled_auroc_is_that_of_scikit_learn_on_the_rows_drawn(rows, seed):
    scores, labels = rows
    counts = draw_counts(len(labels), count=5, seed=seed)
    areas = resampled_aurocs(np.stack([scores, -scores], axis=1), labels, counts)
    np.testing.assert_allclose(areas[:, 0], 1 - areas[:, 1], atol=1e-12)
    for drawn, found in zip(counts, areas[:, 0], strict=True):
        chosen = np.repeat(labels, drawn)
        if chosen.all() or not chosen.any():
            assert math.isnan(found)
        else:
            expected = roc_auc_score(chosen, np.repeat(scores, drawn))
            assert found == pytest.approx(expected, abs=1e-12)


def test_classes_keep_their_size_and_groups_stay_whole():
    random = np.random.default_rng(0)
    labels = random.random(60) < 0.3
    counts = draw_counts(60, strata=labels, count=50)
    assert (counts[:, labels].sum(axis=1) == labels.sum()).all()
    assert (counts.sum(axis=1) == 60).all()
    pairs = np.arange(60) // 2
    paired = draw_counts(60, strata=np.arange(60) % 2 == 0, groups=pairs, count=50)
    assert (paired[:, ::2] == paired[:, 1::2]).all()
    assert (paired.sum(axis=1) == 60).all()
    # Ten sources of one class each are drawn among their like: resamples hold both classes.
    labels = np.repeat(np.arange(10) < 3, 6)
    sources = draw_counts(60, strata=labels, groups=np.repeat(np.arange(10), 6), count=100)
    assert (sources[:, labels].sum(axis=1) == 18).all()


def test_one_seed_gives_one_interval_and_another_nearly_the_same():
    scores, labels = scored(200)
    first, again = interval(scores, labels), interval(scores, labels)
    other = interval(scores, labels, seed=1)
    assert first == again != other
    assert other.lower == pytest.approx(first.lower, abs=0.02)


def test_the_percentile_interval_of_a_mean_is_that_of_scipy():
    x = np.random.default_rng(3).exponential(size=150)
    counts = draw_counts(len(x), count=8000)
    found = percentile_interval(x.mean(), counts @ x / counts.sum(axis=1))
    expected = bootstrap(
        (x,), np.mean, method="percentile", n_resamples=8000, rng=np.random.default_rng(4)
    ).confidence_interval
    assert (found.lower, found.upper) == pytest.approx(tuple(expected), abs=0.015)


def test_copies_of_rows_do_not_narrow_an_interval_that_knows_they_are_copies():
    scores, labels = scored(80)
    groups = np.tile(np.arange(80), 5)
    copied = np.tile(scores, 5), np.tile(labels, 5)
    one, kept = interval(scores, labels), interval(*copied, groups=groups)
    assert kept.upper - kept.lower == pytest.approx(one.upper - one.lower, rel=0.1)
    fooled = interval(*copied)
    assert fooled.upper - fooled.lower < 0.6 * (one.upper - one.lower)


def test_percentile_intervals_cover_the_truth_about_95_times_in_100():
    """Two normals one standard deviation apart: the true AUROC is Phi(1 / sqrt 2)."""
    intervals = [interval(*scored(120, seed=seed), count=400) for seed in range(300)]
    covered = sum(found.lower <= 0.7602499 <= found.upper for found in intervals)
    assert 0.92 <= covered / 300 <= 0.98


def test_a_difference_is_found_where_there_is_one_and_rarely_where_there_is_none():
    scores, labels = scored(300)
    random = np.random.default_rng(1)
    blurred = scores + 2 * random.standard_normal(300)
    draws = draw_counts(300, strata=labels)
    found = auroc_difference_bootstrap(scores, blurred, labels, draws)
    assert 0 < found.lower < found.estimate < found.upper
    assert found.p_value < 0.01
    rejected = 0
    for seed in range(200):
        shared, labels = scored(100, seed=seed)
        noise = np.random.default_rng(1000 + seed).standard_normal((2, 100))
        draws = draw_counts(100, strata=labels, count=200)
        none = auroc_difference_bootstrap(*(shared + noise), labels, draws)
        rejected += none.p_value < 0.05
    assert 0.01 <= rejected / 200 <= 0.1


def curve(found, count=300, seed=0):
    counts = draw_counts(
        len(found.values), strata=found.is_positive, groups=found.groups, count=count, seed=seed
    )
    return mean_difference(found.values, found.is_positive, counts)


def test_the_curve_is_the_difference_of_the_means_of_who_is_there():
    found = plant(lengths=((3, 12), (6, 20)))
    drawn = curve(found)
    assert min(drawn.positive_counts.min(), drawn.negative_counts.min()) >= LEAST_COMPLETIONS
    assert drawn.steps.max() < 12
    assert not len(curve(plant(pairs=LEAST_COMPLETIONS - 1)).steps)
    for index, step in enumerate(drawn.steps):
        there = ~np.isnan(found.values[:, step])
        positive = found.values[there & found.is_positive, step]
        negative = found.values[there & ~found.is_positive, step]
        assert (drawn.positive_counts[index], drawn.negative_counts[index]) == (
            len(positive),
            len(negative),
        )
        np.testing.assert_allclose(drawn.estimate[index], positive.mean() - negative.mean())


def test_the_simultaneous_band_holds_the_whole_true_curve_and_the_pointwise_does_not():
    worlds = [
        (curve(plant(slope=0.1, offset=1.0, of_prompt=0.1, seed=seed), seed=seed))
        for seed in range(120)
    ]
    truth = 1.0 + 0.1 * worlds[0].steps
    whole = [((drawn.band_lower <= truth) & (truth <= drawn.band_upper)).all() for drawn in worlds]
    pointwise = [((drawn.lower <= truth) & (truth <= drawn.upper)) for drawn in worlds]
    assert np.mean(whole) >= 0.87
    assert np.mean([held.all() for held in pointwise]) < 0.75
    assert 0.90 <= np.mean(pointwise) <= 0.98


def test_a_share_of_all_or_none_has_the_exact_interval_of_so_many_rows() -> None:
    same = np.ones(100)
    assert percentile_interval(1.0, same).lower == 1.0
    everything = percentile_interval(1.0, same, count=60)
    assert (everything.lower, everything.upper) == (pytest.approx(0.9404, abs=1e-4), 1.0)
    assert percentile_interval(0.0, 0 * same, count=60).upper == pytest.approx(0.0596, abs=1e-4)


def test_the_p_value_counts_the_estimate_among_the_resamples_and_is_never_0() -> None:
    above = np.linspace(0.1, 1, 999)
    assert percentile_interval(0.5, above, is_tested=True).p_value == 2 / 1000
    one_below = np.append(above[1:], -0.1)
    assert percentile_interval(0.5, one_below, is_tested=True).p_value == 4 / 1000
    assert percentile_interval(0.0, np.linspace(-1, 1, 999), is_tested=True).p_value == 1
