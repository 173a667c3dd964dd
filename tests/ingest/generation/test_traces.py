"""Traces are what a teacher-forced pass over prompt and completion gives, token for token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaForCausalLM

import axes.ingest.jobs
import axes.ingest.sinks
from axes.ingest.forward.recording import block_points, record
from axes.ingest.generation.token_statistics import token_statistics
from axes.ingest.generation.traces import ingest_traces
from axes.ingest.models.load import find_blocks
from axes.ingest.models.registry import ModelSpec, resolve
from axes.ingest.prompt_sources import PromptSource
from axes.ingest.prompts import import_prompts, prompt_id
from axes.ingest.requests import TraceRequest
from axes.warehouse.errors import LayerError, ModelError, NonFiniteError, PromptError
from axes.warehouse.writer import content_key
from tests.ingest.conftest import (
    ImportTexts,
    assert_checks_pass,
    last_run,
    loaded_on_cpu,
    overflow_in_half_precision,
    put_axis,
    read,
)
from tests.tiny_models import byte_tokenizer, save_tiny

Run = Callable[..., Any]

TEXTS = ["hello there, you", "hi", "what is a duck", "a", "tell me more of it"]
STEPS = 7


def every_completion(root: Path) -> list[dict[str, Any]]:
    """The completions with their prompts, and their token rows in order of layer and step."""
    found = read(
        root,
        "select generations.*, prompts.text as prompt from generations "
        "inner join prompts using (prompt_id)",
    )
    tokens = read(root, "from generation_tokens order by generation_id, layer, step")
    keys = {(row["generation_id"], row["layer"], row["step"]) for row in tokens}
    assert len(keys) == len(tokens), "two tokens share a key"
    by_id = {row["generation_id"]: {**row, "tokens": []} for row in found}
    for token in tokens:
        # A job that was stopped may leave tokens of no completion.
        if token["generation_id"] in by_id:
            by_id[token["generation_id"]]["tokens"].append(token)
    return list(by_id.values())


def completions(root: Path, model: str = "tiny-llama", seed: int = 0) -> dict[str, dict[str, Any]]:
    """Text of the prompt -> its completion."""
    found = [row for row in every_completion(root) if (row["model"], row["seed"]) == (model, seed)]
    assert len({row["prompt"] for row in found}) == len(found)
    return {row["prompt"]: row for row in found}


def teacher_forced(
    model: torch.nn.Module, prompt: list[int], completion: list[int], layers: list[int]
) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """Log-probability and entropy per completion token, and the block outputs at it."""
    got: dict[int, torch.Tensor] = {}
    points = block_points(find_blocks(model), layers)
    with (
        torch.inference_mode(),
        record(points, lambda point, hidden: got.update({point.layer: +hidden})),
    ):
        logits = model(torch.tensor([prompt + completion]), use_cache=False).logits[0].double()
    chances = logits[len(prompt) - 1 : -1].log_softmax(-1)
    logprobs = chances[range(len(completion)), completion]
    entropies = -(chances.exp() * chances).sum(-1)
    vectors = {layer: hidden[0, len(prompt) :].numpy() for layer, hidden in got.items()}
    return logprobs.numpy(), entropies.numpy(), vectors


def assert_teacher_forced(root: Path, spec: ModelSpec, layers: list[int], seed: int = 0) -> None:
    loaded = loaded_on_cpu(spec)
    found = completions(root, spec.name, seed)
    assert found
    for prompt, row in found.items():
        by_layer = [
            [token for token in row["tokens"] if token["layer"] == layer] for layer in layers
        ]
        ids = [token["token_id"] for token in by_layer[0]]
        expected = teacher_forced(loaded.model, loaded.tokenizer(prompt).input_ids, ids, layers)
        for layer, tokens in zip(layers, by_layer, strict=True):
            assert [token["step"] for token in tokens] == list(range(row["token_count"]))
            for name, values in (("logprob", expected[0]), ("entropy", expected[1])):
                given = [token[name] for token in tokens]
                np.testing.assert_allclose(given, values, atol=1e-4, rtol=1e-4)
            vectors = np.array([token["vector"] for token in tokens])
            np.testing.assert_allclose(vectors, expected[2][layer], atol=1e-4, rtol=1e-3)


@pytest.fixture
def run(root: Path, llama: ModelSpec, import_texts: ImportTexts) -> Run:
    """Run the job on five prompts in batches of two, unless told otherwise."""
    import_texts(TEXTS)

    def job(**options: Any) -> Any:
        defaults = {"layers": [1, 3], "batch_size": 2, "max_new_tokens": STEPS}
        return ingest_traces(
            root, llama, TraceRequest(prompt_set="texts", **{**defaults, **options})
        )

    return job


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One warehouse for models of many families; the set `even` has prompts of one length."""
    folder = tmp_path_factory.mktemp("shared")
    for name, texts in (("texts", TEXTS[:3]), ("even", ["abcd", "efgh"])):
        pl.DataFrame({"text": texts}).write_parquet(folder / f"{name}.parquet")
        import_prompts(folder / "lake", name, PromptSource(str(folder / f"{name}.parquet")))
    return folder / "lake"


