"""What a changed study computes again, counted by the rows that its job wrote."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from axes.analysis.study import evaluations
from axes.analysis.study.definition import StudyDefinition
from axes.analysis.study.run import run_study
from axes.warehouse.connection import connect, rows

TABLES = ("alignments", "axes", "evaluations", "projections", "steps")


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
        select step, model from steps semi join latest using (run_id)
        """,
    )
    assert rows(connect(root), "from evaluations where study_id = ? limit 1", [study_id])
    return Counter(row["kind"] for row in found)


def test_another_seed_leaves_directions_and_given_alignments_as_they_are(lake, definition):
    found = computed(lake, replace(definition, seed=1))
    # The held-out split of the rows is by seed, so every alignment is; the reference has none.
    assert found["alignment"] == 2
    assert not found["native"]
    assert found["shuffled labels"] == 3
    assert found["held out"] == 1


def test_another_evaluation_set_computes_what_is_judged_on_it_and_nothing_else(lake, definition):
    found = computed(lake, replace(definition, evaluate=("other", "third")))
    assert found == {"auroc": 3, "baselines": 1, "null axes": 3}


def test_a_set_less_computes_nothing(lake, definition):
    assert not computed(lake, replace(definition, evaluate=()))


def test_another_lambda_leaves_what_needs_no_alignment(lake, definition):
    found = computed(lake, replace(definition, ridge_lambda=10.0))
    assert found["alignment"] == 2 and found["universal"] == 1 and found["leave_one_out"] == 3
    assert not found["native"] and not found["baselines"] and not found["shuffled labels"]


def test_a_changed_prompt_leaves_the_alignments(lake, definition):
    """The last pair of the set goes: what rests on the set is made again."""
    for table, partition in (("prompts", "prompt_set=labelled"), ("labels", "labeler=dataset")):
        for path in (lake / table / partition).glob("*.parquet"):
            kept = pl.read_parquet(path, hive_partitioning=False).filter(
                ~pl.col("prompt_id").is_in(["labelled-00078", "labelled-00079"])
            )
            kept.write_parquet(path)
    found = computed(lake, definition)
    assert not found["alignment"]
    assert found["native"] == 9 and found["shuffled labels"] == 3
    assert found["baselines"] == 2


def content(root: Path, table: str) -> list[dict]:
    """The rows of a table but for which job wrote them."""
    return rows(connect(root), f"select * exclude (run_id) from {table} order by all")


@pytest.mark.parametrize("calls_before", [2, 11])
def test_killed_and_run_again_ends_with_the_rows_of_one_that_was_not(
    studied, small_world, definition, monkeypatch, calls_before
):
    """Killed before some step, with everything before it written and nothing after."""
    original, calls = evaluations.Steps.compute, Counter[str]()

    def killed(self, step, inputs, compute, **place):
        calls["figures"] += 1
        if calls["figures"] > calls_before:
            raise KeyboardInterrupt
        return original(self, step, inputs, compute, **place)

    with monkeypatch.context() as patch:
        patch.setattr(evaluations.Steps, "compute", killed)
        with pytest.raises(KeyboardInterrupt):
            run_study(small_world, definition)
    assert content(small_world, "evaluations") == []
    assert len(content(small_world, "steps")) == calls_before
    run_study(small_world, definition)
    for table in TABLES:
        assert content(small_world, table) == content(studied, table), table
