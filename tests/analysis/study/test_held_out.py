from __future__ import annotations

from pathlib import Path

import pytest

from axes.analysis.study.held_out import EvaluationDefinition, run_evaluation
from axes.warehouse.connection import connect, rows
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


def test_every_layer_is_judged_out_of_fold_and_against_words(evaluated):
    root, study_id = evaluated
    found = rows(connect(root), "from v_layer_tests where study_id = ? order by layer", [study_id])
    assert [row["layer"] for row in found] == [0, 1, 2]
    for row in found:
        assert 0.85 < row["auroc_lower"] < row["auroc"] <= row["in_sample"] + 0.02
        assert row["p_value"] < 0.05
        assert row["p_value"] <= row["p_value_adjusted"] <= 3 * row["p_value"] + 1e-12


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
        "bag_of_words": False,
    }


def test_running_it_again_writes_nothing(evaluated):
    root, study_id = evaluated
    before = sorted(root.rglob("*.parquet"))
    assert run_evaluation(Warehouse.open(root), DEFINITION) == study_id
    assert sorted(root.rglob("*.parquet")) == before
