"""Prompts of text alone through vision-language checkpoints give what the model gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from axes.ingest.model_doctor import FAIL, examine
from axes.ingest.models.registry import resolve
from axes.warehouse.errors import ModelError
from tests.ingest.conftest import (
    ImportTexts,
    activation_rows,
    identity_of,
    ingest_texts,
    loaded_on_cpu,
)
from tests.ingest.forward.families import ROWS, VISION, block_outputs, save_vision, vision_model
from tests.ingest.forward.test_recording import final_norm
from tests.tiny_models import SIZES, byte_tokenizer

TEXTS = ["hello there, you", "hi", "what is it"]
WITH_JOB = ["gemma3", "llama4", "mistral3", "qwen3_vl", "smolvlm"]


def own_states(family: str, model: Any, row: list[int]) -> tuple[torch.Tensor, ...]:
    # transformers 5.24 ends a pass of Llama 4 with an error, after the language model is done.
    causal = model.language_model if family == "llama4" else model
    with torch.no_grad():
        found = causal(torch.tensor([row]), output_hidden_states=True, use_cache=False)
    return found.hidden_states[1:]


@pytest.mark.parametrize("family", WITH_JOB)
def test_stored_rows_are_the_models_own_hidden_states(
    family: str, root: Path, tmp_path: Path, import_texts: ImportTexts
) -> None:
    model = vision_model(family)
    import_texts(TEXTS)
    spec = resolve(str(save_vision(tmp_path / family, model)))
    summary = ingest_texts(root, spec, poolings=("last", "mean"))
    stored = activation_rows(root)
    assert len(stored) == summary.rows == len(TEXTS) * 4 * 2
    for text in TEXTS:
        *inner, normed = own_states(family, model, byte_tokenizer()(text).input_ids)
        for layer, state in enumerate(inner):
            for pooling, expected in (("mean", state[0].mean(0)), ("last", state[0, -1])):
                vector = stored[summary.model_id, text, layer, pooling, "raw"]
                np.testing.assert_allclose(vector, expected, atol=1e-4, rtol=1e-4)
        last = torch.tensor(stored[summary.model_id, text, 3, "last", "raw"])
        last = final_norm(getattr(model, "language_model", model))(last)
        torch.testing.assert_close(last, normed[0, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", [family for family in VISION if family not in WITH_JOB])
def test_a_loaded_checkpoint_records_the_models_own_hidden_states(
    family: str, tmp_path: Path
) -> None:
    model = vision_model(family)
    loaded = loaded_on_cpu(resolve(str(save_vision(tmp_path / family, model))))
    for side in ("right", "left"):
        for row, found in zip(ROWS, block_outputs(loaded, ROWS, side), strict=True):
            *inner, normed = own_states(family, model, row)
            expected = torch.cat(inner)
            torch.testing.assert_close(found[:-1], expected, atol=1e-4, rtol=1e-4)
            last = final_norm(model)(found[-1])
            torch.testing.assert_close(last, normed[0], atol=1e-4, rtol=1e-4)


def test_the_doctor_passes_one_and_names_the_blocks_of_its_decoder(tmp_path: Path) -> None:
    spec = resolve(str(save_vision(tmp_path / "vl", vision_model("qwen2_5_vl"))))
    found = {finding.check: finding for finding in examine(spec, device="cpu")}
    assert [name for name, finding in found.items() if finding.result == FAIL] == []
    assert found["blocks"].detail == "model.language_model.layers: 4, d_model 32"


def test_one_whose_blocks_need_an_image_or_read_ahead_is_one_line(tmp_path: Path) -> None:
    text = {**SIZES, "head_dim": 8}
    vision = VISION["gemma3"]["vision_config"]
    crossing = {
        "text_config": {**SIZES, "cross_attention_layers": [1]},
        "vision_config": {
            **vision,
            "num_global_layers": 1,
            "attention_heads": 2,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 32,
        },
    }
    ahead = {"text_config": {"model_type": "gemma", **text}, "vision_config": vision}
    for family, parts, message in (
        ("mllama", crossing, "^mllama does not run on text alone$"),
        ("paligemma", ahead, "^paligemma attends to later tokens of a prompt: not causal$"),
    ):
        folder = save_vision(tmp_path / family, vision_model(family, **parts))
        with pytest.raises(ModelError, match=message):
            identity_of(resolve(str(folder)))
