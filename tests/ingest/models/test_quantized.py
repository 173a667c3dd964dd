"""Checkpoints that are stored quantised are run, or refused before a weight is read or fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import axes.ingest.models.identity
from axes.ingest.model_estimate import estimate_needs, in_words
from axes.ingest.models.load import model_row
from axes.ingest.models.quantized import runnable_quantization
from axes.ingest.models.registry import resolve
from axes.warehouse.errors import ModelError
from tests.commands import refused
from tests.ingest.conftest import identity_of, loaded_on_cpu
from tests.ingest.hub_server import Client, ServedRepository, serve
from tests.tiny_models import byte_tokenizer, save_tiny

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
METHODS = [
    (FP8, "fp8"),
    (GPTQ, "gptq-4bit"),
    ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}, "awq-4bit"),
    ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors"),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-4bit"),
    ({"load_in_8bit": True}, "bitsandbytes-8bit"),
    (None, None),
]


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A tiny model whose linear weights are one FP8 block each."""
    return save_tiny(tmp_path / "wide", "llama", hidden_size=128, intermediate_size=128)


def describe(folder: Path, quantization: object) -> Path:
    """Say in a folder's configuration how its weights are quantised."""
    config = folder / "config.json"
    described = {**json.loads(config.read_text()), "quantization_config": quantization}
    config.write_text(json.dumps(described))
    return config


def quantised_to_fp8(folder: Path) -> Path:
    """Replace the blocks' linear weights by FP8 ones with a scale for each."""
    path = folder / "model.safetensors"
    weights: dict[str, torch.Tensor] = {}
    for name, weight in load_file(path).items():
        if "proj" not in name:
            weights[name] = weight.clone()
            continue
        scale = weight.abs().max() / 448
        weights[name] = (weight / scale).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = scale.reshape(1, 1)
    save_file(weights, path, metadata={"format": "pt"})
    describe(folder, FP8)
    return folder


@pytest.mark.parametrize(("quantization", "method"), METHODS)
def test_the_method_is_that_of_the_configuration(quantization: Any, method, llama_folder) -> None:
    describe(llama_folder, quantization)
    needs = estimate_needs(resolve(str(llama_folder)))
    assert needs.quantization == method
    assert ("stored in" in str(in_words(needs))) is (method is not None)


REFUSED = [
    (GPTQ, r"\(gptq-4bit\) and cannot be run here: .*pip install optimum"),
    (METHODS[2][0], r"\(awq-4bit\) and cannot be run here: .*pip install gptqmodel"),
    (METHODS[3][0], r"\(compressed-tensors\) and cannot .*pip install compressed-tensors"),
    ({"quant_method": "fbgemm_fp8"}, r"\(fbgemm_fp8\) and cannot be run here: .*requires a GPU"),
    ({"quant_method": "nonesuch"}, r"\(nonesuch\) and cannot be run here: Unknown quant"),
    ({"quant_method": "gptq"}, r"quantization_config cannot be read: .*bits"),
    ({"quant_method": ["fp8"]}, "quantization_config cannot be read"),
    (5, "quantization_config cannot be read: 5"),
]


@pytest.mark.parametrize(("quantization", "message"), REFUSED)
def test_what_this_machine_cannot_run_is_one_line_before_a_weight_is_read(
    quantization: object, message: str, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("optimum", "gptqmodel", "compressed_tensors", "fbgemm_gpu"):
        monkeypatch.setitem(sys.modules, package, None)
    describe(llama_folder, quantization)
    unread = lambda *_: pytest.fail("weights read")  # noqa: E731 - a stand-in for two functions
    monkeypatch.setattr(axes.ingest.models.identity, "files_hash", unread)
    with pytest.raises(ModelError, match=message) as caught:
        identity_of(resolve(str(llama_folder)))
    assert "\n" not in str(caught.value)


def test_a_hub_checkpoint_is_refused_before_its_weights_are_downloaded(
    llama_folder: Path, tmp_path: Path
) -> None:
    describe(llama_folder, GPTQ)
    served = {"owner/quantised": ServedRepository(llama_folder, "a" * 40)}
    with serve(served) as hub:
        client = Client(hub.endpoint, tmp_path / "home")
        done = client.axes("models", "doctor", "owner/quantised")
        assert done.returncode == 1
        *_, last = done.stderr.strip().splitlines()
        assert last.startswith("Error: owner/quantised is quantised (gptq-4bit) and cannot be run")
        assert {request.name for request in hub.fetched()} == {"config.json"}
        # A machine without a GPU may fetch for one that has it.
        client.fetched_folder("owner/quantised")
        assert hub.fetched("model.safetensors")


def test_fp8_weights_are_run_dequantised_where_there_is_no_gpu(wide: Path) -> None:
    spec = resolve(str(wide))
    plain = loaded_on_cpu(spec)
    quantised_to_fp8(wide)
    loaded = loaded_on_cpu(spec)
    assert model_row(loaded, "run")["quantization"] == "fp8-dequantized"
    assert loaded.identity.model_id != plain.identity.model_id
    for mine, whole in zip(loaded.blocks, plain.blocks, strict=True):
        weight, expected = (block.mlp.up_proj.weight for block in (mine, whole))
        # Three bits of mantissa: a sixteenth of each value at most.
        assert 0 < (weight - expected).abs().max() <= expected.abs().max() / 16


def test_fp8_weights_have_another_key_where_a_gpu_runs_them_as_they_are(wide, monkeypatch) -> None:
    config = describe(wide, FP8)
    assert runnable_quantization(config, "m") == "fp8-dequantized"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    assert runnable_quantization(config, "m") == "fp8"


def test_a_checkpoint_that_bitsandbytes_saved_is_run_and_not_quantised_again(wide: Path) -> None:
    in_4bit = BitsAndBytesConfig(load_in_4bit=True)
    model = AutoModelForCausalLM.from_pretrained(
        wide, quantization_config=in_4bit, device_map="cpu", dtype=torch.float32
    )
    saved = wide.with_name("saved")
    model.save_pretrained(saved)
    byte_tokenizer().save_pretrained(saved)
    loaded = loaded_on_cpu(resolve(str(saved)))
    assert loaded.identity.quantization == "bitsandbytes-4bit"
    assert type(loaded.blocks[0].mlp.up_proj).__name__ == "Linear4bit"
    tokens = torch.tensor([[1, 5, 9, 7]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(tokens).logits, model(tokens).logits)
    message = refused("models", "doctor", saved, "--quantization", "4bit")
    assert message.endswith(
        "saved is quantised already (bitsandbytes-4bit): leave --quantization out"
    )


def test_other_models_keep_their_keys(llama_folder: Path) -> None:
    """No quantization_config and null are the same; loading in 4 bits is as it was asked for."""
    spec = resolve(str(llama_folder))
    assert identity_of(spec).quantization is None
    in_4bit = resolve(str(llama_folder), quantization="4bit")
    assert identity_of(in_4bit).quantization == "4bit"
