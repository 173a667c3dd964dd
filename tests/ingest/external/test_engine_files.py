"""What a serving engine writes becomes the rows that a job of ours writes for the same prompts."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from axes.ingest.external.activations import import_activations
from axes.ingest.models.registry import ModelSpec
from axes.ingest.requests import ExternalActivationRequest
from axes.warehouse.errors import AxesError
from tests import commands
from tests.ingest.conftest import ImportTexts, assert_checks_pass, ingest_texts, loaded_on_cpu, read

TEXTS = ["hi", "what is it", "a rather longer prompt than the others are"]
LAYERS = 4  # of tests/tiny_models.py
Write = Callable[..., Path]


def block_inputs(spec: ModelSpec, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, and as vLLM collects them the inputs of the blocks, then the last's output."""
    loaded = loaded_on_cpu(spec)
    ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
    blocks, seen = loaded.model.model.layers, []
    hooks = [
        each.register_forward_pre_hook(lambda _m, args: seen.append(args[0])) for each in blocks
    ]
    hooks.append(blocks[-1].register_forward_hook(lambda _m, _a, output: seen.append(output)))
    with torch.no_grad():
        loaded.model(ids)
    for hook in hooks:
        hook.remove()
    states = [each[0] if isinstance(each, tuple) else each for each in seen]
    return ids[0], torch.cat([state.reshape(1, ids.shape[1], -1) for state in states])


@pytest.fixture
def vllm(llama: ModelSpec, tmp_path: Path) -> Write:
    """A folder as `ExampleHiddenStatesConnector` leaves it, with its lock files, and an index."""

    def write(layer_ids: list[int]) -> Path:
        folder = tmp_path / "states"
        folder.mkdir()
        for number, text in enumerate(TEXTS):
            ids, states = block_inputs(llama, text)
            tensors = {"hidden_states": states[layer_ids].transpose(0, 1).contiguous()}
            save_file({**tensors, "token_ids": ids}, folder / f"{number}-ab12.safetensors")
            (folder / f"{number}-ab12.safetensors.lock").touch()
        write_index(folder, ".safetensors")
        return folder

    return write


def write_index(folder: Path, suffix: str) -> None:
    """In another order than that of the names, with the paths that the engine returned."""
    files = [f"/dev/shm/states/{number}-ab12{suffix}" for number in range(len(TEXTS))]
    index = pl.DataFrame({"text": TEXTS, "file": files, "label": ["a", "b", "a"]})
    index.reverse().write_csv(folder.with_suffix(".index.csv"))


def bring(root: Path, folder: Path, layer_ids: tuple[int, ...], **changed) -> list[int]:
    options = {"pooling": "last5_mean", "prompt_set": "served", "positive": ["a"], **changed}
    model = {"name": "served", "layer_count": LAYERS, "computed_with": "vllm"}
    request = ExternalActivationRequest(file=folder, model=model, layer_ids=layer_ids, **options)
    return import_activations(root, request).layers


def vectors(root: Path, model: str) -> dict[tuple, np.ndarray]:
    sql = "select prompt_id, layer, site, token_count, pooled_start, pooled_end, vector from "
    found = read(root, f"{sql} activations where model = ?", [model])
    return {tuple(row.values())[:-1]: np.array(row["vector"]) for row in found}


def test_a_folder_of_vllm_has_the_rows_of_our_own_job(
    root: Path, llama: ModelSpec, vllm: Write, import_texts: ImportTexts
):
    import_texts(TEXTS)
    ingest_texts(root, llama)
    folder = vllm([1, 2, 3, 4])
    # In whatever order the numbers are given, the engine stores them as the blocks run.
    assert bring(root, folder, (4, 1, 3, 2)) == [0, 1, 2, 3]
    own, served = vectors(root, llama.name), vectors(root, "served")
    assert own.keys() == served.keys() and len(own) == LAYERS * len(TEXTS)
    for key, vector in own.items():
        np.testing.assert_allclose(served[key], vector, atol=1e-5)
    assert [row["label"] for row in read(root, "from labels order by prompt_id")]
    assert_checks_pass(root)


def test_number_0_is_the_input_of_the_first_block(root: Path, vllm: Write):
    assert bring(root, vllm([0, 4]), (0, 4), pooling="last") == [0, 3]
    sites = read(root, "select distinct layer, site from activations order by layer")
    assert sites == [{"layer": 0, "site": "resid_pre"}, {"layer": 3, "site": "resid_post"}]


