"""What a study computes again: what rests on a change, and nothing after a kill is lost."""

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


KINDS = {
    *("alignment", "native", "aligned", "universal", "leave_one_out", "auroc", "null axes"),
    *("baselines", "shared", "shuffled labels", "erasure", "nested", "held out"),
}


@pytest.mark.parametrize(
    ("changed", "expected", "kept"),
    [
        # The held-out split of the rows is by seed, so every alignment is; the reference has none.
        ({"seed": 1}, {"alignment": 2, "shuffled labels": 3, "held out": 1}, {"native"}),
        ({"evaluate": ("other", "third")}, {"auroc": 3, "baselines": 1, "null axes": 3}, KINDS),
        ({"evaluate": ()}, {}, KINDS),
        (
            {"ridge_lambda": 10.0},
            {"alignment": 2, "universal": 1, "leave_one_out": 3},
            {"native", "baselines", "shuffled labels"},
        ),
    ],
    ids=lambda value: next(iter(value), "nothing") if isinstance(value, dict) else "",
)
def test_a_change_computes_what_rests_on_it_and_keeps_the_rest(
    lake, definition, changed, expected, kept
):
    found = computed(lake, replace(definition, **changed))
    assert {kind: found[kind] for kind in expected} == expected
    assert not kept & (found.keys() - expected.keys())
    names = rows(connect(lake), "select name from axes where kind = 'universal' order by all")
    lambdas = {row["name"].rpartition("/")[2] for row in names}
    assert lambdas == {"lambda-held_out"} | ({"lambda-10"} if "ridge_lambda" in changed else set())


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
    assert found["baselines"] == found["held out"] == 1


def content(root: Path, table: str) -> list[dict]:
    """The rows of a table but for which job wrote them."""
    return rows(connect(root), f"select * exclude (run_id) from {table} order by all")


def test_killed_and_run_again_ends_with_the_rows_of_one_that_was_not(
    studied, small_world, definition, monkeypatch
):
    """Killed before some step, twice, with everything before it written and nothing after."""
    original = evaluations.Steps.compute
    for calls_before in (2, 11):
        left = iter(range(calls_before))

        def killed(self, *step, left=left, **place):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return original(self, *step, **place)

        with monkeypatch.context() as patch:
            patch.setattr(evaluations.Steps, "compute", killed)
            with pytest.raises(KeyboardInterrupt):
                run_study(small_world, definition)
        assert content(small_world, "evaluations") == []
        assert len(content(small_world, "steps")) == calls_before
    run_study(small_world, definition)
    for table in TABLES:
        assert content(small_world, table) == content(studied, table), table
