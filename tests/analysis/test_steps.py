"""What a changed study computes again, counted by the rows that its job wrote."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from analysis import evaluation
from analysis.definition import StudyDefinition
from analysis.study import run_study
from tests.worlds import make_world
from warehouse.connection import connect, rows

DEFINITION = StudyDefinition(
    models=("alpha", "beta", "gamma"),
    reference="gamma",
    prompts="labelled",
    align="benign",
    evaluate=("other",),
)
TABLES = ("alignments", "axes", "evaluations", "projections", "steps")


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("steps") / "lake"
    make_world(
        root,
        widths={"alpha": 16, "beta": 20, "gamma": 24},
        labelled={"labelled": 40, "other": 30, "third": 30},
        benign_count=120,
    )
    run_study(root, DEFINITION)
    return root


@pytest.fixture
def lake(studied: Path, tmp_path: Path) -> Path:
    return shutil.copytree(studied, tmp_path / "lake")


def computed(root: Path, definition: StudyDefinition) -> Counter[str]:
    """Run a study; count what it fitted and computed, by kind."""
    study_id = run_study(root, definition)
    found = rows(
        connect(root),
        """
        with latest as (select max(run_id) as run_id from runs where command = 'study')
        select 'alignment' as kind, model as of from alignments semi join latest using (run_id)
        union all
        select kind, fitted_model from axes semi join latest using (run_id)
        union all
        select 'projections of ' || model, axis_id from projections
        semi join latest using (run_id) group by all
        union all
        select step, model from steps semi join latest using (run_id)
        """,
    )
    assert rows(connect(root), "from evaluations where study_id = ? limit 1", [study_id])
    return Counter(row["kind"] for row in found if not row["kind"].startswith("projections"))


def test_another_seed_leaves_directions_and_given_alignments_as_they_are(lake):
    found = computed(lake, replace(DEFINITION, seed=1))
    # The held-out split of the rows is by seed, so every alignment is; the reference has none.
    assert found["alignment"] == 2
    assert not found["native"]
    assert found["shuffled labels"] == 3
    assert found["held out"] == 1


def test_another_evaluation_set_computes_what_is_judged_on_it_and_nothing_else(lake):
    found = computed(lake, replace(DEFINITION, evaluate=("other", "third")))
    assert found == {"auroc": 3, "baselines": 1, "null axes": 3}


def test_a_set_less_computes_nothing(lake):
    assert not computed(lake, replace(DEFINITION, evaluate=()))


def test_another_lambda_leaves_what_needs_no_alignment(lake):
    found = computed(lake, replace(DEFINITION, ridge_lambda=10.0))
    assert found["alignment"] == 2 and found["universal"] == 1 and found["leave_one_out"] == 3
    assert not found["native"] and not found["baselines"] and not found["shuffled labels"]


def test_a_changed_prompt_leaves_the_alignments(lake):
    """The last pair of the set goes: what rests on the set is made again."""
    for table, partition in (("prompts", "prompt_set=labelled"), ("labels", "labeler=dataset")):
        for path in (lake / table / partition).glob("*.parquet"):
            kept = pl.read_parquet(path, hive_partitioning=False).filter(
                ~pl.col("prompt_id").is_in(["labelled-00078", "labelled-00079"])
            )
            kept.write_parquet(path)
    found = computed(lake, DEFINITION)
    assert not found["alignment"]
    assert found["native"] == 9 and found["shuffled labels"] == 3
    assert found["baselines"] == 2


def content(root: Path, table: str) -> list[dict]:
    """The rows of a table but for which job wrote them."""
    return rows(connect(root), f"select * exclude (run_id) from {table} order by all")


@pytest.mark.parametrize("calls_before", [0, 3, 8, 12])
def test_killed_and_run_again_ends_with_the_rows_of_one_that_was_not(
    studied, tmp_path, monkeypatch, calls_before
):
    """Killed before some step, with everything before it written and nothing after."""
    root = tmp_path / "lake"
    make_world(
        root,
        widths={"alpha": 16, "beta": 20, "gamma": 24},
        labelled={"labelled": 40, "other": 30, "third": 30},
        benign_count=120,
    )
    original, calls = evaluation.Steps.figures, Counter[str]()

    def killed(self, step, inputs, compute, **place):
        calls["figures"] += 1
        if calls["figures"] > calls_before:
            raise KeyboardInterrupt
        return original(self, step, inputs, compute, **place)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation.Steps, "figures", killed)
        with pytest.raises(KeyboardInterrupt):
            run_study(root, DEFINITION)
    assert content(root, "evaluations") == []
    assert len(content(root, "steps")) == calls_before
    run_study(root, DEFINITION)
    for table in TABLES:
        assert content(root, table) == content(studied, table), table
