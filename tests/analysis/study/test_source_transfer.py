from __future__ import annotations

import numpy as np
import pytest

from axes.analysis.methods.nulls import fitted_scores
from axes.analysis.study.held_out import source_contrasts, source_matrix
from axes.warehouse.errors import LabelError

SOURCES = np.repeat(["p1", "p2", "n1", "n2"], 60)
LABELS = np.repeat([True, True, False, False], 60)
GROUPS = np.arange(240)


def matrix(shared: float, own: float, seed: int = 0) -> dict[tuple[str, str], float]:
    """Each source has a direction of its own; positive prompts share one more."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((240, 30))
    x[:, 0] += shared * LABELS
    for column, source in enumerate(("p1", "p2", "n1", "n2"), start=1):
        x[:, column] += own * (source == SOURCES)
    rows = source_matrix(
        "native",
        lambda seen: fitted_scores(x, np.tile(LABELS, (len(seen), 1)), seen),
        LABELS,
        GROUPS,
        source_contrasts(list(SOURCES), LABELS),
    )
    return {(row.fitted_on, row.judged_on): row.estimate for row in rows}


def test_a_direction_of_sources_does_not_carry_over_to_others():
    found = matrix(shared=0.0, own=4.0)
    assert len(found) == 16
    assert found["p1 | n1", "p1 | n1"] > 0.95
    assert found["p1 | n1", "p2 | n2"] == pytest.approx(0.5, abs=0.15)


def test_a_direction_of_classes_carries_over():
    found = matrix(shared=4.0, own=0.0)
    assert min(found.values()) > 0.95


def test_nothing_planted_is_at_chance_on_the_diagonal_too():
    found = [matrix(0.0, 0.0, seed)["p1 | n1", "p1 | n1"] for seed in range(20)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_a_source_of_both_classes_stands_alone_and_a_small_one_is_left_out():
    labels = LABELS.copy()
    labels[:30] = False
    sources = list(SOURCES)
    sources[-1] = "tiny"
    names = list(source_contrasts(sources, labels))
    assert names == ["p1", "p2 | n1", "p2 | n2"]


def test_a_set_without_usable_sources_is_refused():
    contrasts = source_contrasts([None] * 10, np.arange(10) < 5)
    with pytest.raises(LabelError, match="has 20 prompts of each class"):
        source_matrix(
            "native", lambda seen: 1.0 * seen, np.arange(10) < 5, np.arange(10), contrasts
        )
