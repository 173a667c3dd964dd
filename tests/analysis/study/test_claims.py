"""Verdicts on worlds where the truth is planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from axes.analysis.study.claims import (
    claim_tables,
    definition_differences,
    metric_differences,
    verdicts,
)
from axes.analysis.study.run import find_study, read_definition, run_study, study_result
from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import AxesError
from axes.warehouse.handle import Warehouse
from benchmarks.worlds.verdicts import WORLDS, Verdicts
from tests.worlds import define_study, make_world

WIDTHS = {"alpha": 16, "beta": 20, "gamma": 24}


def decided(root: Path, **world: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Claim -> verdict on the set that no direction was fitted on, and each model's numbers."""
    widths = world.pop("widths", WIDTHS)
    labelled = {"labelled": 100, "other": 150}
    make_world(root, widths=widths, labelled=labelled, benign_count=150, layer_count=1, **world)
    definition = define_study(widths, reference="gamma", evaluate=("other",))
    study_id = run_study(root, definition)
    found = verdicts(connect(root), study_id).table.to_pylist()
    assert len({row["claim"] for row in found}) == 7
    claims = {row["claim"]: row["verdict"] for row in found if row["prompt_set"] == "other"}
    return claims, study_result(root, study_id)["models"]


def test_a_planted_axis_is_shared_and_as_good_as_each_models_own(tmp_path):
    found, _ = decided(tmp_path / "lake")
    assert found["shared_axis"] == "supported"
    assert found["universal_at_least_native"] == "supported"
    # All are alike, so that the weakest has nothing to gain.
    assert found["gains_for_weak_models"] == "not supported"
    assert found["regime_break"] == "not supported"


@pytest.mark.parametrize("seed", [0, 2])
def test_with_nothing_planted_no_claim_is_supported(tmp_path, seed):
    """By chance an axis may reach 0.6 on 300 prompts: undecided then, and never supported."""
    found, models = decided(tmp_path / "lake", strength=0.0, seed=seed)
    assert found["shared_axis"] != "supported"
    assert "supported" not in (found["gains_for_weak_models"], found["regime_break"])
    for numbers in models.values():
        inside = numbers["auroc"]["labelled"]
        assert inside["native"] <= inside["shuffled_labels_upper"] + 0.05
        # Folds of one sample lean on each other: with 12 latent dimensions the range is wide.
        assert 0.2 < inside["native_cross_validated"] < 0.65
        assert 0.35 < numbers["auroc"]["other"]["universal"] < 0.65


def test_a_model_that_shows_the_axis_the_wrong_way_round_breaks_it(tmp_path):
    widths = {**WIDTHS, "delta": 18}
    found, models = decided(tmp_path / "lake", widths=widths, flipped="beta")
    assert found["shared_axis"] == "not supported"
    assert found["universal_at_least_native"] == "not supported"
    assert found["regime_break"] == "supported"
    # The source study's counterexample: good natively, below chance on the others' axis.
    areas = models["beta"]["auroc"]["labelled"]
    assert areas["native"] > 0.9 > 0.1 > areas["leave_one_out"]
    assert models["beta"]["cosine_universal"] < -0.9


def test_the_sql_behind_a_claim_brings_the_rows_that_are_shown(studied):
    connection = connect(studied)
    study_id = rows(connection, "select study_id from evaluations limit 1")[0]["study_id"]
    tables = [verdicts(connection, study_id), *claim_tables(connection, study_id)]
    assert [claim.title for claim in tables[1:3]] == [
        "The models share an axis.",
        "The universal axis is at least as good as a model's own.",
    ]
    assert len(tables) == 1 + 7
    for claim in tables:
        assert rows(connection, claim.statement) == claim.table.to_pylist()


def test_a_study_id_from_a_warehouse_is_a_value_and_never_sql(lake):
    connection = connect(lake)
    hostile = "x' or '1' = '1"
    assert verdicts(connection, hostile).table.num_rows == 0
    assert claim_tables(connection, hostile) == []


def test_studies_differ_in_what_was_changed_and_in_the_figures_that_follow(lake, definition):
    warehouse = Warehouse.open(lake)
    first = find_study(warehouse, definition)
    changed = replace(definition, ridge_lambda=1e6, evaluate=())
    with pytest.raises(AxesError, match="has not been run"):
        find_study(warehouse, changed)
    second = run_study(lake, changed)
    connection = connect(lake)
    assert read_definition(connection, second) == changed
    assert definition_differences(connection, first, second) == [
        {"field": "evaluate", "a": '["other"]', "b": "[]"},
        {"field": "ridge_lambda", "a": "null", "b": "1000000.0"},
    ]
    found = {
        (row["model"], row["prompt_set"], row["metric"]): row
        for row in metric_differences(Warehouse(lake, connection), first, second)
    }
    native = found["alpha", "labelled", "native"]
    assert native["difference"] == 0 and native["lower"] == 0 == native["upper"]
    universal = found["alpha", "labelled", "universal"]
    assert universal["difference"] == pytest.approx(universal["b"] - universal["a"])
    assert universal["lower"] <= universal["difference"] <= universal["upper"]
    # Judged by one of the two only.
    assert found["alpha", "other", "universal"]["b"] is None
    assert found["alpha", "other", "universal"]["lower"] is None
    # No projections behind these, so no paired interval.
    assert found["alpha", None, "cosine_universal"]["lower"] is None


@pytest.mark.parametrize(
    ("world", "verdict"),
    [
        ("word pair only", "cannot tell"),
        ("benign prompts without the concept", "cannot tell"),
        ("two of four flipped", "not supported"),
    ],
)
def test_where_the_study_cannot_tell_it_gives_no_wrong_verdict(world, verdict):
    found = Verdicts(world, pairs=60)(0)
    assert WORLDS[world][1].isdisjoint(found.items())
    assert found["shared_axis"] == verdict
