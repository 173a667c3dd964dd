"""Simulated studies show the smallest effect as often as the formula says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from axes.analysis.stats.auroc import auroc_difference, auroc_interval
from axes.analysis.stats.detection import tpr_at_fpr, tpr_intervals
from axes.analysis.stats.power import AUROC, CORRELATION, REACH, smallest_effects

COUNTS = [(60, 60), (100, 300)]


def labels_of(counts: tuple[int, int]) -> np.ndarray:
    return np.arange(sum(counts)) < counts[0]


@pytest.mark.parametrize("counts", COUNTS)
def test_four_of_five_studies_show_the_auroc_and_the_difference(counts):
    random, labels = np.random.default_rng(7), labels_of(counts)
    effects = smallest_effects(*counts)
    assert effects.smallest_auroc is not None
    distance = np.sqrt(2) * norm.ppf(effects.smallest_auroc)
    half = effects.smallest_auroc_difference / 2
    distances = np.sqrt(2) * norm.ppf([AUROC + half, AUROC - half])
    shown, parted = [], []
    for _ in range(200):
        scores = random.standard_normal(len(labels)) + distance * labels
        shown.append(auroc_interval(scores, labels).lower > 0.5)
        noise = np.sqrt(CORRELATION) * random.standard_normal(len(labels))
        noise = noise + np.sqrt(1 - CORRELATION) * random.standard_normal((2, len(labels)))
        first, second = noise + distances[:, None] * labels
        parted.append(auroc_difference(first, second, labels).lower > 0)
    assert 0.71 < np.mean(shown) < 0.89
    assert 0.71 < np.mean(parted) < 0.89


def test_no_fewer_than_four_of_five_studies_show_the_rate():
    random, labels = np.random.default_rng(8), labels_of((100, 300))
    rate = smallest_effects(100, 300).smallest_tpr_at_fpr_1pct
    assert rate is not None
    distance = norm.ppf(rate) - norm.ppf(0.01)
    lowers = []
    for seed in range(25):
        scores = random.standard_normal(len(labels)) + distance * labels
        intervals = tpr_intervals(scores, labels, np.arange(len(labels)), seed=seed)
        lowers.append(intervals[0.01].lower)
    assert np.mean(np.array(lowers) > 0.01) >= 0.8


@pytest.mark.parametrize("counts", [(2000, 5000), (20_000, 5000)])
def test_of_many_rows_the_smallest_rate_is_as_many_standard_errors_away_as_shown(counts):
    """In the first world the positive rows make most of the error, in the other the threshold."""
    random, labels = np.random.default_rng(9), labels_of(counts)
    rate = smallest_effects(*counts).smallest_tpr_at_fpr_1pct
    assert rate is not None
    distance = norm.ppf(rate) - norm.ppf(0.01)
    rates = []
    for _ in range(200):
        scores = random.standard_normal(len(labels)) + distance * labels
        rates.append(tpr_at_fpr(scores, labels, 0.01))
    assert rate - 0.01 == pytest.approx(REACH * np.std(rates), rel=0.2)


def test_effects_shrink_with_prompts_and_grow_out_of_fold():
    few, many = smallest_effects(30, 30), smallest_effects(3000, 3000)
    assert (
        few.smallest_auroc > many.smallest_auroc
        and few.smallest_auroc_difference > many.smallest_auroc_difference
    )
    held_out, folded = smallest_effects(200, 200), smallest_effects(200, 200, is_out_of_fold=True)
    assert (
        folded.smallest_auroc > held_out.smallest_auroc
        and folded.smallest_tpr_at_fpr_1pct > held_out.smallest_tpr_at_fpr_1pct
    )
    # At twice the prompts of each class the variance is half as large, near enough.
    assert smallest_effects(400, 400, is_out_of_fold=True).smallest_auroc == pytest.approx(
        held_out.smallest_auroc, abs=2e-4
    )


def test_too_few_negative_prompts_show_no_rate():
    assert smallest_effects(50, 99).smallest_tpr_at_fpr_1pct is None
    assert smallest_effects(50, 100).smallest_tpr_at_fpr_1pct is not None
