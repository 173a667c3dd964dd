"""A study in a warehouse is diagnosed once, and what was found is asked with SQL."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from axes.analysis.report.report import write_report
from axes.analysis.study.diagnosis.diagnose import diagnose_study, find_diagnosed
from axes.analysis.study.run import run_study
from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import AxesError
from axes.warehouse.tables.catalog import check_rules
from tests.commands import printed
from tests.worlds import define_study, make_world

WIDTHS = {"alpha": 24, "beta": 32, "gamma": 40, "delta": 36}
DEFINITION = define_study(
    WIDTHS, reference="gamma", evaluate=("other",), ridge_lambda=1.0, label="greek"
)


@pytest.fixture(scope="module")
def diagnosed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The counterexample: beta's class means are carried by a few prompts."""
    made = make_world(
        tmp_path_factory.mktemp("diagnosed") / "lake",
        widths=WIDTHS,
        outliers="beta",
        layer_count=1,
        labelled={"labelled": 90, "other": 60},
    )
    study_id = run_study(made.root, DEFINITION)
    diagnose_study(made.root, study_id)
    return made.root, study_id


def test_the_counterexample_is_found_in_a_warehouse_once(diagnosed):
    root, study_id = diagnosed
    before = sorted(root.rglob("*.parquet"))
    diagnose_study(root, study_id)
    assert sorted(root.rglob("*.parquet")) == before
    found = rows(connect(root), "from v_diagnoses where study_id = ? order by all", [study_id])
    assert len(found) == 4 * 2
    for row in found:
        if row["model"] == "beta":
            assert row["cosine"] > 0.6 and row["auroc_upper"] < 0.5
            assert row["diagnosis"].startswith("few_rows: ")
            assert row["is_contradiction"]
            assert row["normal_auroc"] > 0.5 > row["auroc"]
            assert 0 < row["separation"] < row["largest_separation"]
            assert row["trimmed_gap"] < 0
        else:
            assert row["diagnosis"].startswith("healthy: ")
            assert not row["is_contradiction"]


def test_the_numbers_are_those_of_the_study(diagnosed):
    found = rows(
        connect(diagnosed[0]),
        """
        select v_diagnoses.auroc, v_diagnoses.cosine, v_study.universal, v_study.cosine_universal,
            v_diagnoses.native_auroc, v_study.native
        from v_diagnoses
        inner join v_study using (study_id, model, prompt_set)
        """,
    )
    assert len(found) == 8
    for row in found:
        assert row["auroc"] == pytest.approx(row["universal"], abs=1e-6)
        assert row["native_auroc"] == pytest.approx(row["native"], abs=1e-6)
        assert row["cosine"] == pytest.approx(row["cosine_universal"], abs=1e-6)


def test_every_figure_is_a_row_of_its_own_and_every_check_is_there(diagnosed):
    root, _ = diagnosed
    connection = connect(root)
    stored = rows(connection, "select figures from diagnostics where model = 'gamma'")
    counted = rows(connection, "select count(metric) as n from v_diagnostics where model = 'gamma'")
    assert counted[0]["n"] == sum(len(json.loads(row["figures"])) for row in stored)
    checks = rows(
        connection,
        "select model, prompt_set, count(distinct check_name) as n from v_diagnostics group by all",
    )
    assert {row["n"] for row in checks} == {14}
    for check in ("diagnostics_unique_key", "diagnostics_known_study"):
        assert not rows(connection, check_rules()[check])


def test_the_command_takes_a_study_or_a_model(diagnosed):
    root, study_id = diagnosed
    ask = partial(printed, "diagnose", "--root", root)
    assert len(ask()) == len(ask(study_id[:6])) == 8
    assert {row["model"] for row in ask("--model", "beta")} == {"beta"}
    with pytest.raises(AxesError, match="zeta is neither the start of a study's id nor a model"):
        find_diagnosed(connect(root), "zeta")
    checks = ask("--model", "beta", "--checks")
    assert len(checks) == 2 * 14
    assert {row["check_name"] for row in checks if row["is_fault"]} >= {"disagreement", "few_rows"}


def test_warnings_and_diagnoses_are_in_the_report(diagnosed, tmp_path):
    root, study_id = diagnosed
    text = write_report(root, tmp_path / "report.md", study_id).read_text()
    assert "## Warnings" in text and "cosine_alone" in text and "reversed" in text
    assert "## Diagnoses" in text and "few_rows: " in text
