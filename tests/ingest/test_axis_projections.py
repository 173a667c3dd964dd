"""Projections stored instead of vectors: those of the stored vectors, once, by fewer blocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import axes.ingest.jobs
from axes.analysis.projections import score
from axes.ingest.activations import plan_activations
from axes.ingest.cost import PROJECTION_BYTES, measure_stored
from axes.ingest.models.load import LoadedModel
from axes.ingest.models.registry import ModelSpec
from axes.warehouse.errors import AxesError
from axes.warehouse.maintenance.subset import subset
from tests.ingest.conftest import (
    ImportTexts,
    assert_checks_pass,
    for_texts,
    identity_of,
    ingest_texts,
    put_axis,
    put_texts,
    read,
)
from tests.rows import put

TEXTS = ["hello there, you", "hi", "a rather longer prompt than the others are", "x", "what is it"]
# Two axes of one vector, one of a lower block, and one of another model.
NAMES = ("low", "middle", "middle-too", "shared")


@pytest.fixture(autouse=True)
def stored_axes(root: Path, llama: ModelSpec, import_texts: ImportTexts) -> dict[str, np.ndarray]:
    """Prompts, and axes in the tiny model's space; returns their vectors."""
    import_texts(TEXTS)
    layers = {"low": 0, "middle": 1, "middle-too": 1}
    return {name: put_axis(root, llama, name, layer) for name, layer in layers.items()}


@pytest.fixture
def shared_axis(root: Path, llama: ModelSpec) -> tuple[np.ndarray, float]:
    """An axis of another model; returns its vector and offset in the tiny model's space."""
    axis = [0.6, 0.8]
    other = {"space_model": "other", "space_model_id": "id-other"}
    put_axis(root, llama, "shared", 7, vector=axis, **other)
    random = np.random.default_rng(0)
    weights = random.normal(size=(32, 2)).astype(np.float32)
    put(
        root,
        "alignments",
        {
            "alignment_id": "map",
            "model": llama.name,
            "model_id": identity_of(llama).model_id,
            "layer": 2,
            "reference_model_id": "id-other",
            "reference_layer": 7,
            "site": "resid_post",
            "pooling": "last5_mean",
            "template": "raw",
            "weights": weights.reshape(-1).tolist(),
            "intercept": [3.0, -1.0],
        },
    )
    return weights @ axis, 3.0 * 0.6 - 0.8


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading weights is an error."""
    monkeypatch.setattr(axes.ingest.jobs, "load", lambda *_: pytest.fail("weights loaded"))


def projections(root: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows by axis and prompt; two of one key are an error."""
    found = read(root, "select * exclude run_id from projections")
    keyed = {(row["axis_id"], row["prompt_id"]): row for row in found}
    assert len(keyed) == len(found), "two projections share a key"
    return keyed


def test_rows_are_the_products_of_the_vectors_and_those_of_score(
    root: Path, llama: ModelSpec, tmp_path: Path, stored_axes: Any, shared_axis: Any
) -> None:
    readouts = {
        "id-low": (0, stored_axes["low"], 0.0),
        "id-middle": (1, stored_axes["middle"], 0.0),
        "id-middle-too": (1, stored_axes["middle-too"], 0.0),
        "id-shared": (2, *shared_axis),
    }
    other = shutil.copytree(root, tmp_path / "other")
    done = ingest_texts(root, llama, axes=NAMES, token_budget=40)
    assert (done.new_count, done.rows) == (len(TEXTS), len(TEXTS) * len(NAMES))
    assert read(root, "from activations") == read(root, "from prompt_tokens") == []
    rows = projections(root)
    ingest_texts(other, llama, token_budget=40)
    vectors = {
        (row["prompt_id"], row["layer"]): np.array(row["vector"])
        for row in read(other, "from activations")
    }
    for (axis_id, prompt_id), row in rows.items():
        layer, vector, offset = readouts[axis_id]
        assert row["layer"] == layer
        expected = vectors[prompt_id, layer] @ vector + offset
        assert row["projection"] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    for name in NAMES:
        score(other, name)
    scored = projections(other)
    assert scored.keys() == rows.keys()
    for key, row in rows.items():
        assert row.pop("projection") == pytest.approx(scored[key].pop("projection"), rel=1e-5)
        assert row == scored[key]


def test_a_subspace_is_all_its_axes(root: Path, llama: ModelSpec) -> None:
    for place in (1, 2):
        described = {"subspace": "both", "subspace_id": "id-both", "component": place, "rank": 2}
        put_axis(root, llama, f"both/{place}", 1, kind="subspace", parameters=json.dumps(described))
    assert ingest_texts(root, llama, axes=["both"]).rows == 2 * len(TEXTS)
    assert {axis_id for axis_id, _ in projections(root)} == {"id-both/1", "id-both/2"}


