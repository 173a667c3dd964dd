from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from axes.analysis.methods.directions import difference_in_means
from axes.analysis.methods.erasure import Eraser, erasure_scores, leace
from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.splits import grouped_folds
from axes.warehouse.errors import LabelError

LABELS, PAIRS = np.tile([True, False], 300), np.repeat(np.arange(300), 2)


def correlated(seed=0, strength=2.0):
    """Classes that differ along a direction which other, louder ones lean on."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((12, 12))
    x = random.standard_normal((600, 12)) @ mixing + 30.0
    return x + strength * np.outer(LABELS - 0.5, mixing[0])


def areas(scores: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: auroc(values, LABELS) for name, values in scores.items()}


def test_no_covariance_with_the_labels_is_left_on_the_fitted_rows():
    x = correlated()
    erased = leace(x, LABELS).apply(x)
    np.testing.assert_allclose(erased[LABELS].mean(axis=0), erased[~LABELS].mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(erased.mean(axis=0), x.mean(axis=0), atol=1e-9)
    probe = LogisticRegression(C=1e6, max_iter=2000).fit(erased, LABELS)
    assert np.abs(probe.decision_function(erased)).max() < 0.01


def test_no_other_eraser_of_the_class_means_moves_the_rows_less():
    """Among the maps x - d a'(x - m) with a'd = 1, which all make the means equal."""
    x = correlated()
    eraser = leace(x, LABELS)
    moved = np.square(eraser.apply(x) - x).sum()
    random = np.random.default_rng(1)
    for _ in range(50):
        other = eraser.functional + 0.1 * random.standard_normal(12)
        other = other / (other @ eraser.direction)
        shift = np.outer((x - x.mean(axis=0)) @ other, eraser.direction)
        # The covariance of the eraser is shrunk a little, so it is best up to that.
        assert np.square(shift).sum() > 0.999 * moved


def test_removal_leaves_nothing_along_the_direction_but_other_signs_of_the_class():
    x = correlated()
    direction = difference_in_means(x, LABELS).vector
    left = Eraser(direction, direction, x.mean(axis=0)).apply(x)
    np.testing.assert_allclose(left @ direction, np.full(600, x.mean(axis=0) @ direction))
    assert np.abs(left @ np.eye(12)[0] - x @ np.eye(12)[0]).max() > 1e-3


def test_probes_find_what_is_planted_and_chance_after_it_is_erased():
    found = areas(erasure_scores(correlated(strength=4.0), LABELS, PAIRS))
    assert found["before"] > 0.9 and found["before_fresh"] > 0.9
    assert found["erased"] == pytest.approx(0.5, abs=0.06)
    assert found["erased_fresh"] < found["before_fresh"] - 0.2


def test_with_nothing_planted_every_probe_is_at_chance():
    found = areas(erasure_scores(correlated(strength=0.0, seed=5), LABELS, PAIRS))
    assert all(0.38 < area < 0.62 for area in found.values())


def test_a_fold_is_not_seen_by_what_judges_it():
    """Ruined rows of one pair change no other fold's scores, nor those of its own fold mates."""
    x = correlated()
    folds = grouped_folds(LABELS, PAIRS, fold_count=4, seed=0)
    fold = folds[0]
    ruined = x.copy()
    ruined[:2] = 1e4
    one, other = erasure_scores(x, LABELS, PAIRS), erasure_scores(ruined, LABELS, PAIRS)
    rest = (folds == fold) & (PAIRS != 0)
    for name in one:
        np.testing.assert_allclose(one[name][rest], other[name][rest])


def test_too_few_groups_are_refused():
    with pytest.raises(LabelError, match="evaluated on 4 folds"):
        erasure_scores(np.ones((6, 2)), LABELS[:6], PAIRS[:6])
