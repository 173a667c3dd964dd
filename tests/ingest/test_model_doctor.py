"""The doctor passes a sound model of any kind and finds what it is there to find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import axes.ingest.jobs
import axes.warehouse.progress
from axes.ingest.forward.templates import Template
from axes.ingest.model_doctor import FAIL, NOTE, PASS, Finding, examine
from axes.ingest.models.registry import ModelSpec, resolve
from axes.warehouse.errors import ModelError
from tests.ingest.forward.families import FAMILIES
from tests.tiny_models import byte_tokenizer, save_tiny

CHECKS = [
    "load",
    "tokenizer",
    "pad token",
    "raw",
    "chat",
    "chat with a system prompt",
    "rendered text",
    "blocks",
    "finite",
    "own hidden_states",
    "alone = in a batch",
    "left = right padding",
    "speed",
    "sites",
    "shared prefix",
]


def by_check(spec: ModelSpec, **options: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(spec, device="cpu", **options)}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3_text", "bloom"])
def test_a_sound_model_passes_every_check(family: str, tmp_path: Path) -> None:
    found = by_check(resolve(str(save_tiny(tmp_path / family, family, **FAMILIES[family]))))
    assert list(found) == CHECKS
    assert [name for name, finding in found.items() if finding.result == FAIL] == []
    assert found["own hidden_states"].result == PASS
    assert found["rendered text"].detail == "'<s><user>Name three rivers.<assistant>'"
    assert "one BOS" in found["raw"].detail and "one BOS" in found["chat"].detail
    assert "4, d_model 32" in found["blocks"].detail
    assert found["shared prefix"].result == (NOTE if family == "gemma3_text" else PASS)


@pytest.mark.parametrize("family", ["mamba2", "qwen3_next"])
def test_state_space_and_hybrid_models_are_not_at_fault(family: str, tmp_path: Path) -> None:
    found = by_check(resolve(str(save_tiny(tmp_path / family, family, **FAMILIES[family]))))
    assert list(found) == CHECKS
    assert [name for name, finding in found.items() if finding.result == FAIL] == []


def test_reduced_precision_and_a_model_without_a_chat_template_are_not_at_fault(llama, tmp_path):
    found = by_check(llama, dtype="bfloat16")
    assert [name for name, finding in found.items() if finding.result == FAIL] == []
    found = by_check(resolve(str(save_tiny(tmp_path / "base", "llama", chat=False))))
    assert found["chat"] == Finding("chat", NOTE, "base has no chat template: use --template raw")


def test_the_template_of_a_job_is_shown_on_a_prompt_with_what_it_ignores(llama: ModelSpec) -> None:
    template = Template("chat", "Be kind.", ("enable_thinking=false",), "Sure,")
    found = by_check(llama, template=template)
    shown = "'<s><system>Be kind.<user>Name three rivers.<assistant>Sure,'"
    assert found["rendered text"] == Finding("rendered text", NOTE, shown)
    assert found[template.name].result == PASS
    assert found["template"].result == NOTE
    assert "enable_thinking=false changes nothing" in found["template"].detail


def test_a_slow_check_tells_its_time_where_there_is_no_terminal(llama, monkeypatch, capsys):
    monkeypatch.setattr(axes.warehouse.progress, "_LINE_EVERY", 0.001)
    by_check(llama)
    said = capsys.readouterr().err
    for step in ("load tiny-llama", "run prompts: tiny-llama", "find sites: tiny-llama"):
        assert f"{step}: 0:00:0" in said


def test_two_bos_are_found(llama: ModelSpec, llama_folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    tokenizer.save_pretrained(llama_folder)
    found = by_check(llama)
    assert (found["raw"].result, found["chat"].result) == (PASS, FAIL)
    assert "two BOS" in found["chat"].detail


def _turned(loaded: Any) -> None:
    loaded.blocks[1], loaded.blocks[2] = loaded.blocks[2], loaded.blocks[1]


def _without_mask(loaded: Any) -> None:
    forward = loaded.model.base_model.forward
    loaded.model.base_model.forward = lambda input_ids, attention_mask=None, **rest: forward(
        input_ids, **rest
    )


def _huge(loaded: Any) -> None:
    loaded.blocks[1].mlp.down_proj.weight.mul_(1e9)


@pytest.mark.parametrize(
    ("change", "check", "dtype"),
    [
        (_turned, "own hidden_states", "float32"),
        (_without_mask, "left = right padding", "float32"),
        (_huge, "finite", "float16"),
    ],
)
def test_blocks_padding_and_overflows_that_spoil_activations_are_found(
    llama, monkeypatch, change, check, dtype
):
    real = axes.ingest.jobs.load

    def changed(*args: Any) -> Any:
        loaded = real(*args)
        change(loaded)
        return loaded

    assert by_check(llama, dtype=dtype)[check].result == PASS
    monkeypatch.setattr(axes.ingest.jobs, "load", changed)
    assert by_check(llama, dtype=dtype)[check].result == FAIL


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        list(examine(ModelSpec("empty", str(tmp_path)), device="cpu"))


def test_a_tokenizer_of_another_model_is_one_line(tmp_path: Path) -> None:
    small = resolve(str(save_tiny(tmp_path / "small", "llama", vocab_size=90)))
    with pytest.raises(ModelError, match="beyond the model's vocabulary of 90"):
        list(examine(small, device="cpu"))