# A state-space model carries padding into its state: its prompts are of one length.
@pytest.mark.parametrize(
    ("architecture", "prompt_set", "count"),
    [
        *((name, "texts", 3) for name in ("llama", "gpt_neox", "mistral", "qwen2")),
        *((name, "texts", 3) for name in ("gemma3_text", "gpt2", "bloom")),
        ("mamba", "even", 2),
    ],
)
def test_tokens_and_vectors_equal_a_teacher_forced_pass(
    shared_root: Path, tmp_path: Path, architecture: str, prompt_set: str, count: int
) -> None:
    spec = resolve(str(save_tiny(tmp_path / architecture, architecture)))
    summary = ingest_traces(
        shared_root, spec, TraceRequest(prompt_set=prompt_set, layers=[0, 3], max_new_tokens=4)
    )
    assert (summary.prompt_count, summary.new_count) == (count, count)
    assert_teacher_forced(shared_root, spec, [0, 3])


@pytest.mark.parametrize("template", ["raw", "chat"])
def test_greedy_text_is_what_generate_gives_without_the_checkpoints_sampling_defaults(
    run: Run, root: Path, llama: ModelSpec, llama_folder: Path, template: str
) -> None:
    defaults = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "min_new_tokens": 3}
    GenerationConfig(**defaults, eos_token_id=2).save_pretrained(llama_folder)
    run(template=template, max_new_tokens=20)
    loaded = loaded_on_cpu(llama)
    loaded.model.generation_config = GenerationConfig(eos_token_id=2)
    tokenizer = loaded.tokenizer
    for prompt, row in completions(root).items():
        rendered = prompt if template == "raw" else f"<user>{prompt}<assistant>"
        ids = tokenizer(rendered).input_ids
        with torch.inference_mode():
            out = loaded.model.generate(
                torch.tensor([ids]), max_new_tokens=20, do_sample=False, eos_token_id=2
            )[0, len(ids) :]
        assert row["text"] == tokenizer.decode(out, skip_special_tokens=True)
        assert row["token_count"] == len(out)


@pytest.mark.parametrize("is_requested", [False, True])
def test_a_row_that_stops_early_is_cut_at_its_end_token_and_stays_exact(
    run: Run, root: Path, llama: ModelSpec, llama_folder: Path, is_requested: bool
) -> None:
    """The end token is the checkpoint's, or one that the request names."""
    run(batch_size=5)
    ids = {
        prompt: [token["token_id"] for token in row["tokens"] if token["layer"] == 1]
        for prompt, row in completions(root).items()
    }
    # An end token that one row draws in the middle, so that the others go on without it.
    wanted = next(
        token
        for row in ids.values()
        for token in row[1:-2]
        if 0 < sum(token in other for other in ids.values()) < len(TEXTS)
    )
    named = []
    if is_requested:
        named.append(byte_tokenizer().convert_ids_to_tokens(wanted))
    else:
        GenerationConfig(eos_token_id=wanted).save_pretrained(llama_folder)
    run(batch_size=5, seed=1, end_tokens=named)
    found = completions(root, seed=1)
    assert {row["finish_reason"] for row in found.values()} == {"stop", "length"}
    for prompt, row in found.items():
        full = ids[prompt]
        expected = full[: full.index(wanted) + 1] if wanted in full else full
        assert [row["token_id"] for row in row["tokens"] if row["layer"] == 1] == expected
        assert row["token_count"] == len(expected)
        is_ended = wanted in full or full[-1] == 2
        assert row["finish_reason"] == ("stop" if is_ended else "length")
    assert_teacher_forced(root, llama, [1, 3], seed=1)


