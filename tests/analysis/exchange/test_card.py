from __future__ import annotations

import json
from pathlib import Path

import pytest

from axes.analysis.exchange.card import axis_card
from axes.analysis.projections import read_scores, score
from axes.analysis.stats.auroc import auroc_interval
from axes.analysis.study.calibrate import calibrate
from axes.warehouse.axes import find_axis
from tests.rows import ask, opened

NAME = "universal/gamma/2/labelled/benign/lambda-held_out"


@pytest.fixture(scope="module")
def card(studied) -> dict:
    return card_of(studied)


def card_of(root: Path, name: str = NAME) -> dict:
    warehouse = opened(root)
    return axis_card(warehouse, find_axis(warehouse, name))


def test_the_card_says_what_it_was_made_from_and_in_which_space(card):
    assert card["space_model"] == "gamma" and card["space"]["d_model"] == 24
    assert card["site"] == "resid_post" and card["pooling"] == "last5_mean"
    assert "hidden_states[layer + 1]" in card["layer_convention"]
    assert card["method"] == "svd" and card["prompt_set"] == "labelled" and card["row_set_hash"]
    assert (card["positive_count"], card["negative_count"]) == (40, 40)
    assert len(card["source_axis_ids"]) == 3
    assert "vector" not in card
    json.dumps(card)


def test_the_studys_figures_are_there_with_their_intervals(studied, card):
    found = {
        (row["model"], row["prompt_set"]): row
        for row in card["evaluation"]
        if row["metric"] == "auroc"
    }
    (expected,) = ask(
        studied,
        "select estimate, lower, upper from evaluations where scorer = 'universal' "
        "and metric = 'auroc' and model = 'alpha' and prompt_set = 'other'",
    )
    row = found["alpha", "other"]
    assert {name: row[name] for name in expected} == expected
    assert row["lower"] < row["estimate"] <= row["upper"]
    assert found["alpha", "labelled"]["is_in_sample"] and not row["is_in_sample"]


def test_the_card_is_the_same_at_every_export_with_singular_values_in_order(studied, card):
    values = [row["estimate"] for row in card["evaluation"] if row["metric"] == "singular_value"]
    assert len(values) == 3 and values == sorted(values, reverse=True)
    assert all(json.dumps(card_of(studied)) == json.dumps(card) for _ in range(8))


def test_what_is_scored_and_in_no_study_has_a_figure_with_an_interval_too(lake, card):
    before = {(row["model"], row["prompt_set"]) for row in card["evaluation"]}
    assert ("beta", "third") not in before
    score(lake, NAME, prompt_sets=["third"])
    (row,) = (
        row
        for row in card_of(lake)["evaluation"]
        if (row["model"], row["prompt_set"]) == ("beta", "third")
    )
    warehouse = opened(lake)
    axis_id = find_axis(warehouse, NAME).axis_id
    scores = read_scores(warehouse, axis_id, "id-beta", "third")
    expected = auroc_interval(scores.values, scores.labels, groups=scores.groups)
    assert (row["estimate"], row["lower"], row["upper"]) == (
        expected.estimate,
        expected.lower,
        expected.upper,
    )
    assert not row["is_in_sample"] and row["scorer"] == "axis"


def test_thresholds_are_listed_by_model_and_the_limits_say_how_far_they_hold(lake, card):
    assert card["calibration"] == []
    assert any(limit.startswith("No threshold is stored") for limit in card["limits"])
    calibrate(opened(lake), card["axis_id"], ["id-alpha"], "other", ["platt"])
    card = card_of(lake)
    (calibration,) = card["calibration"]
    assert calibration["model"] == "alpha" and calibration["target"] == "balanced_accuracy"
    assert calibration["parameters"].keys() == {"slope", "intercept"}
    assert any("None transfers to another model" in limit for limit in card["limits"])


def test_limits_are_sentences(card):
    for limit in (
        "40 positive and 40 negative",
        "is_in_sample",
        "cosine",
        "steering along it",
        "space of gamma",
    ):
        (found,) = (text for text in card["limits"] if limit in text)
        assert found.endswith(".")
