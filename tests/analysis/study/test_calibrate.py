"""Calibrations through the command line and back, by Python and by SQL."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from axes.analysis.projections import read_scores
from axes.analysis.stats import CALIBRATIONS
from axes.analysis.study.calibrate import stored_calibration
from axes.analysis.study.run import run_study
from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import CalibrationError, CoverageError
from axes.warehouse.handle import Warehouse
from axes.warehouse.maintenance.check import check
from axes.warehouse.maintenance.repair import restore_commands
from tests.commands import ok, printed
from tests.worlds import define_study, make_world

DEFINITION = define_study(("alpha", "beta"), evaluate=("other",), label="greek")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a universal axis, and all calibrations of it on half of the other prompts."""
    made = make_world(
        tmp_path_factory.mktemp("calibrations") / "lake",
        widths={"alpha": 16, "beta": 20},
        labelled={"labelled": 60, "other": 60},
        layer_count=1,
        benign_count=100,
    )
    run_study(made.root, replace(DEFINITION, ridge_lambda=1.0))
    methods = [f"--calibration={one}" for one in CALIBRATIONS]
    invoke(made.root, "calibrate", universal(made.root), *methods)
    return made.root


# The texts of the world are made from one template.
TRANSFER = ("--min-overlap", "1", "--seed", "3")


@pytest.fixture(scope="module")
def verdicts(root: Path) -> list[dict]:
    """A transfer of the thresholds between the two models, as its command shows it."""
    return invoke(root, "transfer", universal(root), *TRANSFER)


def invoke(root: Path, command: str, axis: str, *options: str) -> list[dict]:
    return printed(command, axis, "--prompts", "other", "--root", root, *options)


def universal(root: Path) -> str:
    (row,) = rows(connect(root), "select axis_id from axes where kind = 'universal'")
    return row["axis_id"]


@pytest.mark.parametrize("method", CALIBRATIONS)
def test_what_was_stored_is_read_back_and_sql_says_the_same(root, method):
    connection, axis_id = connect(root), universal(root)
    for model in ("alpha", "beta"):
        fitted = stored_calibration(connection, axis_id, f"id-{model}", method)
        scores = read_scores(Warehouse(root, connection), axis_id, f"id-{model}", "other")
        found = rows(
            connection,
            """
            select probability, threshold_probability, is_predicted_positive, is_calibration_row
            from v_calibrated_projections
            inner join prompts using (prompt_set, prompt_id)
            where model = ? and method = ? and prompt_set = 'other'
            order by position
            """,
            [model, method],
        )
        expected = fitted.probability(scores.values)
        assert [row["probability"] for row in found] == pytest.approx(expected, abs=1e-12)
        called = scores.values >= fitted.threshold
        assert [row["is_predicted_positive"] for row in found] == called.tolist()
        at = float(fitted.probability(np.array([fitted.threshold]))[0])
        assert found[0]["threshold_probability"] == pytest.approx(at)
        assert sum(row["is_calibration_row"] for row in found) == 60
        judged = [index for index, row in enumerate(found) if not row["is_calibration_row"]]
        assert (called == scores.labels)[judged].mean() > 0.85


def test_calibration_rows_are_whole_pairs_the_same_for_every_model_and_soundly_stored(root):
    found = rows(connect(root), "select distinct prompt_ids from calibrations")
    assert len(found) == 1
    pairs = {int(prompt_id.rpartition("-")[2]) // 2 for prompt_id in found[0]["prompt_ids"]}
    assert len(pairs) == 30
    broken = {row["check"] for row in check(root).to_pylist() if row["row_count"]}
    # The world writes its rows without a job.
    assert broken == {"runs_known"}


def test_calibrating_again_writes_nothing_and_prints_the_same(root):
    again = invoke(root, "calibrate", universal(root), "--calibration", "platt")
    assert [row["model"] for row in again] == ["alpha", "beta"]
    assert rows(connect(root), "select count(*) as count from calibrations")[0]["count"] == 8


def test_of_two_calibrations_the_last_is_read_unless_the_prompts_are_named(root):
    connection, axis_id = connect(root), universal(root)
    earlier = stored_calibration(connection, axis_id, "id-alpha", "platt")
    invoke(root, "calibrate", axis_id, "--fit-fraction", "0.9", "--calibration", "platt")
    later = stored_calibration(connect(root), axis_id, "id-alpha", "platt", prompt_set="other")
    assert later.positive_count > earlier.positive_count
    with pytest.raises(CalibrationError, match=r"no platt calibration .* run `axes calibrate"):
        stored_calibration(connection, axis_id, "id-alpha", "platt", prompt_set="benign")


def test_a_transfer_is_stored_and_told_by_its_views(root, verdicts):
    assert [row["method"] for row in verdicts] == sorted([*CALIBRATIONS, "uncalibrated"])
    assert {row["pair_count"] for row in verdicts} == {2}
    matrix, curve = (
        invoke(root, "transfer", universal(root), *TRANSFER, "--show", shown)
        for shown in ("matrix", "curve")
    )
    assert len(matrix) == 5 * 4
    for row in matrix:
        assert row["is_own"] == (row["fitted_on"] == row["model"])
        assert (row["accuracy_loss_p"] is None) == row["is_own"]
        assert not row["is_in_sample"]
    assert {row["labelled_count"] for row in curve} == {10, 20, 50}
    assert rows(connect(root), "select count(distinct study_id) as n from v_study")[0]["n"] == 1


def test_prompts_without_projections_are_refused(root):
    with pytest.raises(CoverageError, match="0 of the 100 prompts of benign are labelled"):
        read_scores(Warehouse.open(root), universal(root), "id-alpha", "benign")


def test_lost_rows_are_brought_back_by_the_command_that_is_named(root, verdicts):
    commands = {
        row["command"]: restore_commands(root, [row["run_id"]])[row["run_id"]]
        for row in rows(
            connect(root),
            "select * from runs where command in ('calibrate', 'transfer') order by started_at",
        )
    }
    assert "--seed 3" in commands["transfer"]
    for command in commands.values():
        written = sorted(path for path in root.rglob("*.parquet") if "runs" not in path.parts)
        ok(*shlex.split(command)[1:])
        after = sorted(path for path in root.rglob("*.parquet") if "runs" not in path.parts)
        assert written == after