def test_sampled_log_probabilities_are_the_models_own_and_another_seed_draws_other_tokens(
    run: Run, root: Path, llama: ModelSpec
) -> None:
    for seed in (0, 1):
        run(temperature=0.3, top_p=0.5, seed=seed)
    assert_teacher_forced(root, llama, [1, 3])
    texts = [[row["text"] for row in completions(root, seed=seed).values()] for seed in (0, 1)]
    assert texts[0] != texts[1]


class Stop(BaseException):
    """Ends a job as a kill would, with no clean-up of its own."""


def stop_after(monkeypatch: pytest.MonkeyPatch, table: str, count: int) -> None:
    """Let a job stop when it has written so many files of a table."""
    write, done = axes.ingest.sinks.write_rows, []

    def write_rows(root: Path, written: str, *args: Any, **options: Any) -> Path:
        path = write(root, written, *args, **options)
        done.append(written)
        if done.count(table) == count:
            raise Stop
        return path

    monkeypatch.setattr(axes.ingest.sinks, "write_rows", write_rows)


def forget(root: Path) -> None:
    """Remove the completions and their tokens."""
    for name in ("generations", "generation_tokens"):
        for path in (root / name).glob("model=tiny-llama/*"):
            path.unlink()


@pytest.mark.parametrize(
    ("temperature", "table"), [(0.0, "generation_tokens"), (1.0, "generations")]
)
def test_a_job_stopped_between_files_and_resumed_in_other_batches_equals_an_uninterrupted_one(
    run: Run, root: Path, monkeypatch: pytest.MonkeyPatch, temperature: float, table: str
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, table, 2)
        with pytest.raises(Stop):
            run(temperature=temperature)
    assert 0 < len(completions(root)) < len(TEXTS)
    summary = run(temperature=temperature, batch_size=3)
    assert 0 < summary.new_count < len(TEXTS)
    assert_checks_pass(root)
    resumed = completions(root)
    forget(root)
    run(temperature=temperature)
    whole = completions(root)
    assert resumed.keys() == whole.keys() == set(TEXTS)
    for prompt, row in resumed.items():
        assert row["text"] == whole[prompt]["text"]
        for token, other in zip(row["tokens"], whole[prompt]["tokens"], strict=True):
            assert (token["layer"], token["step"]) == (other["layer"], other["step"])
            np.testing.assert_allclose(token["vector"], other["vector"], atol=1e-5)
            assert token["logprob"] == pytest.approx(other["logprob"], abs=1e-5)


def test_a_second_job_generates_nothing_and_loads_no_weights(run, root, llama, monkeypatch):
    # Layers given twice or out of order are the same layers.
    first = run(layers=[3, 1, 3])
    assert (first.new_count, first.rows) == (len(TEXTS), first.tokens * 2)
    assert_teacher_forced(root, llama, [1, 3])
    # The keys are those that such completions have had from the first.
    sampling = {"max_new_tokens": STEPS, "temperature": 0.0, "top_p": 1.0, "seed": 0}
    parts = (first.model_id, "raw", [1, 3], sampling)
    expected = {content_key(*parts, prompt_id(text)) for text in TEXTS}
    assert {row["generation_id"] for row in completions(root).values()} == expected
    monkeypatch.setattr(axes.ingest.jobs, "load", lambda *_: pytest.fail("weights loaded"))
    second = run()
    assert (second.new_count, second.rows, second.tokens) == (0, 0, 0)
    row = last_run(root)
    assert (row["command"], row["status"], row["tokens"]) == ("ingest traces", "finished", 0)
    assert_checks_pass(root)