@pytest.mark.parametrize(
    ("layer_ids", "changed", "message"),
    [
        ((1, 2), {}, r"has 1 layers of 32 numbers, and --layer-ids has 2"),
        ((5,), {}, r"layer 5 of served does not exist"),
        (
            (4,),
            {"layers_are": "hidden_states"},
            r"layers_are is hidden_states.*vLLM \(block_inputs\)",
        ),
        ((4,), {"pooling": None}, r"--pooling last, mean"),
        ((4,), {"pooling": "content_mean"}, r"does not say which positions content_mean reads"),
        ((4,), {"site": "mlp_out"}, r"site is mlp_out.*of resid_post"),
    ],
)
def test_another_convention_is_refused(root: Path, vllm: Write, layer_ids, changed, message):
    with pytest.raises(AxesError, match=message):
        bring(root, vllm([4]), layer_ids, **changed)


def test_what_is_missing_broken_or_of_another_shape_is_one_line(root: Path, vllm: Write):
    folder = vllm([4])
    victim = folder / "1-ab12.safetensors"
    content = victim.read_bytes()
    faults = [
        (lambda: victim.write_bytes(content[:90]), "cannot be read"),
        (victim.unlink, "No such file"),
        (lambda: save_file({"hidden_states": torch.zeros(2, 3)}, victim), "has no token_ids"),
        (
            lambda: save_file(
                {"hidden_states": torch.zeros(2, 1, 8), "token_ids": torch.zeros(3)}, victim
            ),
            r"\[token, layer, d_model\]",
        ),
    ]
    for fault, message in faults:
        fault()
        with pytest.raises(AxesError, match=message) as caught:
            bring(root, folder, (4,))
        assert "\n" not in str(caught.value)
    index = folder.with_suffix(".index.csv")
    pl.read_csv(index).drop("file").write_csv(index)
    with pytest.raises(AxesError, match="a column file"):
        bring(root, folder, (4,))


def test_responses_of_vllm_lens_count_blocks_and_leave_out_generated_tokens(
    root: Path, llama: ModelSpec, tmp_path: Path, import_texts: ImportTexts
):
    folder = tmp_path / "responses"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        ids, states = block_inputs(llama, text)
        # [layer, position, d_model] of blocks 1 and 3, and two tokens that were generated.
        stream = torch.cat([states[[2, 4]], torch.full((2, 2, states.shape[2]), 9.0)], dim=1)
        raw = stream.to(torch.bfloat16).view(torch.int16).numpy()
        entry = {
            "data": base64.b64encode(
                pa.compress(raw.tobytes(), codec="zstd", asbytes=True)
            ).decode(),
            "dtype": "int16",
            "original_dtype": "torch.bfloat16",
            "shape": list(raw.shape),
            "compression": "zstd",
        }
        response = {"choices": [{"text": "..."}], "usage": {"prompt_tokens": len(ids)}}
        response["activations"] = {"residual_stream": entry}
        (folder / f"{number}-ab12.json").write_text(json.dumps(response))
    write_index(folder, ".json")
    import_texts(TEXTS)
    ingest_texts(root, llama, layers=[1, 3])
    done = commands.ok(
        *("activations", "import", folder, "--model", "served", "--layer-count", LAYERS),
        *("--layer-ids", "1,3", "--pooling", "last5_mean", "--prompts", "served"),
        *("--positive", "a", "--root", root),
    )
    assert done.exit_code == 0
    own, served = vectors(root, llama.name), vectors(root, "served")
    assert own.keys() == served.keys() and len(own) == 6
    for key, vector in own.items():
        np.testing.assert_allclose(served[key], vector, rtol=0.02, atol=0.02)
    response["activations"]["residual_stream"]["data"] = "AAAA"
    (folder / "2-ab12.json").write_text(json.dumps(response))
    with pytest.raises(AxesError, match=r"2-ab12\.json cannot be read"):
        bring(root, folder, (1, 3))
    (folder / "2-ab12.json").write_text(json.dumps({"choices": []}))
    with pytest.raises(AxesError, match=r"is not a response of vLLM-Lens"):
        bring(root, folder, (1, 3))
