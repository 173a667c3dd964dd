from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from axes.analysis.methods.nulls import fitted_scores
from axes.analysis.study.robustness.held_out import (
    EvaluationDefinition,
    run_evaluation,
    source_contrasts,
    source_matrix,
)
from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import LabelError
from axes.warehouse.handle import Warehouse
from tests.worlds import make_world

# The world's texts are made from one template.
DEFINITION = EvaluationDefinition(
    model="alpha", prompt_sets=("labelled", "other"), by="split", least_overlap=1.0
)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    made = make_world(
        tmp_path_factory.mktemp("evaluated") / "lake",
        widths={"alpha": 16},
        labelled={"labelled": 60, "other": 40},
        benign_count=20,
    )
    return made.root, run_evaluation(Warehouse.open(made.root), DEFINITION)


def test_every_layer_is_judged_out_of_fold_and_against_words_once(evaluated):
    root, study_id = evaluated
    before = sorted(root.rglob("*.parquet"))
    assert run_evaluation(Warehouse.open(root), DEFINITION) == study_id
    assert sorted(root.rglob("*.parquet")) == before
    found = rows(connect(root), "from v_layer_tests where study_id = ? order by layer", [study_id])
    assert [row["layer"] for row in found] == [0, 1, 2]
    for row in found:
        assert 0.85 < row["auroc_lower"] < row["auroc"] <= row["in_sample"] + 0.02
        assert row["p_value"] < 0.05
        assert row["p_value"] <= row["p_value_adjusted"] <= 3 * row["p_value"] + 1e-12


def test_ranks_are_rows_on_request_and_leave_the_key_of_other_evaluations(evaluated):
    root, study_id = evaluated
    assert "max_rank" not in DEFINITION.settings
    ranked = run_evaluation(Warehouse.open(root), replace(DEFINITION, max_rank=2))
    assert ranked != study_id
    found = rows(
        connect(root),
        "from evaluations where study_id = ? and component is not null order by component",
        [ranked],
    )
    kept = {(row["scorer"], row["metric"], row["component"]): row for row in found}
    first = kept["subspace", "auroc", 1]
    assert first["lower"] > kept["subspace_shuffled_labels", "auroc", 1]["upper"]
    # One direction is planted: the second dimension adds nothing, and the halves agree on one.
    assert kept["subspace_gain", "auroc_difference", 2]["lower"] < 0
    assert kept["subspace", "angle_of_halves", 1]["estimate"] < 45
    # Along one direction both classes differ in their mean: the model's own direction does as well.
    assert kept["subspace_minus_native", "auroc_difference", 1]["upper"] > -0.02
    # The norm ignores the side.
    assert kept["subspace_norm", "auroc", 1]["estimate"] < first["estimate"]
    assert len(kept) == len(found) == 11


def test_in_sample_figures_are_labelled_so_and_only_beside_held_out_ones(evaluated):
    root, study_id = evaluated
    found = rows(
        connect(root),
        "select scorer, bool_and(is_in_sample) as is_in_sample, count(*) as count "
        "from evaluations where study_id = ? and judged_on is null and metric = 'auroc' "
        "group by scorer",
        [study_id],
    )
    told = {row["scorer"]: row["is_in_sample"] for row in found}
    assert told == {
        "native": True,
        "native_cross_validated": False,
        "native_layer_chosen": False,
        "word_pairs": False,
    }


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
        partial(fitted_scores, x, LABELS),
        LABELS,
        GROUPS,
        source_contrasts(list(SOURCES), LABELS),
    )
    return {(row.fitted_on, row.judged_on): row.estimate for row in rows}


def test_a_direction_of_classes_carries_over_to_other_sources_and_one_of_sources_does_not():
    assert min(matrix(shared=4.0, own=0.0).values()) > 0.95
    found = matrix(shared=0.0, own=4.0)
    assert len(found) == 16
    assert found["p1 | n1", "p1 | n1"] > 0.95
    assert found["p1 | n1", "p2 | n2"] == pytest.approx(0.5, abs=0.15)


def test_nothing_planted_is_at_chance_on_the_diagonal_too():
    found = [matrix(0.0, 0.0, seed)["p1 | n1", "p1 | n1"] for seed in range(12)]
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