@pytest.mark.parametrize(
    ("layers", "place", "temperature"),
    [([1, 2], "at layer 2", 0.0), ([1], "above layer 1", 1.0)],
)
def test_what_overflows_float16_is_found_before_anything_is_stored(
    run: Run, root: Path, llama_folder: Path, layers: list[int], place: str, temperature: float
) -> None:
    overflow_in_half_precision(llama_folder)
    # The longest prompts are run first.
    first = prompt_id(max(TEXTS, key=len))
    with pytest.raises(NonFiniteError) as caught:
        run(layers=layers, temperature=temperature, dtype="float16")
    assert str(caught.value) == (
        f"tiny-llama gives NaN or infinity {place} for prompt {first} in float16: "
        "try --dtype float32 or bfloat16"
    )
    assert completions(root) == {}
    run(layers=layers, temperature=temperature, dtype="float32")
    assert completions(root).keys() == set(TEXTS)


def test_an_overflow_of_a_token_that_nothing_follows_is_found_too(run, root, llama_folder):
    """Only the vector of the last token shows it: no logits are computed from there."""
    run(max_new_tokens=1)
    last = {row["tokens"][0]["token_id"] for row in completions(root).values()}
    path = llama_folder / "model.safetensors"
    weights = load_file(path)
    inside = {id_ for text in TEXTS for id_ in byte_tokenizer()(text).input_ids}
    assert last - inside, "a token that is drawn and not in the prompts"
    weights["model.embed_tokens.weight"][sorted(last - inside)] = float("inf")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match="at layer 1 for prompt"):
        run(max_new_tokens=1)


def test_tokens_that_the_model_rules_out_do_not_spoil_the_entropy(run, root, monkeypatch):
    real = LlamaForCausalLM.forward

    def without_a_token(*args: Any, **options: Any) -> Any:
        output = real(*args, **options)
        output.logits[..., 7] = float("-inf")
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", without_a_token)
    run(max_new_tokens=2)
    entropies = [token["entropy"] for row in completions(root).values() for token in row["tokens"]]
    assert np.isfinite(entropies).all() and min(entropies) > 0


def test_the_entropy_over_a_large_vocabulary_is_that_of_float64() -> None:
    logits = 5 * torch.randn(16, 49_152, generator=torch.Generator().manual_seed(0))
    exact = torch.distributions.Categorical(logits=logits.double()).entropy()
    found = token_statistics(logits, logits.argmax(-1))["entropy"]
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


def test_what_cannot_be_run_is_named_or_skipped(run, root, import_texts):
    import_texts([*TEXTS, "x" * 505])
    with pytest.raises(PromptError, match="506 tokens and 7 new ones, the context is 512"):
        run()
    assert run(skip_unusable=True).skipped_count == 1
    assert last_run(root)["skipped"][0]["reason"].startswith("506 tokens")
    assert completions(root).keys() == set(TEXTS)
    with pytest.raises(LayerError, match="layer 4 of tiny-llama does not exist"):
        run(layers=[4])
    with pytest.raises(ModelError, match="2 greedy completions would be one: add --temperature"):
        run(samples=2)
    with pytest.raises(ModelError, match="'nonsense' is not a token of tiny-llama"):
        run(end_tokens=["nonsense"], limit=1)


def test_a_sampled_row_does_not_depend_on_its_batch(run: Run, root: Path, llama: ModelSpec) -> None:
    options = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 12, "samples": 3}
    assert run(batch_size=15, **options).new_count == 3 * len(TEXTS)
    keyed = "select prompt_id, sample, text from generations order by all"
    together = read(root, keyed)
    forget(root)
    run(batch_size=1, **options)
    assert read(root, keyed) == together
    assert len({row["text"] for row in together}) == 3 * len(TEXTS)
    assert run(batch_size=4, **options).new_count == 0
    assert run(batch_size=4, **{**options, "samples": 4}).new_count == len(TEXTS)


