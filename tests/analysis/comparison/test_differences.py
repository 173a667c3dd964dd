"""Differences of two model versions: a planted shift is found, with what moved along it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import axes
from axes.analysis.comparison.differences import (
    DifferenceDefinition,
    compare_models,
    moved_prompts,
)
from axes.warehouse.connection import connect, rows, vectors
from axes.warehouse.errors import CoverageError, ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.storage.layout import init_root
from tests.commands import printed
from tests.rows import put
from tests.worlds import prompt_ids, write_activations, write_model, write_prompt_set

WIDTH, COUNT, SHIFT, SPREAD = 24, 200, 2.0, 3.0
EYE = np.eye(WIDTH)
DEFINITION = DifferenceDefinition("base", "tuned", "plain", layer_fraction=1.0)
# The one prompt that moves far, along a dimension of its own.
FAR = 17


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """At layer 1 the tuned model moves along dimension 0, and by prompt along dimension 1."""
    root = tmp_path_factory.mktemp("diff") / "lake"
    init_root(root)
    random = np.random.default_rng(3)
    write_prompt_set(root, "plain", COUNT, None)
    x = random.standard_normal((COUNT, WIDTH)) * np.arange(1, WIDTH + 1) ** 0.5
    moved = SHIFT * EYE[0] + SPREAD * np.outer(random.standard_normal(COUNT), EYE[1])
    moved[FAR] += 50 * EYE[5]
    for model, at_last in {"base": x, "tuned": x + moved}.items():
        write_model(root, model, WIDTH, 2)
        write_activations(root, model, 0, "plain", x)
        write_activations(root, model, 1, "plain", at_last)
    write_model(root, "wide", WIDTH + 1, 2)
    space = {"space_model": "base", "space_model_id": "id-base", "layer": 1, "run_id": "world"}
    space |= {"site": "resid_post", "pooling": "last5_mean", "template": "raw"}
    for name, axis in {"along": EYE[0], "across": EYE[7]}.items():
        put(
            root, "axes", {**space, "axis_id": name, "name": name, "kind": "native", "vector": axis}
        )
    return root


@pytest.fixture(scope="module")
def study_id(root):
    return compare_models(Warehouse.open(root), DEFINITION)


def test_norms_are_those_of_the_differences_and_zero_where_nothing_moved(root, study_id):
    first, last = rows(connect(root), "from v_model_differences order by layer")
    assert (first["norm"], first["mean_share"]) == (0.0, 0.0)
    assert first["cosine"] == pytest.approx(1.0)
    by_prompt = [row.norm for row in moved_prompts(Warehouse.open(root), DEFINITION)]
    assert last["norm"] == pytest.approx(np.mean(by_prompt), rel=1e-5)
    assert last["norm_lower"] < last["norm"] < last["norm_upper"]
    assert last["first"].startswith("base@") and last["second"].startswith("tuned@")


def test_the_mean_and_the_first_component_are_the_planted_directions(root, study_id):
    stored = connect(root).sql("from axes where kind = 'difference'").to_arrow_table()
    # Of two differences to one model, the name says which.
    assert "difference/tuned/1/plain/mean-from-base" in stored["name"].to_pylist()
    found = dict(zip(stored["method"].to_pylist(), vectors(stored["vector"]), strict=True))
    assert set(found) == {"mean", "pca-1", "pca-2", "pca-3"}
    assert found["mean"] @ EYE[0] > 0.97
    # The prompt that moved far makes a component of its own.
    assert {int(np.abs(found[f"pca-{index}"]).argmax()) for index in (1, 2)} == {1, 5}


def test_prompts_moved_along_the_axis_of_the_shift_and_not_across_it(root, study_id):
    moves = {row["axis_name"]: row for row in rows(connect(root), "from v_axis_moves")}
    along, across = moves["along"], moves["across"]
    # The first dimension's standard deviation is 1.
    assert along["moved"] == pytest.approx(SHIFT, rel=0.1) and along["p_value"] < 0.001
    assert along["moved_lower"] <= along["moved"] <= along["moved_upper"]
    assert across["moved"] == pytest.approx(0.0, abs=1e-6) and across["p_value"] > 0.5
    shares = [row["axis_share"] for row in moves.values() if row["kind"] == "difference"]
    assert len(shares) == 4 and all(0 <= share <= 1 for share in shares)


def test_the_prompt_that_moved_most_comes_first_in_python_and_on_the_command_line(root, study_id):
    far = moved_prompts(Warehouse.open(root), DEFINITION)[0]
    assert far.prompt_id == prompt_ids("plain", COUNT)[FAR] and far.norm > 50
    words = ["diff", "base", "tuned", "--prompts", "plain", "--layer-fraction", 1, "--root", root]
    shown = printed(*words, "--show", "prompts", "--limit", 3)
    assert len(shown) == 3 and shown[0]["prompt_id"] == far.prompt_id
    given = ("base", "tuned", "plain")
    for show in ("layers", "axes"):
        result = axes.diff_models(*given, layer_fraction=1.0, show=show, root=root)
        assert result.rows == printed(*words, "--show", show)
        assert result.id == study_id


def test_rows_are_stored_once_and_are_no_study(root, study_id):
    count = "select count(*) as rows from evaluations"
    before = rows(connect(root), count)
    assert compare_models(Warehouse.open(root), DEFINITION) == study_id
    assert rows(connect(root), count) == before
    for view in ("v_studies", "v_layer_tests", "v_source_transfer", "v_concept_accuracy"):
        assert not rows(connect(root), f"from {view}")


def test_what_cannot_be_subtracted_is_told(root):
    warehouse = Warehouse.open(root)
    with pytest.raises(ModelError, match="compared with itself"):
        compare_models(warehouse, replace(DEFINITION, second="base"))
    with pytest.raises(ModelError, match="24 dimensions and 2 layers, wide 25"):
        compare_models(warehouse, replace(DEFINITION, second="wide"))
    with pytest.raises(CoverageError, match="nothing moved"):
        compare_models(warehouse, replace(DEFINITION, layer_fraction=0.0))
