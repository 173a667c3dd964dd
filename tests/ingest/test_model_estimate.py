"""What a model is said to need is what it then needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from axes.ingest.model_estimate import Estimate, estimate_needs, in_words
from axes.ingest.models.registry import ModelSpec, registry, resolve
from axes.warehouse.errors import ModelError
from axes.warehouse.storage.layout import partition_folder
from axes.warehouse.tables.schemas import TABLES
from tests.ingest.conftest import ImportTexts, ingest_texts, loaded_on_cpu
from tests.tiny_models import save_tiny, tiny_model


def config(
    model_type: str, width: int, mlp: int, blocks: int, heads: int, kv: int, vocab: int
) -> dict:
    """A configuration by its figures."""
    return {
        "model_type": model_type,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
    }


# The figures of the real config.json files, and the parameter counts their authors publish.
STUDY = {
    "pythia-160m": (config("gpt_neox", 768, 3072, 12, 12, 12, 50_304), 162_322_944),
    "pythia-410m": (config("gpt_neox", 1024, 4096, 24, 16, 16, 50_304), 405_334_016),
    "pythia-1b": (config("gpt_neox", 2048, 8192, 16, 8, 8, 50_304), 1_011_781_632),
    "llama-2-13b-chat": (config("llama", 5120, 13_824, 40, 40, 40, 32_000), 13_015_864_320),
    "llama-3-8b-instruct": (config("llama", 4096, 14_336, 32, 32, 8, 128_256), 8_030_261_248),
    "mistral-7b-instruct": (config("mistral", 4096, 14_336, 32, 32, 8, 32_000), 7_241_732_096),
    "qwen2.5-7b": (config("qwen2", 3584, 18_944, 28, 28, 4, 152_064), 7_615_616_512),
}


def estimated(folder: Path, described: dict, **assumed: float) -> Estimate:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(described))
    return estimate_needs(resolve(str(folder)), **assumed)


def test_the_configurations_are_those_of_the_registry():
    assert list(STUDY) == [name for name, spec in registry().items() if spec.revision]


@pytest.mark.parametrize("name", STUDY)
def test_the_studys_models_have_their_published_parameter_counts(name: str, tmp_path: Path):
    described, published = STUDY[name]
    needs = estimated(tmp_path / name, described)
    assert needs.parameter_count == published
    assert needs.memory_float32_bytes == 4 * published
    assert needs.memory_bfloat16_bytes == 2 * published
    assert needs.rows_per_1000_prompts == 1000 * described["num_hidden_layers"]
    assert not needs.is_fetched


def test_quantised_memory_leaves_embeddings_in_bfloat16(tmp_path: Path):
    needs = estimated(tmp_path / "qwen", STUDY["qwen2.5-7b"][0])
    block_rows = 3584 + 2 * 512 + 3584 + 2 * 18944 + 3584
    block_weights = 3584 * (3584 + 2 * 512 + 3584) + 3 * 3584 * 18944
    rest = 2 * (7_615_616_512 - 28 * block_weights)
    assert needs.memory_8bit_bytes == rest + 28 * block_weights + 28 * 4 * block_rows
    assert needs.memory_4bit_bytes == rest + 28 * block_weights * 9 // 16


@pytest.mark.parametrize("quantization", [None, "8bit", "4bit"])
def test_memory_is_what_the_loaded_model_then_holds(tmp_path: Path, quantization: str | None):
    folder = save_tiny(tmp_path / "wide", "llama", hidden_size=256, intermediate_size=512)
    spec = resolve(str(folder), quantization=quantization)
    model = loaded_on_cpu(spec, "bfloat16").model
    held = model.get_memory_footprint() + sum(map(scale_bytes, model.parameters()))
    needs = asdict(estimate_needs(spec))
    assert needs[f"memory_{quantization or 'bfloat16'}_bytes"] == pytest.approx(held, rel=1e-3)


def scale_bytes(weight: torch.nn.Parameter) -> int:
    """What bitsandbytes keeps beside a quantised weight, which the footprint leaves out."""
    blockwise = getattr(weight, "quant_state", None)
    scales = getattr(weight, "SCB", None) if blockwise is None else blockwise.absmax
    return 0 if scales is None else scales.nbytes


def test_tied_embeddings_count_once(tmp_path: Path):
    model = tiny_model("qwen2", tie_word_embeddings=True)
    model.config.save_pretrained(tmp_path)
    needs = estimate_needs(resolve(str(tmp_path)))
    assert needs.parameter_count == sum(weight.numel() for weight in model.parameters())


def test_disk_is_what_an_ingest_then_takes(root: Path, tmp_path: Path, import_texts: ImportTexts):
    spec = resolve(str(save_tiny(tmp_path / "wide", "llama", hidden_size=256)))
    import_texts([f"tell me about the number {number}" for number in range(500)])
    ingest_texts(root, spec)
    folder = partition_folder(root, TABLES["activations"], spec.name)
    taken = sum(path.stat().st_size for path in folder.glob("*.parquet"))
    needs = estimate_needs(spec)
    assert needs.disk_bytes_per_1000_prompts == pytest.approx(2 * taken, rel=0.05)
    assert (needs.is_fetched, needs.download_bytes) == (True, 0)


def test_time_is_tokens_over_speed(tmp_path: Path):
    described = STUDY["pythia-160m"][0]
    needs = estimated(tmp_path, described, tokens_per_prompt=300, tokens_per_second=50)
    assert needs.seconds_per_1000_prompts == 6000
    assert "1:40:00 at 50 tokens per second and 300 per prompt" in str(in_words(needs))


def test_of_a_model_in_wheels_the_registry_knows_the_size_and_only_fetching_the_rest():
    spec = registry()["smollm2-135m"]
    needs = estimate_needs(spec)
    assert (needs.download_bytes, needs.parameter_count) == (98_362_432, None)
    assert "98.36 MB" in str(in_words(needs)) and "axes models fetch" in str(in_words(needs))


def test_what_is_no_language_model_is_one_line(tmp_path: Path):
    with pytest.raises(ModelError, match=r"config\.json"):
        estimate_needs(ModelSpec(name="empty", source=str(tmp_path)))
    for described in ({"model_type": "no_such_family"}, {"model_type": "vit"}, {"hidden_size": 3}):
        with pytest.raises(ModelError) as caught:
            estimated(tmp_path, described)
        assert "\n" not in str(caught.value)
