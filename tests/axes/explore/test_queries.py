"""Ranks are those of the whole set, disagreement is the widest gap, and filters only filter."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from axes.explore.hiding import Hidden
from axes.explore.queries import (
    PAGE_ROWS,
    axis_page,
    choices,
    completion,
    completion_page,
    prompt_page,
    start,
)
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import QueryError
from tests.explored import DISPUTED, FORBIDDEN, LAYER, UNIVERSAL
from tests.rows import put


@pytest.fixture(scope="module")
def connection(explored: Path) -> Connection:
    return connect(explored)


def page(connection: Connection, **asked) -> dict:
    return prompt_page(connection, Hidden(), **{"prompt_set": "marked", "axis": UNIVERSAL, **asked})


def listed(connection: Connection, **asked) -> list[dict]:
    """The prompts of every page."""
    found = page(connection, **asked)
    pages = -(-found["total"] // PAGE_ROWS)
    return [
        prompt
        for number in range(pages)
        for prompt in page(connection, page=number, **asked)["prompts"]
    ]


def test_disagreement_is_the_widest_gap_between_two_models_ranks(connection: Connection) -> None:
    projected = rows(
        connection, f"from projections where axis_id = '{UNIVERSAL}' order by model_id, prompt_id"
    )
    values = np.array([row["projection"] for row in projected]).reshape(2, -1)
    ranks = values.argsort(axis=1).argsort(axis=1) / (values.shape[1] - 1)
    expected = dict(
        zip([row["prompt_id"] for row in projected], np.abs(np.subtract(*ranks)), strict=False)
    )
    found = listed(connection, order="disagreement", is_descending=True)
    assert {one["prompt_id"]: one["disagreement"] for one in found} == pytest.approx(expected)
    assert found[0]["prompt_id"] == DISPUTED and found[0]["disagreement"] == 1.0
    gaps = [one["disagreement"] for one in found]
    assert gaps == sorted(gaps, reverse=True)


def test_pages_hold_every_prompt_once(connection: Connection) -> None:
    ids = [one["prompt_id"] for one in listed(connection)]
    assert ids == [f"p{row:04d}" for row in range(60)]


def test_filters_leave_the_ranks_as_they_are(connection: Connection) -> None:
    everything = {one["prompt_id"]: one for one in listed(connection)}
    for filtered in (
        {"label": "safe"},
        {"category": "cars"},
        {"search": "THINGS about matter number 1"},
    ):
        found = listed(connection, **filtered)
        assert 0 < len(found) < 60
        for one in found:
            assert one["models"] == everything[one["prompt_id"]]["models"]
            assert one["disagreement"] == everything[one["prompt_id"]]["disagreement"]
    assert page(connection, search="100% ' of nothing")["total"] == 0


def test_probabilities_are_those_of_the_calibrations(connection: Connection) -> None:
    stored = rows(
        connection, "select prompt_id, model_id, probability from v_calibrated_projections"
    )
    found = {one["prompt_id"]: one for one in listed(connection, scale="probability")}
    assert len(stored) == 120
    for row in stored:
        shown = found[row["prompt_id"]]["models"][row["model_id"]]
        assert shown["probability"] == pytest.approx(row["probability"])
    assert found[DISPUTED]["disagreement"] == pytest.approx(1.0, abs=1e-3)
    assert all(one["is_calibrated"] for one in page(connection)["models"])


@pytest.mark.parametrize("source", ["native", "leave_one_out"])
def test_what_went_into_a_universal_axis_is_compared_as_the_view_has_it(connection, source):
    stored = rows(
        connection, f"select model_id, prompt_id, {source} as projection from v_projections_wide"
    )
    found = {one["prompt_id"]: one["models"] for one in listed(connection, source=source)}
    assert len(stored) == 120 == sum(len(models) for models in found.values())
    for row in stored:
        assert found[row["prompt_id"]][row["model_id"]]["projection"] == row["projection"]


def test_one_models_projections_sort(connection: Connection) -> None:
    found = listed(connection, order="model", model="id-beta", is_descending=True)
    values = [one["models"]["id-beta"]["projection"] for one in found]
    assert values == sorted(values, reverse=True)


def test_prompts_without_projections_are_listed_all_the_same(connection: Connection) -> None:
    found = page(connection, prompt_set="plain", order="disagreement")
    assert [one["prompt_id"] for one in found["prompts"]] == [f"q{row}" for row in range(5)]
    assert all(one["models"] == {} for one in found["prompts"])
    assert page(connection, axis=None)["models"] == []


def test_what_is_offered_begins_with_the_shared_axis(connection: Connection) -> None:
    offered = choices(connection)
    assert [(one["axis_id"], one["source"]) for one in offered["axes"][:3]] == [
        (UNIVERSAL, "axis"),
        (UNIVERSAL, "native"),
        (UNIVERSAL, "leave_one_out"),
    ]
    assert offered["sets"][0]["labels"] == ["safe", "unsafe"]
    assert offered["sets"][1]["labels"] is None


def test_axes_are_sorted_by_kind_and_name(connection: Connection) -> None:
    found = [(one["kind"], one["name"]) for one in choices(connection)["axes"][3:]]
    assert found == sorted(found)


def test_the_start_has_each_study_with_its_verdicts(reported: Path) -> None:
    found = start(connect(reported))
    (study,) = found["studies"]
    claims = rows(connect(reported), "from v_claims order by position, prompt_set")
    assert [(one["claim"], one["verdict"]) for one in study["verdicts"]] == [
        (one["text"], one["verdict"]) for one in claims
    ]
    stored = {one["name"]: one["count"] for one in found["stored"]}
    assert stored["prompts"] == 620 and stored["models"] == 2
    kinds = rows(connect(reported), f"select kind from axes where axis_id = '{study['axis_id']}'")
    assert kinds == [{"kind": "universal"}]


def test_an_axis_has_its_ends_its_histogram_and_its_cosines(reported: Path) -> None:
    connection = connect(reported)
    (axis,) = rows(connection, "select axis_id from axes where kind = 'universal'")
    asked = {**axis, "model": "id-beta", "set": "other"}
    values = rows(
        connection,
        "select label, projection from v_projections where axis_id = $axis_id "
        "and model_id = $model and prompt_set = $set order by projection desc",
        asked,
    )
    found = axis_page(
        connection, Hidden(), axis=axis["axis_id"], model="id-beta", prompt_set="other"
    )
    shown = [one["projection"] for one in found["prompts"]]
    expected = [row["projection"] for row in values]
    assert shown == expected[:10] + expected[-10:]
    edges = np.linspace(expected[-1], expected[0], 31)
    for label in ("safe", "unsafe"):
        counts = np.zeros(30)
        for one in found["histogram"]:
            if one["label"] == label:
                counts[one["bin"]] = one["count"]
        of_label = [row["projection"] for row in values if row["label"] == label]
        assert counts.tolist() == np.histogram(of_label, edges)[0].tolist()
    assert "vector" not in found["card"]
    assert len(found["aurocs"]) == 4 and all(
        -1.001 < one["cosine"] < 1.001 for one in found["cosines"]
    )
    assert {one["kind"] for one in found["cosines"]} >= {"aligned", "leave_one_out"}


def test_an_axis_without_projections_has_its_card(connection: Connection) -> None:
    found = axis_page(connection, Hidden(), axis="aligned-alpha")
    assert found["card"]["kind"] == "aligned"
    assert found["prompts"] == found["histogram"] == found["aurocs"] == []


def test_two_versions_of_a_model_are_told_apart(explored: Path, tmp_path: Path) -> None:
    root = shutil.copytree(explored, tmp_path / "lake")
    again = {"model": "alpha", "model_id": "another-version", "axis_id": UNIVERSAL}
    put(root, "projections", {**again, "prompt_id": "p0001", "projection": 0.0, "run_id": "run"})
    names = [one["model"] for one in page(connect(root))["models"]]
    assert names == ["alpha@another-", "alpha@id-alpha", "beta"]


CALM = "g-alpha-p0001"


def test_steps_are_those_of_the_view(connection: Connection) -> None:
    found = completion(connection, Hidden(), generation=CALM, axis=UNIVERSAL, layer=LAYER)
    expected = rows(
        connection,
        "select step, token, projection, running_mean from v_generation_projections "
        f"where generation_id = '{CALM}' and axis_id = '{UNIVERSAL}' order by step",
    )
    shown = [{key: step[key] for key in expected[0]} for step in found["steps"]]
    assert len(shown) == 8
    for one, other in zip(shown, expected, strict=True):
        assert one == pytest.approx(other)
    assert found["prompt_set"] == "marked" and not found["is_hidden"]


def test_a_colour_is_measured_against_all_tokens_of_the_model(connection: Connection) -> None:
    found = completion(connection, Hidden(), generation=CALM)
    sql = f"from token_projections where model = 'alpha' and axis_id = '{UNIVERSAL}'"
    values = [row["projection"] for row in rows(connection, sql)]
    assert found["axis"] == UNIVERSAL and found["layer"] == LAYER
    assert found["scale_count"] == len(values) == 48
    assert found["centre"] == pytest.approx(np.mean(values))
    assert found["spread"] == pytest.approx(np.std(values))


def test_a_completion_is_offered_its_own_axes_shared_ones_first(connection: Connection) -> None:
    found = completion(connection, Hidden(), generation=CALM)
    assert [one["axis_id"] for one in found["places"]] == [UNIVERSAL, "native-alpha"]
    other = completion(connection, Hidden(), generation=CALM, axis="native-beta")
    assert other["axis"] is None and other["steps"][0]["projection"] is None


def test_a_hidden_completion_keeps_its_numbers(connection: Connection) -> None:
    hidden = Hidden()
    covered = completion(connection, hidden, generation="g-beta-p0000")
    assert FORBIDDEN not in str(covered)
    assert [step["token"] for step in covered["steps"]] == [None] * 8
    shown = completion(connection, hidden, generation="g-beta-p0000", is_revealed=True)
    assert FORBIDDEN in shown["steps"][0]["token"]
    projections = [step["projection"] for step in shown["steps"]]
    assert [step["projection"] for step in covered["steps"]] == projections


def test_prompt_tokens_have_a_running_mean_of_their_own(explored: Path, tmp_path: Path) -> None:
    root = shutil.copytree(explored, tmp_path / "lake")
    at = {"model": "alpha", "generation_id": CALM, "layer": LAYER, "run_id": "run"}
    put(root, "generation_tokens", {**at, "step": -1, "token": "?", "site": "resid_post"})
    put(root, "token_projections", {**at, "step": -1, "projection": 100.0, "axis_id": UNIVERSAL})
    steps = completion(connect(root), Hidden(), generation=CALM)["steps"]
    assert [step["step"] for step in steps] == list(range(-1, 8))
    assert steps[0]["running_mean"] == 100.0
    assert steps[1]["running_mean"] == steps[1]["projection"]


def test_completions_are_filtered_and_counted(connection: Connection) -> None:
    def ids(**asked: str) -> list[str]:
        found = completion_page(connection, Hidden(), **asked)
        assert found["total"] == len(found["completions"])
        return [one["generation_id"] for one in found["completions"]]

    assert len(ids()) == 12
    assert ids(model="beta", label="safe") == [f"g-beta-p{row:04d}" for row in (1, 3, 5)]
    assert ids(prompt_id="p0001") == [CALM, "g-beta-p0001"]
    assert ids(prompt_set="plain") == []


def test_what_is_unknown_is_refused(connection: Connection) -> None:
    with pytest.raises(QueryError, match="order one of position"):
        page(connection, order="1; drop view prompts")
    with pytest.raises(QueryError, match="no completion nothing"):
        completion(connection, Hidden(), generation="nothing")
    with pytest.raises(QueryError, match="no axis nothing"):
        axis_page(connection, Hidden(), axis="nothing")
