"""Given completions are stored as if the model had written them, token for token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import axes.ingest.generation.completions
import axes.ingest.sinks
from axes.ingest.generation.completions import ingest_completions
from axes.ingest.generation.teacher_forcing import Text
from axes.ingest.generation.traces import ingest_traces
from axes.ingest.jobs import IngestSummary
from axes.ingest.models.registry import ModelSpec, resolve
from axes.ingest.requests import CompletionRequest, TraceRequest
from axes.warehouse.errors import PromptError
from tests.ingest.conftest import ImportTexts, assert_checks_pass, last_run, read
from tests.tiny_models import byte_tokenizer, save_tiny

TEXTS = ["hello there, you", "hi", "what is a duck", "a", "tell me more of it"]


@pytest.fixture(autouse=True)
def prompts(import_texts: ImportTexts) -> None:
    import_texts(TEXTS)


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    frame = pl.DataFrame(found)
    {".parquet": frame.write_parquet, ".csv": frame.write_csv, ".jsonl": frame.write_ndjson}[
        path.suffix
    ](path)
    return path


def ingest(root: Path, spec: ModelSpec, file: Path, **options: Any) -> IngestSummary:
    return ingest_completions(
        root, spec, CompletionRequest(completions=file, **{"layers": [1, 3], **options})
    )


def tokens(root: Path, where: str) -> list[dict[str, Any]]:
    return read(
        root,
        "select prompt_id, layer, step, token_id, logprob, entropy, vector "
        "from generation_tokens inner join generations using (model, generation_id) "
        f"where {where} order by prompt_id, layer, step",
    )


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected) > 0
    for row, other in zip(found, expected, strict=True):
        assert [row[name] for name in ("prompt_id", "layer", "step", "token_id")] == [
            other[name] for name in ("prompt_id", "layer", "step", "token_id")
        ]
        for name in ("logprob", "entropy", "vector"):
            np.testing.assert_allclose(
                np.array(row[name], dtype=float), np.array(other[name], dtype=float), atol=1e-4
            )


@pytest.mark.parametrize("prompt_tokens", [False, True])
def test_the_models_own_completions_score_as_they_were_generated(
    root: Path, llama: ModelSpec, tmp_path: Path, prompt_tokens: bool
) -> None:
    options: dict[str, Any] = {"layers": [1, 3], "prompt_tokens": prompt_tokens}
    ingest_traces(
        root, llama, TraceRequest(prompt_set="texts", max_new_tokens=7, temperature=1.0, **options)
    )
    own = tokens(root, "source is null")
    given = read(
        root,
        "select prompt_id, list(token_id order by step) as token_ids from generation_tokens "
        "inner join generations using (generation_id) where layer = 1 and step >= 0 "
        "group by prompt_id",
    )
    file = write(tmp_path / "own.parquet", given)
    assert ingest(root, llama, file, **options).new_count == len(TEXTS)
    assert_same(tokens(root, "source = 'own.parquet'"), own)


@pytest.mark.parametrize("architecture", ["gemma3_text", "gpt2", "bloom", "gpt_neox", "mamba"])
def test_families_read_texts_of_several_lengths_as_they_generate_them(
    root: Path, tmp_path: Path, import_texts: ImportTexts, architecture: str
) -> None:
    # Of one length: a state-space model would carry padding on the left into its state.
    import_texts(["abcd", "efgh"], "even")
    spec = resolve(str(save_tiny(tmp_path / "model", architecture)))
    ingest_traces(root, spec, TraceRequest(prompt_set="even", layers=[0, 3], max_new_tokens=6))
    own = tokens(root, "source is null")
    kept = dict(zip(sorted({row["prompt_id"] for row in own}), (3, 6), strict=True))
    expected = [row for row in own if row["step"] < kept[row["prompt_id"]]]
    given = pl.DataFrame([row for row in expected if row["layer"] == 0])
    given = given.group_by("prompt_id", maintain_order=True).agg(token_ids="token_id")
    file = write(tmp_path / "cut.parquet", given.to_dicts())
    ingest(root, spec, file, layers=[0, 3])
    assert_same(tokens(root, "source is not null"), expected)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_text_is_tokenised_alone_behind_the_prompt(root, llama, tmp_path, suffix):
    pairs = [
        {"prompt": text, "completion": f" no, {text}", "model": f"service-{index % 2}"}
        for index, text in enumerate(TEXTS)
    ]
    file = write(tmp_path / f"answers.{suffix}", pairs)
    summary = ingest(root, llama, file, template="chat", token_budget=30)
    assert (summary.prompt_count, summary.new_count) == (5, 5)
    found = read(
        root,
        "select generations.*, prompts.text as prompt from generations "
        "inner join prompts using (prompt_id)",
    )
    assert {row["source"] for row in found} == {"service-0", "service-1"}
    tokenizer = byte_tokenizer()
    listed = read(
        root,
        "select generation_id, list(token_id order by step) as ids from generation_tokens "
        "where layer = 1 group by generation_id",
    )
    ids_of = {row["generation_id"]: row["ids"] for row in listed}
    for row in found:
        text = f" no, {row['prompt']}"
        assert row["text"] == text and row["finish_reason"] == "given"
        assert row["temperature"] is None and row["sample"] is None
        rendered = tokenizer(f"<user>{row['prompt']}<assistant>").input_ids
        assert row["prompt_token_count"] == len(rendered)
        ids = ids_of[row["generation_id"]]
        assert ids == tokenizer(text, add_special_tokens=False).input_ids
    again = ingest(root, llama, file, template="chat")
    assert (again.new_count, again.rows) == (0, 0)
    assert_checks_pass(root)


def test_a_job_stopped_between_files_ends_with_the_same_rows(root, llama, tmp_path, monkeypatch):
    pairs = [{"prompt": text, "completion": "so it is"} for text in TEXTS]
    file = write(tmp_path / "answers.jsonl", pairs)
    real, done = axes.ingest.sinks.write_rows, []

    def stop(root: Path, table: str, *arguments: Any, **options: Any) -> Path:
        path = real(root, table, *arguments, **options)
        done.append(table)
        if done.count("generation_tokens") == 2:
            raise KeyboardInterrupt
        return path

    with monkeypatch.context() as patch:
        patch.setattr(axes.ingest.sinks, "write_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest(root, llama, file, token_budget=30)
    assert ingest(root, llama, file, token_budget=60).new_count == 4
    resumed = tokens(root, "true")
    for name in ("generations", "generation_tokens"):
        for path in (root / name).glob("model=tiny-llama/*"):
            path.unlink()
    ingest(root, llama, file)
    assert_same(resumed, tokens(root, "true"))


def test_a_batch_that_does_not_fit_is_halved(root, llama, tmp_path, monkeypatch):
    file = write(tmp_path / "a.jsonl", [{"prompt": text, "completion": "yes"} for text in TEXTS])
    real = axes.ingest.generation.completions.score

    def small(loaded: Any, texts: list[Text], *arguments: Any, **options: Any) -> Any:
        if len(texts) > 2:
            raise torch.OutOfMemoryError("pretended")
        return real(loaded, texts, *arguments, **options)

    monkeypatch.setattr(axes.ingest.generation.completions, "score", small)
    assert ingest(root, llama, file).new_count == len(TEXTS)
    assert last_run(root)["message"].startswith("out of memory: token budget halved to")


def test_what_cannot_be_read_is_said_in_one_line(root, llama, tmp_path):
    for pair, message in (
        ({"prompt": "unheard of", "completion": "x"}, "in no set.*axes prompts import NAME"),
        ({"prompt": "hi", "answer": "x"}, "needs a column prompt or prompt_id, and completion"),
        ({"prompt": "hi", "completion": ""}, "the completion has no tokens"),
        ({"prompt": "hi", "completion": "x" * 600}, "603 tokens with its completion, the context"),
    ):
        with pytest.raises(PromptError, match=message):
            ingest(root, llama, write(tmp_path / "bad.jsonl", [pair]))
