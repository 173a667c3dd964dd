"""A second study changes no answer of a documented query: each names the study it is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from axes.warehouse.connection import Connection, connect, query
from docs.recipes import recipes
from tests.conftest import DEMO, DEMO_MODELS, put_demo
from tests.worlds import define_study

CHECKOUT = Path(__file__).parent.parent
QUERIES = recipes() | {path.stem: path.read_text() for path in CHECKOUT.glob("docs/queries/*.sql")}
# Not about a study: they list jobs, axes, maps or the directions of every layer.
OF_ALL = {"04_runs", "08_emergence", "13_alignment", "1_layers"}


@pytest.fixture(scope="module")
def studied(demo: Path, tmp_path_factory) -> tuple[Connection, Connection]:
    """A warehouse with one study, and one where another was run before it."""
    root = tmp_path_factory.mktemp("studies") / "lake"
    put_demo(root, replace(DEMO, layer_fraction=0.5), DEMO)
    return connect(demo), connect(root)


@pytest.mark.parametrize("name", sorted(QUERIES.keys() - OF_ALL))
def test_a_documented_query_is_about_the_last_study(studied, name):
    one, two = (query(connection, QUERIES[name]).to_pylist() for connection in studied)
    # In any order: planted directions have equal cosines.
    assert sorted(map(str, two)) == sorted(map(str, one))


def test_views_name_the_study_of_an_axis(studied: tuple[Connection, Connection]) -> None:
    for view in ("v_auroc", "v_projections", "v_axis_cosines", "v_projections_wide"):
        counts = [
            query(each, f"select count(*) as n from {view} where study_id = latest_study()")
            for each in studied
        ]
        assert counts[0] == counts[1]
        assert counts[0]["n"][0].as_py() > 0
    studies = query(studied[1], "from v_studies")
    assert studies.num_rows == 2
    assert studies["align"].to_pylist() == ["demo_alignment", "demo_alignment"]


def test_an_axis_is_named_after_what_is_not_the_default() -> None:
    usual = define_study(DEMO_MODELS, align="demo_alignment").variant
    assert usual == ("lambda-held_out",)
    assert define_study(DEMO_MODELS, align="alpaca").variant == ("alpaca", *usual)
