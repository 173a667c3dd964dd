"""Batches that do not fit the memory: smaller ones follow, and every prompt is still run once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from axes.ingest.activations import plan_activations
from axes.ingest.forward.batching import Batches
from axes.ingest.forward.forward import Batch, Forward
from axes.ingest.forward.templates import Rendered
from axes.ingest.generation.traces import ingest_traces
from axes.ingest.models.registry import ModelSpec
from axes.ingest.requests import TraceRequest
from axes.warehouse.errors import ModelError
from axes.warehouse.runs import Run
from tests.ingest.conftest import ImportTexts, activation_rows, for_texts, ingest_texts, last_run

SYSTEM = "You are a careful assistant who answers in one line."
TEXTS = [f"{index}{'x' * (index % 11)}" for index in range(24)]
CHAT = {"layers": (0,), "template": "chat", "system": SYSTEM}


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40),
    shared=st.sampled_from([0, 3, 200]),
    room=st.integers(0, 400),
    token_budget=st.integers(1, 600),
)
def test_whatever_the_lengths_each_prompt_is_run_once(lengths, shared, room, token_budget):
    """Room for so many tokens, those of a shared prefix included, which the budget leaves out."""
    sizes = {f"p{index}": length for index, length in enumerate(lengths)}
    room += shared + max(lengths)
    tries: list[list[str]] = []

    def compute(names: list[str]) -> int:
        tries.append(names)
        if len(names) * max(shared + sizes[name] for name in names) > room:
            raise torch.OutOfMemoryError("pretended")
        return len(names)

    run = Run(Path(), "ingest", {})
    loaded: Any = SimpleNamespace(device="cpu", spec=SimpleNamespace(name="m"))
    batches = Batches(loaded, run, token_budget)
    done = list(batches.compute(sizes, compute, str))
    assert sorted(name for names, _ in done for name in names) == sorted(sizes)
    assert all(count == len(names) for names, count in done)
    refused = len(tries) - len(done)
    assert len(run.messages) == refused
    assert refused <= token_budget.bit_length()
    assert batches.budget == token_budget >> refused


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for four prompts at a time."""
    real = Forward.start

    def start(self: Forward, names: list[str], rendered: list[Rendered]) -> Batch:
        if len(names) > 4:
            raise torch.OutOfMemoryError("pretended")
        return real(self, names, rendered)

    monkeypatch.setattr(Forward, "start", start)


def test_behind_a_shared_prefix_too(root, llama, import_texts, small_memory):
    import_texts(TEXTS)
    summary = ingest_texts(root, llama, **CHAT, token_budget=200)
    assert (summary.new_count, summary.rows) == (len(TEXTS), len(TEXTS))
    assert len(activation_rows(root)) == len(TEXTS)
    message = last_run(root)["message"]
    assert message.startswith("out of memory: token budget halved to 100; out of memory")
    prefix = len(f"<system>{SYSTEM}<user>") + 1
    whole = sum(prefix + len(text) + len("<assistant>") for text in TEXTS)
    assert summary.tokens == whole - prefix * (len(TEXTS) - 1), "the prefix was shared"


def test_a_plan_is_made_with_the_batches_that_fit_and_one_too_large_alone_is_refused(
    root, llama, import_texts, small_memory, monkeypatch
):
    import_texts(TEXTS)
    plan = plan_activations(root, llama, for_texts(**CHAT, token_budget=200))
    assert plan.rows == len(TEXTS) and plan.seconds is not None

    def no_memory(*_: Any) -> Batch:
        raise torch.OutOfMemoryError("pretended")

    monkeypatch.setattr(Forward, "start", no_memory)
    with pytest.raises(ModelError, match=r"a prompt of \d+ tokens does not fit the memory of cpu"):
        ingest_texts(root, llama)


def test_completions_that_do_not_fit_are_run_in_smaller_batches(
    root: Path, llama: ModelSpec, import_texts: ImportTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for three completions at a time; then for none."""
    room, real = 3, LlamaForCausalLM.forward

    def forward(model: Any, input_ids: torch.Tensor, **options: Any) -> Any:
        if len(input_ids) > room:
            raise torch.OutOfMemoryError("pretended")
        return real(model, input_ids, **options)

    import_texts(TEXTS)
    monkeypatch.setattr(LlamaForCausalLM, "forward", forward)
    request = TraceRequest(prompt_set="texts", max_new_tokens=2)
    assert ingest_traces(root, llama, request).new_count == len(TEXTS)
    halved = "; ".join(f"out of memory: batch size halved to {size}" for size in (16, 8, 4, 2))
    assert last_run(root)["message"] == halved
    room = 0
    with pytest.raises(ModelError, match="a completion of 13 and 3 tokens does not fit the memory"):
        ingest_traces(root, llama, TraceRequest(prompt_set="texts", max_new_tokens=3))
