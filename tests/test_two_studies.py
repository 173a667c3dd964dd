"""A second study changes no answer of a documented query: each names the study it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from axes.analysis.study.run import run_study
from axes.warehouse.connection import Connection, connect, query
from docs.recipes import recipes
from tests.rows import put
from tests.worlds import define_study, make_world

MODELS = ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b")
CHECKOUT = Path(__file__).parent.parent
QUERIES = recipes() | {path.stem: path.read_text() for path in CHECKOUT.glob("docs/queries/*.sql")}
# Not about a study: they list jobs, axes, maps or the directions of every layer.
OF_ALL = {"04_runs", "08_emergence", "13_alignment", "1_layers"}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Connection, Connection]:
    """A warehouse with one study, and one where another was run before it."""

    def warehouse(*fractions: float) -> Connection:
        root = tmp_path_factory.mktemp("studies") / "lake"
        sets = {"labelled": {"demo_safety": 15}, "benign_count": 40, "benign": "demo_alignment"}
        make_world(root, widths=dict.fromkeys(MODELS, 14), layer_count=24, **sets)
        put(root, "runs", {"run_id": "world", "parameters": "{}", "library_versions": "{}"})
        options = {"prompts": "demo_safety", "align": "demo_alignment", "alignment_shuffles": 2}
        for fraction in fractions:
            run_study(root, define_study(MODELS, layer_fraction=fraction, label="demo", **options))
        return connect(root)

    return warehouse(0.8), warehouse(0.5, 0.8)


@pytest.mark.parametrize("name", sorted(QUERIES.keys() - OF_ALL))
def test_a_documented_query_is_about_the_last_study(
    studied: tuple[Connection, Connection], name: str
) -> None:
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
    usual = define_study(MODELS, align="demo_alignment").variant
    assert usual == ("lambda-held_out",)
    assert define_study(MODELS, align="alpaca").variant == ("alpaca", *usual)
