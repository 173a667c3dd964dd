"""Steps are those of v_generation_projections; hidden completions keep their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from axes.explore.hiding import Hidden
from axes.explore.queries import completion, completion_page
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import QueryError
from tests.explored import FORBIDDEN, LAYER, UNIVERSAL, put_explored
from tests.rows import put

CALM = "g-alpha-p0001"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stepped") / "lake"
    put_explored(root)
    return root


@pytest.fixture(scope="module")
def connection(lake: Path) -> Connection:
    return connect(lake)


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
    values = [
        row["projection"]
        for row in rows(
            connection,
            f"from token_projections where model = 'alpha' and axis_id = '{UNIVERSAL}'",
        )
    ]
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


def test_prompt_tokens_have_a_running_mean_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    put_explored(root)
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


def test_an_unknown_completion_is_refused(connection: Connection) -> None:
    with pytest.raises(QueryError, match="no completion nothing"):
        completion(connection, Hidden(), generation="nothing")
