"""Files of other tools, written here as those tools write them, become axes at the right layer."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from gguf import GGUFWriter
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from axes.analysis.exchange.export_axes import export_axes
from axes.analysis.exchange.formats import FORMATS, recognise
from axes.analysis.exchange.formats.contents import layer_of
from axes.analysis.exchange.import_axes import ImportRequest, ImportResult, import_axes
from axes.analysis.projections import score
from axes.warehouse.axes import find_axis
from axes.warehouse.errors import AxesError, AxisError, LayerError, NonFiniteError, PromptError
from axes.warehouse.handle import Warehouse
from axes.warehouse.maintenance.check import check
from tests.rows import ask

WIDTH, LAYER_COUNT = 16, 3
NATIVE = "native/alpha/1/labelled"
UNIVERSAL = "universal/pair/2/labelled/benign/lambda-held_out"


def vectors(*numbers: int, length: float = 2.0) -> dict[int, np.ndarray]:
    random = np.random.default_rng(1)
    drawn = {number: random.standard_normal(WIDTH) for number in numbers}
    return {
        number: (length * vector / np.linalg.norm(vector)).astype(np.float32)
        for number, vector in drawn.items()
    }


def control_vector(
    path: Path, tensors: dict[int, np.ndarray], *, hint: str = "llama", signed: bool = False
) -> Path:
    writer = GGUFWriter(str(path), "controlvector")
    writer.add_string("controlvector.model_hint", hint)
    add_count = writer.add_int32 if signed else writer.add_uint32
    add_count("controlvector.layer_count", len(tensors))
    for number, vector in tensors.items():
        writer.add_tensor(f"direction.{number}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def bring(warehouse: Warehouse, path: Path, **asked) -> ImportResult:
    return import_axes(warehouse, path, ImportRequest(**{"model": "alpha", **asked}))


def layers(imported: ImportResult) -> list[int]:
    return [axis.layer for axis in imported.axes]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_brings_back_the_same_axis(warehouse, tmp_path, name):
    """One id whatever the file: so exporting and importing again changes nothing."""
    target = tmp_path / f"axis{FORMATS[name].suffix}"
    export_axes(warehouse, [NATIVE], name, target)
    (axis,) = import_axes(warehouse, target, ImportRequest()).axes
    native = find_axis(warehouse, NATIVE)
    row = find_axis(warehouse, axis.axis_id)
    np.testing.assert_array_equal(row.vector, native.vector)
    assert (row.space, row.raw_norm) == (native.space, native.raw_norm)
    assert (row.row_set_hash, row.positive_count) == (native.row_set_hash, 40)
    assert (row.kind, row.method, row.prompt_set) == ("imported", "mean_diff", "labelled")
    imported = warehouse.column("select axis_id from axes where kind = 'imported'")
    assert len(set(imported)) == len(imported)
    assert json.loads(row.parameters)["card"]["axis_id"] == native.axis_id


@pytest.mark.parametrize("name", [name for name, kind in FORMATS.items() if kind.holds_several])
def test_every_format_brings_back_every_layer(warehouse, tmp_path, name):
    """With their cards by number, and by number alone."""
    target = tmp_path / f"axes{FORMATS[name].suffix}"
    export_axes(warehouse, [NATIVE], name, target, all_layers=True)
    kind = recognise(target)
    assert kind is not None
    contents = kind.file.read(target)
    assert contents.convention == FORMATS[name].convention
    assert len(contents.vectors) == (2 if name == "gguf" else LAYER_COUNT)
    for number, vector in contents.vectors.items():
        layer = layer_of(number, contents.convention, "resid_post")
        axis = find_axis(warehouse, f"native/alpha/{layer}/labelled")
        np.testing.assert_array_equal(vector, axis.vector)
        assert vector.dtype == np.float32
        assert contents.card(number)["name"] == axis.name


def test_importing_again_finds_it_there(warehouse, tmp_path):
    path = tmp_path / "one.npz"
    np.savez(path, direction=vectors(9)[9])
    asked = {"layer": 2, "name": "mine"}
    first, again = bring(warehouse, path, **asked), bring(warehouse, path, **asked)
    assert first.axes[0].is_new and not again.axes[0].is_new
    assert first.axes[0].axis_id == again.axes[0].axis_id
    assert again.axes[0].name == "imported/alpha/2/mine"
    assert again.axes[0].raw_norm == pytest.approx(2.0)
    of_axes = [row for row in check(warehouse.root).to_pylist() if row["check"].startswith("axes_")]
    assert of_axes and not [row for row in of_axes if row["row_count"]]


def test_repengs_file_and_cvector_generators_differ_by_one(warehouse, tmp_path):
    repeng = control_vector(tmp_path / "repeng.gguf", vectors(1, 2))
    cvector = control_vector(tmp_path / "cvector.gguf", vectors(1, 2), signed=True)
    assert layers(bring(warehouse, repeng)) == [1, 2]
    assert layers(bring(warehouse, cvector)) == [0, 1]
    assert layers(bring(warehouse, cvector, convention="block")) == [1, 2]
    unclear = control_vector(tmp_path / "unclear.gguf", vectors(2), signed=True)
    with pytest.raises(AxisError, match="does not say what its numbers count .--convention"):
        bring(warehouse, unclear)
    assert layers(bring(warehouse, unclear, convention="hidden_states")) == [1]


def test_persona_vectors_rows_are_hidden_states(warehouse, tmp_path):
    rows_of = np.stack(list(vectors(0, 1, 2, 3).values()))
    path = tmp_path / "evil_response_avg_diff.pt"
    torch.save(torch.from_numpy(rows_of).bfloat16(), path)
    imported = bring(warehouse, path)
    assert layers(imported) == [0, 1]
    assert any("of the embedding" in remark for remark in imported.remarks)
    assert any("after the final norm" in remark for remark in imported.remarks)
    assert layers(bring(warehouse, path, layer=2)) == [2]
    assert layers(bring(warehouse, path, site="resid_pre")) == [0, 1, 2]
    row = find_axis(warehouse, "imported/alpha/0/evil_response_avg_diff")
    expected = torch.from_numpy(rows_of[1]).bfloat16().float().numpy()
    assert row.vector @ expected == pytest.approx(np.linalg.norm(expected), rel=1e-5)


def test_rows_for_every_block_and_rows_of_no_model(warehouse, tmp_path):
    path = tmp_path / "hidden.pt"
    torch.save(torch.from_numpy(np.stack(list(vectors(0, 1, 2).values()))), path)
    assert layers(bring(warehouse, path)) == [0, 1, 2]
    with pytest.raises(AxisError, match="has 3 rows, and alpha has 3 layers: 4 rows"):
        bring(warehouse, path, format="persona-vectors")
    np.save(tmp_path / "five.npy", np.ones((5, WIDTH), dtype=np.float32))
    with pytest.raises(AxisError, match="has 5 rows, and alpha has 3 layers: 3 or 4 rows"):
        bring(warehouse, tmp_path / "five.npy")


def test_refusal_directions_layer_is_the_block_that_takes_it_in(warehouse, tmp_path):
    folder = tmp_path / "refusal"
    folder.mkdir()
    torch.save(torch.from_numpy(vectors(0)[0]).double(), folder / "direction.pt")
    (folder / "direction_metadata.json").write_text('{"pos": -2, "layer": 2}')
    assert layers(bring(warehouse, folder)) == [1]
    assert layers(bring(warehouse, folder, site="resid_pre")) == [2]


def test_a_folder_of_many_hidden_directions_asks_for_one_of_its_files(warehouse, tmp_path):
    matrix = torch.from_numpy(np.stack(list(vectors(0, 1, 2).values())))
    listed = [{"name": name, "shape": [3, WIDTH]} for name in ("v_refusal", "v_inst")]
    manifest = {"model": "owner/alpha", "directions": listed}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for described in listed:
        torch.save(matrix, tmp_path / f"{described['name']}.pt")
    with pytest.raises(AxisError, match=r"holds 2 directions \(v_refusal, v_inst\): give the path"):
        bring(warehouse, tmp_path)
    assert layers(bring(warehouse, tmp_path / "v_refusal.pt")) == [0, 1, 2]


def test_svec_steering_vectors_and_named_tensors(warehouse, tmp_path):
    directions = {str(block): vector.tolist() for block, vector in vectors(0, 2).items()}
    svec = {"model_type": "llama", "directions": directions, "explained_variances": {}}
    (tmp_path / "behaviour.svec").write_text(json.dumps(svec))
    assert layers(bring(warehouse, tmp_path / "behaviour.svec")) == [0, 2]
    tensors = {str(block): vector for block, vector in vectors(0, 2).items()}
    steering = tmp_path / "steering.safetensors"
    save_file(tensors, steering, metadata={"layer_type": "decoder_block"})
    assert layers(bring(warehouse, steering)) == [0, 2]
    save_file(tensors, steering, metadata={"layer_type": "self_attn"})
    with pytest.raises(AxisError, match="expected vectors of decoder_block, found self_attn"):
        bring(warehouse, steering)
    named = tmp_path / "named.safetensors"
    save_tensors({"layer_1": torch.ones(WIDTH, dtype=torch.bfloat16)}, named)
    with pytest.raises(AxisError, match="--convention"):
        bring(warehouse, named)
    assert layers(bring(warehouse, named, convention="block")) == [1]


def lens_vector(rows: np.ndarray, blocks: list[int], **fields) -> dict:
    """A `SteeringVector` of vLLM-Lens 1.3 as its `model_dump` writes it, of bfloat16."""
    words = torch.from_numpy(rows).bfloat16().view(torch.int16).numpy()
    data = base64.b64encode(pa.compress(words.tobytes(), codec="zstd", asbytes=True)).decode()
    stored = {"dtype": "int16", "original_dtype": "torch.bfloat16", "compression": "zstd"}
    activations = {"data": data, "shape": list(rows.shape), **stored}
    known = {"scale": 1.0, "norm_match": False, "position_indices": None}
    return {"activations": activations, "layer_indices": blocks, **known, **fields}


def test_vllm_lens_vectors_count_blocks_and_have_the_sign_of_their_scale(warehouse, tmp_path):
    path, rows_of = tmp_path / "lens.json", np.stack(list(vectors(0, 1).values()))
    path.write_text(json.dumps(lens_vector(rows_of, [0, 2], scale=-3.0)))
    imported = bring(warehouse, path)
    assert imported.format == "vllm-lens" and layers(imported) == [0, 2]
    for axis, row in zip(imported.axes, rows_of, strict=True):
        expected = torch.from_numpy(row).bfloat16().float().numpy()
        vector = find_axis(warehouse, axis.axis_id).vector
        np.testing.assert_allclose(vector, -expected / np.linalg.norm(expected), atol=1e-6)
        assert axis.raw_norm == pytest.approx(3 * np.linalg.norm(expected))
    by_position = lens_vector(rows_of.reshape(1, 2, WIDTH), [1])
    shortened = lens_vector(rows_of, [0])
    broken = lens_vector(rows_of, [0, 1])
    broken["activations"]["data"] = base64.b64encode(b"not zstd").decode()
    huge = lens_vector(rows_of, [0, 1])
    huge["activations"]["shape"] = [2, 10**9]
    for content, message in (
        (by_position, r"activations \[1, 2, 16\] are of single positions"),
        (shortened, "cannot be read as vllm-lens"),
        (broken, "ZSTD decompression failed"),
        (huge, "would fill the memory"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(AxesError, match=message):
            bring(warehouse, path)


def test_all_that_is_missing_is_said_at_once(warehouse, tmp_path):
    path = tmp_path / "bare.npy"
    np.save(path, vectors(0)[0])
    with pytest.raises(AxisError) as refused:
        import_axes(warehouse, path, ImportRequest())
    message = str(refused.value)
    assert "--model; 16 wide are: alpha" in message and "--layer" in message
    imported = bring(warehouse, path, layer=1, site="mlp_out", pooling="last", fitted_on="labelled")
    assert imported.remarks == ("the file does not say it, taken for: template raw",)
    row = find_axis(warehouse, imported.axes[0].axis_id)
    assert (row.space.site, row.space.pooling, row.prompt_set) == ("mlp_out", "last", "labelled")
    assert (row.positive_count, row.negative_count) == (40, 40)
    with pytest.raises(PromptError, match="no prompt set nothing"):
        bring(warehouse, path, layer=1, fitted_on="nothing")


def test_what_does_not_fit_the_model_is_refused(warehouse, tmp_path):
    path = control_vector(tmp_path / "wide.gguf", vectors(1))
    with pytest.raises(AxisError, match="16 numbers, and the blocks of beta put out 20"):
        bring(warehouse, path, model="beta")
    with pytest.raises(LayerError, match="layer 9 of alpha does not exist: it has 3"):
        bring(warehouse, control_vector(tmp_path / "deep.gguf", vectors(9)))
    other = control_vector(tmp_path / "other.gguf", vectors(1), hint="qwen2")
    with pytest.raises(AxisError, match="type qwen2 .here: llama.*--other-model"):
        bring(warehouse, other)
    taken = bring(warehouse, other, is_other_model=True)
    assert layers(taken) == [1] and any("type qwen2" in remark for remark in taken.remarks)
    with pytest.raises(AxisError, match="has nothing at layer 2: it holds 1"):
        bring(warehouse, path, layer=2)


def test_a_card_of_another_model_is_refused(warehouse, tmp_path):
    path = tmp_path / "axis.json"
    export_axes(warehouse, [NATIVE], "json", path)
    content = json.loads(path.read_text())
    content["space_model"], content["space"]["weights_hash"] = "gamma", "other"
    path.write_text(json.dumps(content))
    with pytest.raises(AxisError, match="model gamma .here: alpha"):
        bring(warehouse, path)
    content["space_model"] = "alpha"
    path.write_text(json.dumps(content))
    assert any("of other weights" in remark for remark in bring(warehouse, path).remarks)
    with pytest.raises(AxisError, match="the card of .* says resid_post"):
        bring(warehouse, path, site="attn_out")


class Planted:
    """What a pickled file would run: it leaves a file behind."""

    def __init__(self, left_behind):
        self.left_behind = left_behind

    def __reduce__(self):
        return Path.touch, (self.left_behind,)


@pytest.mark.parametrize("name", ["tensor.pt", "object.pt"])
def test_a_torch_file_runs_nothing(warehouse, tmp_path, name):
    path, left_behind = tmp_path / name, tmp_path / "code ran"
    if name == "tensor.pt":
        torch.save({"direction": torch.ones(WIDTH), "run": Planted(left_behind)}, path)
    else:
        path.write_bytes(pickle.dumps(Planted(left_behind)))
    with pytest.raises(AxisError, match="without running code"):
        bring(warehouse, path, layer=1)
    assert not left_behind.exists()
    pickle.loads(pickle.dumps(Planted(left_behind)))
    assert left_behind.exists()  # the file would have run something


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros(WIDTH), AxisError, "is zero"),
        (np.full(WIDTH, np.nan), NonFiniteError, "NaN"),
        (np.ones((2, 3, WIDTH)), AxisError, r"expected one array \[d_model\].*\[2, 3, 16\]"),
    ],
)
def test_vectors_that_are_no_direction(warehouse, tmp_path, array, error, message):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(error, match=message):
        bring(warehouse, tmp_path / "bad.npy", layer=1)


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_one_line(warehouse, tmp_path, name):
    target = tmp_path / f"axis{FORMATS[name].suffix}"
    export_axes(warehouse, [NATIVE], name, target)
    files = [target] if target.is_file() else sorted(target.iterdir())
    path = next(file for file in files if file.suffix not in (".json", ".md") or file == target)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AxesError):
        import_axes(warehouse, target, ImportRequest(format=name, model="alpha", layer=1))


def test_an_unknown_file_and_no_file(warehouse, tmp_path):
    with pytest.raises(AxisError, match="there is no file or folder"):
        bring(warehouse, tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(AxisError, match="in no format that is known"):
        bring(warehouse, tmp_path / "text")


def test_an_imported_axis_is_scored_and_compared_as_any_other(warehouse, tmp_path):
    path = tmp_path / "axis.svec"
    export_axes(warehouse, [NATIVE], "svec", path)
    (axis,) = import_axes(warehouse, path, ImportRequest()).axes
    score(warehouse.root, axis.axis_id)
    (imported,) = ask(
        warehouse.root, "select auroc, is_in_sample from v_auroc where axis_id = ?", [axis.axis_id]
    )
    assert imported["auroc"] > 0.8 and imported["is_in_sample"]
    (cosine,) = ask(
        warehouse.root,
        "select cosine from v_axis_cosines where axis_id = ? and other_axis_name = ?",
        [axis.axis_id, NATIVE],
    )
    assert cosine["cosine"] == pytest.approx(1.0, abs=1e-6)
    (difference,) = ask(
        warehouse.root,
        "select max(abs(project(vector, $axis_id) - projection)) as most from activations "
        "inner join projections using (model, model_id, prompt_id, layer) where axis_id = $axis_id",
        {"axis_id": axis.axis_id},
    )
    assert difference["most"] < 1e-4


def test_an_imported_axis_of_the_reference_takes_other_models_through_their_maps(
    warehouse, tmp_path
):
    path = tmp_path / "universal.gguf"
    export_axes(warehouse, [UNIVERSAL], "gguf", path)
    (axis,) = import_axes(warehouse, path, ImportRequest()).axes
    done = {item.model: item for item in score(warehouse.root, axis.axis_id)}
    assert done["alpha"].alignment_id and done["beta"].alignment_id is None
    aurocs = ask(
        warehouse.root,
        "select model, kind, auroc from v_auroc where axis_id = ? or axis_name = ? order by all",
        [axis.axis_id, UNIVERSAL],
    )
    by_model = {row["model"]: set() for row in aurocs}
    for row in aurocs:
        by_model[row["model"]].add(round(row["auroc"], 6))
    assert {model: len(values) for model, values in by_model.items()} == {"alpha": 1, "beta": 1}
