from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from axes.analysis.report.report import sensitivity_warnings, write_report
from axes.analysis.study.robustness import sensitivity
from axes.analysis.study.robustness.sensitivity import (
    DRAW_COUNT,
    FACTORS,
    FRACTIONS,
    measure_sensitivity,
)
from axes.analysis.study.run import run_study
from axes.warehouse.connection import connect, rows
from tests.rows import put
from tests.worlds import define_study, make_world

DEFINITION = define_study(("alpha", "beta", "gamma"), evaluate=("other",), align_rows=200)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("sensitivity") / "lake"
    make_world(
        root,
        widths={"alpha": 24, "beta": 32, "gamma": 40},
        strength=1.0,
        noise=0.3,
        labelled={"labelled": 60, "other": 40},
    )
    study_id = run_study(root, DEFINITION)
    measure_sensitivity(root, study_id, DEFINITION)
    return root, study_id


def test_every_choice_is_varied_and_only_numbers_are_kept(measured):
    root, _ = measured
    connection = connect(root)
    counted = rows(
        connection, "select setting, count(distinct value) as n from variations group by 1"
    )
    assert {row["setting"]: row["n"] for row in counted} == {
        "reference": 3,
        "ridge_lambda": len(FACTORS),
        "layer_fraction": len(FRACTIONS),
        "align_rows": 4 - 1,  # 100, the study's own 200, and 300 of the 400 that are there
        "prompts": DRAW_COUNT,
    }
    assert max(FACTORS) / min(FACTORS) == pytest.approx(1e6)
    assert len(rows(connection, "select axis_id from axes")) == 9 + 3 + 1 + 3
    # Half of the prompts are evaluated on the other half.
    halves = rows(
        connection,
        "select distinct prompt_set, is_in_sample from variations "
        "where setting = 'prompts' and prompt_set is not null order by all",
    )
    assert [tuple(row.values()) for row in halves] == [("labelled", False), ("other", False)]


def test_the_studys_own_choice_gives_the_studys_own_figures(measured):
    root, _ = measured
    found = rows(
        connect(root),
        """
        select variations.setting, variations.estimate, evaluations.estimate as own
        from variations
        inner join evaluations
            on variations.study_id = evaluations.study_id
            and variations.model = evaluations.model
            and variations.prompt_set is not distinct from evaluations.prompt_set
            and (variations.figure = evaluations.scorer and evaluations.metric = 'auroc'
                or variations.figure = evaluations.metric)
        where variations.is_own
        """,
    )
    # 3 models, 4 settings; 3 AUROCs on 2 sets and a cosine.
    assert len(found) == 3 * 4 * 7
    for row in found:
        assert row["estimate"] == pytest.approx(row["own"], abs=1e-3), row


def test_the_range_stands_beside_the_figure_and_what_moves_is_warned_of(measured, tmp_path):
    root, study_id = measured
    connection = connect(root)
    for row in rows(connection, "from v_study where study_id = ?", [study_id]):
        assert row["universal_min"] <= row["universal"] <= row["universal_max"]
    warnings = sensitivity_warnings(connection, study_id)
    fragile = rows(
        connection,
        "select distinct model, prompt_set from v_sensitivity "
        "where is_fragile and metric = 'universal'",
    )
    assert len(warnings) == len(fragile) > 0
    text = write_report(root, tmp_path / "report.md", study_id).read_text()
    assert all(warning in text for warning in warnings)


def test_b1_a_set_that_the_study_has_no_figure_of_breaks_no_report(measured, tmp_path):
    """As a set of paraphrases, which is varied with the others."""
    root = shutil.copytree(measured[0], tmp_path / "lake")
    (varied,) = rows(connect(root), "from stg_variations where figure = 'universal' limit 1")
    for value, estimate in (("a", 0.2), ("b", 0.9)):
        row = {**varied, "prompt_set": "paraphrases", "value": value, "estimate": estimate}
        put(root, "variations", row)
    connection = connect(root)
    assert rows(connection, "from v_sensitivity where own is null") == []
    assert not any("paraphrases" in line for line in sensitivity_warnings(connection, measured[1]))
    write_report(root, tmp_path / "report.md", measured[1])


def test_without_a_measurement_the_study_says_so(measured, tmp_path):
    root = shutil.copytree(measured[0], tmp_path / "lake")
    for path in (root / "variations").glob("[0-9a-f]*.parquet"):
        path.unlink()
    (warning,) = sensitivity_warnings(connect(root), measured[1])
    assert "is not measured: run `axes study sensitivity" in warning


def test_a_measurement_cut_short_goes_on_and_gives_the_same(measured, tmp_path):
    root, study_id = shutil.copytree(measured[0], tmp_path / "lake"), measured[1]

    def told() -> tuple[list[object], list[float]]:
        # Sums may round otherwise from run to run.
        asked = "select * exclude (run_id, estimate), estimate from variations order by all"
        found = rows(connect(root), asked)
        return [{**row, "estimate": None} for row in found], [row["estimate"] for row in found]

    before = told()
    lost = sorted((root / "variations").glob("[0-9a-f]*.parquet"))[:3]
    for path in lost:
        path.unlink()
    kept = {
        path: path.stat().st_mtime_ns for path in (root / "variations").glob("[0-9a-f]*.parquet")
    }
    measure_sensitivity(root, study_id, DEFINITION)
    after = told()
    assert after[0] == before[0]
    assert after[1] == pytest.approx(before[1], rel=1e-12, nan_ok=True)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_a_given_lambda_is_the_one_that_is_varied(measured, tmp_path, monkeypatch):
    root = shutil.copytree(measured[0], tmp_path / "lake")
    only = {"ridge_lambda": sensitivity._SETTINGS["ridge_lambda"]}
    monkeypatch.setattr(sensitivity, "_SETTINGS", only)
    measure_sensitivity(root, "another", replace(DEFINITION, ridge_lambda=10.0))
    found = rows(
        connect(root),
        "select distinct number, ridge_lambda from variations "
        "where study_id = 'another' and model = 'alpha'",
    )
    assert len(found) == len(FACTORS)
    for row in found:
        assert row["ridge_lambda"] == pytest.approx(10 * row["number"])
