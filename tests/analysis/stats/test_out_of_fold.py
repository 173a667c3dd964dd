from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy import stats

from axes.analysis.methods.nulls import fitted_scores
from axes.analysis.stats import out_of_fold as out_of_fold_module
from axes.analysis.stats.auroc import auroc_interval, aurocs
from axes.analysis.stats.out_of_fold import Fit, OutOfFold, evaluate_out_of_fold
from axes.analysis.stats.splits import grouped_folds, out_of_fold

LABELS, PAIRS = np.arange(160) % 2 == 0, np.arange(160) // 2


def fits(x: np.ndarray) -> Fit:
    """One scorer: the difference in means."""
    return lambda seen: fitted_scores(x, LABELS, seen)[:, None]


def evaluated(strength: float, seed: int) -> tuple[OutOfFold, float]:
    """A direction, the same direction again and noise; and the error of DeLong's interval."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((160, 24))
    x[:, 0] += strength * LABELS
    noise = random.standard_normal(160)

    def fit(seen: np.ndarray) -> np.ndarray:
        native = fitted_scores(x, LABELS, seen)
        return np.stack([native, native, np.broadcast_to(noise, native.shape)], axis=1)

    first = out_of_fold(partial(fitted_scores, x, LABELS), grouped_folds(LABELS, PAIRS))[0]
    delong = auroc_interval(first, LABELS, PAIRS)
    return evaluate_out_of_fold(fit, LABELS, PAIRS), (delong.upper - delong.estimate) / 1.96


@pytest.mark.parametrize(("strength", "lowest", "highest"), [(0.0, 1.25, 2.0), (2.5, 1.0, 1.35)])
def test_the_variance_is_far_above_delongs_without_a_signal_and_near_it_with_a_strong_one(
    strength: float, lowest: float, highest: float
) -> None:
    """Student's quantile of 19 degrees of freedom is 2.093."""
    ratios = []
    for seed in range(8):
        found, delong = evaluated(strength, seed)
        area = found.area(0)
        ratios.append(((area.upper - area.estimate) / 2.093 / delong) ** 2)
    assert lowest <= np.median(ratios) <= highest


def test_an_interval_is_students_of_the_variance_and_what_refits_add() -> None:
    """DeLong's sum of squares and the jackknife's cross term, by hand, on 12 blocks."""
    random = np.random.default_rng(2)
    moved, by_block, refitted = (random.standard_normal((count, 2)) for count in (30, 12, 12))
    by_block += refitted
    parts = (0.01 * moved, 0.01 * by_block, 0.01 * refitted)
    found = OutOfFold(np.zeros((1, 2, 60)), np.array([0.7, 0.6]), 30, *parts)
    moved, by_block, refitted = (part[:, 0] - part[:, 1] for part in parts)
    added = (by_block * refitted).sum() * 12 / 11
    assert 0 < added < (moved**2).sum(), "neither end of the range"
    error = np.sqrt((moved**2).sum() + added)
    difference = found.difference(0, 1)
    assert difference.upper == pytest.approx(0.1 + stats.t.ppf(0.975, 11) * error)
    assert difference.p_value == pytest.approx(2 * stats.t.sf(0.1 / error, 11))


def test_a_difference_is_of_the_same_folds_and_its_interval_is_paired() -> None:
    found, _ = evaluated(1.0, 0)
    assert found.difference(0, 1).estimate == 0.0
    assert found.difference(0, 1).p_value == 1.0
    against_noise = found.difference(0, 2)
    assert against_noise.estimate == pytest.approx(found.areas[0] - found.areas[2])
    assert against_noise.lower < against_noise.estimate < against_noise.upper
    turned = found.difference(2, 0)
    assert turned.lower == pytest.approx(-against_noise.upper)
    assert turned.p_value == pytest.approx(against_noise.p_value)


def test_the_area_is_the_mean_over_draws_of_folds_and_does_not_hang_on_one() -> None:
    x = np.random.default_rng(3).standard_normal((160, 24))
    fit = partial(fitted_scores, x, LABELS)
    one = [aurocs(out_of_fold(fit, grouped_folds(LABELS, PAIRS, seed=s)), LABELS) for s in range(8)]
    several = [evaluate_out_of_fold(fits(x), LABELS, PAIRS, seed=100 * s).areas for s in range(4)]
    assert np.std(several) < 0.6 * np.std(one)


def test_a_large_set_is_fitted_a_draw_at_a_time_with_the_same_numbers(monkeypatch) -> None:
    x = np.random.default_rng(5).standard_normal((160, 24))
    counts: list[int] = []

    def fit(seen: np.ndarray) -> np.ndarray:
        counts.append(len(seen))
        return fits(x)(seen)

    at_once = evaluate_out_of_fold(fit, LABELS, PAIRS)
    assert counts == [50, 100]
    monkeypatch.setattr(out_of_fold_module, "_ROWS_AT_ONCE", 1)
    by_draw = evaluate_out_of_fold(fit, LABELS, PAIRS)
    assert counts[2:] == [5] * 30
    np.testing.assert_allclose(by_draw.scores, at_once.scores, rtol=1e-12)
    np.testing.assert_allclose(by_draw.refitted, at_once.refitted, atol=1e-12)


def test_with_few_groups_the_interval_is_the_widest() -> None:
    few = PAIRS // 10
    x = np.random.default_rng(4).standard_normal((160, 24))
    found = evaluate_out_of_fold(fits(x), LABELS, few)
    assert found.refitted is None
    delong = auroc_interval(found.scores[0, 0], LABELS, few)
    widest = auroc_interval(found.scores[0, 0], LABELS, few, is_out_of_fold=True)
    assert widest.upper - widest.estimate == pytest.approx(
        np.sqrt(2) * (delong.upper - delong.estimate)
    )