def test_vectors_are_rounded_before_they_are_projected(
    root: Path, llama: ModelSpec, tmp_path: Path
) -> None:
    put_axis(root, llama, "rough", 1, pooling="last5_mean+bfloat16")
    other = shutil.copytree(root, tmp_path / "other")
    ingest_texts(root, llama, axes=["rough"], store_dtype="bfloat16")
    ingest_texts(other, llama, store_dtype="bfloat16")
    score(other, "rough")
    scored = projections(other)
    for key, row in projections(root).items():
        assert row["projection"] == pytest.approx(scored[key]["projection"], rel=1e-6)


def test_only_what_is_missing_is_run(
    root: Path, llama: ModelSpec, request: pytest.FixtureRequest
) -> None:
    first = ingest_texts(root, llama, axes=["low"], shard="1/2")
    assert 0 < first.new_count < len(TEXTS)
    # Rows of `score` count, too, and another axis is another row.
    ingest_texts(root, llama, layers=(1,), shard="2/2")
    score(root, "middle")
    done = ingest_texts(root, llama, axes=["low", "middle"])
    assert (done.new_count, done.rows) == (len(TEXTS), len(TEXTS))
    assert len(projections(root)) == 2 * len(TEXTS)
    request.getfixturevalue("no_model")
    again = ingest_texts(root, llama, axes=["id-middle", "low", "middle"])
    assert (again.prompt_count, again.new_count, again.rows) == (len(TEXTS), 0, 0)
    assert score(root, "low")[0].new_count == 0
    assert_checks_pass(root)


def test_a_part_of_a_warehouse_says_how_many_projections_it_left_out(
    root: Path, llama: ModelSpec, tmp_path: Path
) -> None:
    put_texts(root, TEXTS[:2], "few")
    ingest_texts(root, llama, axes=["low"])
    subset(root, tmp_path / "part", prompt_sets=["few"])
    assert len(projections(tmp_path / "part")) < len(TEXTS)
    assert_checks_pass(tmp_path / "part")


def test_blocks_above_the_highest_axis_are_not_run(
    root: Path, llama: ModelSpec, monkeypatch: pytest.MonkeyPatch, shared_axis: Any
) -> None:
    real, ran = axes.ingest.jobs.load, set()

    def watched(*arguments: Any) -> LoadedModel:
        loaded = real(*arguments)
        for number, block in enumerate(loaded.blocks):
            block.register_forward_hook(lambda *_, number=number: ran.add(number))
        return loaded

    monkeypatch.setattr(axes.ingest.jobs, "load", watched)
    ingest_texts(root, llama, axes=["low"])
    assert ran == {0}
    ingest_texts(root, llama, axes=["low", "middle", "shared"])
    assert ran == {0, 1, 2}


def test_what_others_store_while_the_weights_are_loaded_is_not_stored_again(
    root: Path, llama: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = axes.ingest.jobs.load

    def slowly(*arguments: Any) -> LoadedModel:
        with monkeypatch.context() as patch:
            patch.setattr(axes.ingest.jobs, "load", load)
            ingest_texts(root, llama, axes=["low"], shard="1/2")
        return load(*arguments)

    monkeypatch.setattr(axes.ingest.jobs, "load", slowly)
    done = ingest_texts(root, llama, axes=["low", "middle"])
    assert len(projections(root)) == 2 * len(TEXTS) > done.rows
    assert_checks_pass(root)


def test_a_dry_run_prices_rows_without_vectors(root: Path, llama: ModelSpec) -> None:
    plan = plan_activations(root, llama, for_texts(axes=NAMES[:3]))
    assert (plan.rows, plan.new_count) == (len(TEXTS) * 3, len(TEXTS))
    assert plan.bytes == plan.rows * PROJECTION_BYTES
    assert projections(root) == {}
    # Its speed, with blocks left out, is not that of the model.
    ingest_texts(root, llama, axes=["low"])
    assert measure_stored(root, llama.name).tokens_per_second is None
    ingest_texts(root, llama)
    assert measure_stored(root, llama.name).tokens_per_second is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": ["typo"]}, "no axis typo"),
        ({"axes": ["low", "alone"]}, "no alignment of tiny-llama leads to layer 7 of nobody"),
        ({"template": "chat"}, "the axis low is of template raw, this job of chat: .* --template"),
        ({"poolings": ["last", "mean"]}, "low is of pooling last5_mean, this job of last, mean: "),
        ({"store_dtype": "bfloat16"}, r"this job of last5_mean\+bfloat16: change --pooling"),
        ({"sites": ["mlp_out"]}, "low is of site resid_post, this job of mlp_out: change --site"),
        ({"layers": (0,)}, "leave out --layers and --keep-tokens"),
        ({"token_layers": (0,)}, "leave out --layers and --keep-tokens"),
    ],
)
def test_axes_that_do_not_fit_are_refused_in_one_line(
    root: Path, llama: ModelSpec, no_model: None, options: dict[str, Any], message: str
) -> None:
    put_axis(root, llama, "alone", 7, space_model="nobody", space_model_id="id-nobody")
    with pytest.raises(AxesError, match=message) as refused:
        ingest_texts(root, llama, **{"axes": ["low"], **options})
    assert "\n" not in str(refused.value)
    assert projections(root) == {}
