"""Vectors that others computed: the same rows as a job of ours would write, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file

from axes.ingest.external import activations as activation_import
from axes.ingest.external.activations import import_activations
from axes.ingest.prompts import prompt_id
from axes.ingest.requests import ExternalActivationRequest
from axes.warehouse.errors import AxesError, NonFiniteError
from tests.ingest.conftest import assert_checks_pass, read

TEXTS = [f"prompt {row}" for row in range(6)]
LABELS = ["rude", "polite"] * 3
MODEL = {"name": "theirs", "layer_count": 3, "revision": "abc"}
WIDTH = 4

Files = Callable[..., Path]
# Row 2 of layer 1 is 12, 12, 12, 12: every vector says what it is.
VECTORS = {
    layer: np.repeat(10 * layer + np.arange(6.0)[:, None], WIDTH, axis=1) for layer in range(3)
}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Write `vectors.npz` of arrays by name, and the index beside it."""

    def write(arrays: dict[str, np.ndarray], **index: list[Any]) -> Path:
        np.savez(tmp_path / "vectors.npz", **arrays)
        frame = pl.DataFrame(index or {"text": TEXTS, "label": LABELS})
        frame.write_csv(tmp_path / "vectors.index.csv")
        return tmp_path / "vectors.npz"

    return write


def bring(root: Path, file: Path, **changed: Any) -> activation_import.ImportedActivations:
    options: dict[str, Any] = {
        "model": MODEL,
        "prompt_set": "manners",
        "layers_are": "blocks",
        "pooling": "last",
        "positive": ["rude"],
    }
    request = ExternalActivationRequest(file=file, **{**options, **changed})
    return import_activations(root, request)


def stored(root: Path, site: str = "resid_post") -> dict[tuple[int, str], list[float]]:
    found = read(
        root,
        "select layer, text, vector from activations inner join prompts using (prompt_id) "
        "where site = ? order by layer, position",
        [site],
    )
    return {(row["layer"], row["text"]): row["vector"] for row in found}


EXPECTED = {
    (layer, text): VECTORS[layer][row].tolist()
    for layer in VECTORS
    for row, text in enumerate(TEXTS)
}


def test_an_array_for_each_layer_and_an_index_make_activations_prompts_and_labels(root, files):
    done = bring(root, files({f"layer_{layer}": x for layer, x in VECTORS.items()}))
    assert (done.rows, done.known_rows, done.prompt_count, done.left_out) == (18, 0, 6, 0)
    assert stored(root) == EXPECTED
    labels = read(root, "select label, is_positive from v_prompts order by position")
    assert [row["is_positive"] for row in labels] == [label == "rude" for label in LABELS]
    (model,) = read(root, "from models")
    assert (model["model"], model["source"], model["d_model"]) == ("theirs", "imported", WIDTH)
    assert (model["weights_hash"], model["revision"]) == ("unknown", "abc")
    assert_checks_pass(root)


@pytest.mark.parametrize("kind", ["names", "long_npz", "parquet", "bfloat16"])
def test_the_shapes_of_file_that_tools_write_give_the_same_rows(root, tmp_path, kind):
    path = tmp_path / f"file.{'parquet' if kind == 'parquet' else 'safetensors'}"
    index = pl.DataFrame({"text": TEXTS, "label": LABELS})
    tensors = {
        f"blocks.{layer}.hook_resid_post": torch.tensor(x, dtype=torch.float32)
        for layer, x in VECTORS.items()
    }
    # Prompt by prompt, as a server that answers requests would write it.
    order = [(row, layer) for row in range(6) for layer in range(3)]
    long = index[[row for row, _ in order]].with_columns(layer=pl.Series([at for _, at in order]))
    matrix = np.stack([VECTORS[layer][row] for row, layer in order])
    if kind == "parquet":
        long.with_columns(vector=pl.Series(matrix.tolist())).write_parquet(path)
    elif kind == "long_npz":
        path = path.with_suffix(".npz")
        np.savez(path, acts=matrix)
        long.write_csv(tmp_path / "file.index.csv")
    else:
        dtype = torch.bfloat16 if kind == "bfloat16" else torch.float16
        save_file({name: x.to(dtype) for name, x in tensors.items()}, path)
        index.write_parquet(tmp_path / "file.index.parquet")
    assert bring(root, path).rows == 18
    assert stored(root) == EXPECTED
    assert_checks_pass(root)


def test_hidden_states_are_one_off_and_the_last_is_behind_the_norm(root, files):
    states = {f"hidden_states_{entry}": x for entry, x in VECTORS.items()}
    states["hidden_states_3"] = VECTORS[2] + 100
    file = files(states)
    with pytest.raises(AxesError, match=r"hidden_states\[3\].*final norm.*--skip-normed"):
        bring(root, file, layers_are="hidden_states")
    assert not stored(root)
    done = bring(root, file, layers_are="hidden_states", skip_normed=True)
    assert (done.left_out, done.layers) == (6, [0, 1])
    assert stored(root)[0, TEXTS[5]] == VECTORS[1][5].tolist()
    assert stored(root)[1, TEXTS[5]] == VECTORS[2][5].tolist()
    # The first entry is what goes into block 0.
    assert stored(root, "resid_pre") == {
        (0, text): VECTORS[0][row].tolist() for row, text in enumerate(TEXTS)
    }


