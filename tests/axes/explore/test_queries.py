"""Ranks are those of the whole set, disagreement is the widest gap, and filters only filter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from axes.explore.hiding import Hidden
from axes.explore.queries import PAGE_ROWS, choices, prompt_page
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import QueryError
from tests.explored import DISPUTED, UNIVERSAL, put_explored
from tests.rows import put


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browsed") / "lake"
    put_explored(root)
    return root


@pytest.fixture(scope="module")
def connection(lake: Path) -> Connection:
    return connect(lake)


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
        {"search": "PLEASANT things about matter number 1"},
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
def test_what_went_into_a_universal_axis_is_compared_as_the_view_has_it(
    connection: Connection, source: str
) -> None:
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


def test_two_versions_of_a_model_are_told_apart(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    put_explored(root)
    again = {"model": "alpha", "model_id": "another-version", "axis_id": UNIVERSAL}
    put(root, "projections", {**again, "prompt_id": "p0001", "projection": 0.0, "run_id": "run"})
    names = [one["model"] for one in page(connect(root))["models"]]
    assert names == ["alpha@another-", "alpha@id-alpha", "beta"]


def test_an_unknown_order_is_refused(connection: Connection) -> None:
    with pytest.raises(QueryError, match="order one of position"):
        page(connection, order="1; drop view prompts")