def test_a_stop_string_ends_a_completion_with_the_token_that_completes_it(run, root, llama):
    options = {"temperature": 1.0, "max_new_tokens": 30, "batch_size": 5}
    run(**options)
    whole = {prompt: row["text"] for prompt, row in completions(root).items()}
    # Two characters, so that more than one token makes the string.
    pairs = [text[at : at + 2] for text in whole.values() for at in range(2, len(text) - 2)]
    stop = next(pair for pair in pairs if pair.isascii() and pair.isprintable())
    run(stop_strings=[stop], **options)
    found = [row for row in every_completion(root) if row["stop_strings"] is not None]
    assert len(found) == len(TEXTS)
    for row in found:
        assert len(row["tokens"]) == 2 * row["token_count"]
        assert (row["finish_reason"] == "stop_string") == (stop in row["text"])
        assert row["stop_strings"] == [stop]
        if stop in row["text"]:
            assert row["text"].endswith(stop) and row["text"].count(stop) == 1
    assert any(row["finish_reason"] == "stop_string" for row in found)
    assert_checks_pass(root)


def test_projections_alone_are_those_of_the_vectors_and_no_vector_is_kept(run, root, llama):
    axes = {name: put_axis(root, llama, name, layer) for name, layer in (("low", 1), ("high", 3))}
    run()
    vectors = {prompt: row["tokens"] for prompt, row in completions(root).items()}
    run(layers=None, axes=["low", "id-high"], seed=1)
    found = completions(root, seed=1)
    assert found.keys() == vectors.keys()
    projected = read(root, "from token_projections order by generation_id, layer, step")
    assert len(projected) == sum(len(row["tokens"]) for row in found.values())
    for prompt, row in found.items():
        assert all(token["vector"] is None for token in row["tokens"])
        given = [item for item in projected if item["generation_id"] == row["generation_id"]]
        for item, token in zip(given, vectors[prompt], strict=True):
            assert (item["step"], item["layer"]) == (token["step"], token["layer"])
            expected = np.array(token["vector"]) @ axes["low" if item["layer"] == 1 else "high"]
            assert item["projection"] == pytest.approx(expected, abs=1e-5)
    marted = read(root, "from v_generation_projections where token is not null")
    assert len(marted) == len(projected)
    assert_checks_pass(root)


def test_prompt_tokens_come_before_step_0_and_are_exact(run, root, llama):
    put_axis(root, llama, "low", 1)
    for options in ({"layers": [1]}, {"layers": None, "axes": ["low"]}):
        run(prompt_tokens=True, temperature=1.0, samples=2, top_tokens=3, **options)
    tokenizer = byte_tokenizer()
    loaded = loaded_on_cpu(llama)
    found = every_completion(root)
    assert len(found) == 4 * len(TEXTS)
    for row in found:
        tokens = row["tokens"]
        ids = tokenizer(row["prompt"]).input_ids
        assert row["prompt_token_count"] == len(ids)
        assert [token["step"] for token in tokens] == list(range(-len(ids), row["token_count"]))
        assert [token["token_id"] for token in tokens][: len(ids)] == ids
        assert tokens[0]["logprob"] is None and tokens[0]["top_tokens"] is None
        whole = [token["token_id"] for token in tokens]
        logprobs, entropies, vectors = teacher_forced(loaded.model, whole[:1], whole[1:], [1])
        for name, values in (("logprob", logprobs), ("entropy", entropies)):
            np.testing.assert_allclose([token[name] for token in tokens[1:]], values, atol=1e-4)
        if tokens[0]["vector"] is not None:
            given = np.array([token["vector"] for token in tokens[1:]])
            np.testing.assert_allclose(given, vectors[1], atol=1e-4, rtol=1e-3)
        for token in tokens[1:]:
            likeliest = token["top_tokens"]
            assert [item["logprob"] for item in likeliest] == sorted(
                (item["logprob"] for item in likeliest), reverse=True
            )
            assert len(likeliest) == 3
            if token["token_id"] == likeliest[0]["token_id"]:
                assert token["logprob"] == pytest.approx(likeliest[0]["logprob"], abs=1e-5)
    assert_checks_pass(root)