def test_importing_again_writes_nothing_and_other_numbers_are_refused(root, files):
    first = {f"layer_{layer}": VECTORS[layer] for layer in (0, 1)}
    bring(root, files(first))
    before = sorted((root / "activations").rglob("*.parquet"))
    again = bring(root, files(first))
    assert (again.rows, again.known_rows) == (0, 12)
    assert sorted((root / "activations").rglob("*.parquet")) == before
    # A layer more of the same model: only that is new.
    more = bring(root, files({**first, "layer_2": VECTORS[2]}))
    assert (more.rows, more.known_rows) == (6, 12)
    assert stored(root) == EXPECTED
    changed = {**first, "layer_1": VECTORS[1] + 1}
    with pytest.raises(AxesError, match="is stored with other numbers"):
        bring(root, files(changed))
    # Said to be another revision it is another model, and the two do not mix.
    other = bring(root, files(changed), model={**MODEL, "revision": "def"})
    assert other.model_id != again.model_id and other.rows == 12
    assert_checks_pass(root)


def test_a_killed_import_goes_on_where_it_was(root, files, monkeypatch):
    monkeypatch.setattr(activation_import, "_FLUSH_BYTES", 1)
    broken = {f"layer_{layer}": x.copy() for layer, x in VECTORS.items()}
    broken["layer_2"][3, 1] = np.nan
    with pytest.raises(NonFiniteError, match="row 3 of the index holds NaN or infinity at layer 2"):
        bring(root, files(broken))
    assert len(stored(root)) == 12
    done = bring(root, files({f"layer_{layer}": x for layer, x in VECTORS.items()}))
    assert (done.rows, done.known_rows) == (6, 12)
    assert stored(root) == EXPECTED
    assert_checks_pass(root)


def test_ids_alone_are_of_prompts_that_are_there(root: Path, files: Files) -> None:
    arrays = {"layer_0": VECTORS[0]}
    ids = [prompt_id(text) for text in TEXTS]
    with pytest.raises(AxesError, match="6 prompt ids are in no set"):
        bring(root, files(arrays, prompt_id=ids))
    bring(root, files(arrays))
    file = files({"layer_1": VECTORS[1][:2]}, prompt_id=ids[:2])
    assert bring(root, file, prompt_set=None, positive=[]).rows == 2
    # A part of a set that is there leaves the set as it is.
    bring(root, files({"layer_2": VECTORS[2][:3]}, text=TEXTS[:3], label=LABELS[:3]))
    assert read(root, "select count(*) as n from prompts")[0]["n"] == 6
    assert_checks_pass(root)


@pytest.mark.parametrize("state", ["{absolute}", "../theirs/{name}", "link.arrow", None])
def test_a_folder_of_hf_that_names_files_outside_is_refused(
    root: Path, tmp_path: Path, state: str | None
) -> None:
    rows = {"text": TEXTS, "layer": [0] * 6, "vector": VECTORS[0].tolist()}
    for name in ("mine", "theirs"):
        Dataset.from_dict(rows).save_to_disk(tmp_path / name)
    (secret,) = (tmp_path / "theirs").glob("*.arrow")
    (tmp_path / "mine" / "link.arrow").symlink_to(secret)
    said: dict[str, Any] = json.loads((tmp_path / "mine" / "state.json").read_text())
    assert bring(root, tmp_path / "mine", positive=[]).rows == 6
    named = state and state.format(absolute=secret, name=secret.name)
    said["_data_files"] = [{"filename": named} if named else {}]
    (tmp_path / "mine" / "state.json").write_text(json.dumps(said))
    message = "is outside of it" if named else "is not a data set of HF"
    with pytest.raises(AxesError, match=message):
        bring(root, tmp_path / "mine", positive=[])


ONE = {"layer_0": VECTORS[0]}
# Arrays, index, options, and what is said.
REFUSED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    (ONE, {}, {"layers_are": None}, "--layers-are blocks"),
    (ONE, {}, {"pooling": None}, "--pooling last"),
    (ONE, {}, {"prompt_set": None}, "name their set with --prompts"),
    (ONE, {}, {"model": {"name": "x"}}, "--layer-count N"),
    (ONE, {}, {"model": {**MODEL, "d_model": 5}}, "have 4 numbers, d_model of theirs is 5"),
    ({"layer_3": VECTORS[0]}, {}, {}, "layer 3 of theirs does not exist: it has 3 blocks"),
    ({"acts": VECTORS[0]}, {}, {}, "of which layer is acts"),
    ({**ONE, "blocks.0": VECTORS[0]}, {}, {}, "two arrays are of one layer"),
    ({"layer_0": np.stack([VECTORS[0]] * 2)}, {}, {}, r"of shape \[2, 6, 4\]"),
    ({"layer_0": VECTORS[0][:5]}, {}, {}, "has 5 rows, the index 6"),
    ({"layer_0": VECTORS[0] * 1e300}, {}, {}, "float32 has no room"),
    ({"layer_0": np.array([["a"] * 4] * 6, dtype=object)}, {}, {}, "pickled objects"),
    ({"layer_0": np.ones((6, 4), dtype=int)}, {}, {}, "holds int64, floats are expected"),
    (
        ONE,
        {"text": [*TEXTS[:5], TEXTS[0]]},
        {"positive": []},
        "rows 0 and 5 of the index are the same prompt at the same layer",
    ),
    (ONE, {"words": TEXTS}, {}, "neither text nor prompt_id"),
    (ONE, {"text": TEXTS, "prompt_id": TEXTS}, {}, "prompt_id is not the id"),
    (ONE, {}, {"positive": []}, "--positive LABEL"),
    (ONE, {}, {"template": "chat+x"}, "unknown template"),
]


def test_what_cannot_be_stored_is_refused_and_nothing_is_written(root: Path, files: Files) -> None:
    for arrays, index, options, message in REFUSED:
        with pytest.raises(AxesError, match=message):
            bring(root, files(arrays, **index), **options)
    assert not stored(root)
