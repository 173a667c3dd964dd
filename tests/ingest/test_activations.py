"""The job stores what a direct pass gives, once per key, and does no work that is done."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import axes.ingest.jobs
from axes.ingest.activations import IngestSummary, ingest_activations, plan_activations
from axes.ingest.forward.forward import Forward, StartedBatch
from axes.ingest.forward.pooling import POOLINGS
from axes.ingest.forward.templates import Rendered
from axes.ingest.models.identity import identify
from axes.ingest.models.load import load
from axes.ingest.models.registry import ModelSpec, resolve
from axes.ingest.requests import ActivationRequest
from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import LayerError, ModelError, NonFiniteError, PromptError
from axes.warehouse.writer import data_file
from tests.ingest.conftest import (
    ImportTexts,
    activation_rows,
    assert_checks_pass,
    for_texts,
    forked,
    ingest_texts,
    last_run,
    overflow_in_half_precision,
)
from tests.tiny_models import save_tiny

TEXTS = ["hello there, you", "hi", "a rather longer prompt than the others are", "x", "what is it"]


@pytest.fixture
def run(root: Path, llama: ModelSpec, import_texts: ImportTexts) -> Callable[..., IngestSummary]:
    """Run the job on five prompts, in several batches."""
    import_texts(TEXTS)

    def job(
        limit: int | None = None,
        layers: Sequence[int] | None = None,
        pooling: str = "last5_mean",
        template: str = "raw",
        **options: Any,
    ) -> IngestSummary:
        selection = {
            "layers": None if layers is None else tuple(layers),
            "poolings": (pooling,),
            "template": template,
        }
        options = {"token_budget": 40, **options}
        return ingest_activations(
            root, llama, ActivationRequest(prompt_sets={"texts": limit}, **selection, **options)
        )

    return job


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading weights is an error."""
    monkeypatch.setattr(axes.ingest.jobs, "load", lambda *_: pytest.fail("weights loaded"))


@pytest.mark.parametrize("template", ["raw", "chat"])
@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_rows_equal_a_direct_pass_over_each_prompt(
    run: Callable[..., IngestSummary],
    root: Path,
    llama: ModelSpec,
    llama_folder: Path,
    pooling: str,
    template: str,
) -> None:
    if (pooling, template) == ("post_template_mean", "raw"):
        with pytest.raises(PromptError, match="raw: it has no position for post_template_mean"):
            run(pooling=pooling, template=template)
        return
    summary = run(pooling=pooling, template=template)
    assert (summary.prompt_count, summary.new_count, summary.rows) == (5, 5, 20)
    loaded = load(llama, llama_folder, identify(llama, llama_folder, "float32"), "cpu")
    stored = activation_rows(root)
    assert len(stored) == 20
    # One token a byte, and BOS before: "<user>" is six tokens, "<assistant>" eleven.
    lead, tail = (1, 0) if template == "raw" else (7, 11)
    for text in TEXTS:
        rendered = text if template == "raw" else f"<user>{text}<assistant>"
        end = lead + len(text)
        positions = {
            "last5_mean": slice(-5, None),
            "last": slice(-1, None),
            "mean": slice(None),
            "max": slice(None),
            "instruction_last": slice(end - 1, end),
            "post_template_mean": slice(end, end + tail),
        }[pooling]
        with torch.no_grad():
            output = loaded.model(
                torch.tensor([loaded.tokenizer(rendered).input_ids]), output_hidden_states=True
            )
            states = output.hidden_states
        for layer in range(4):
            vector = stored[summary.model_id, text, layer, pooling, template]
            # The list's last entry is normed, so the last block is judged by what comes before.
            if layer < 3:
                hidden = states[layer + 1][0]
            else:
                last = loaded.blocks[3](
                    states[3],
                    position_embeddings=loaded.model.base_model.rotary_emb(
                        states[3], torch.arange(states[3].shape[1])[None]
                    ),
                )
                hidden = last[0]
            read = hidden[positions]
            expected = read.amax(0) if pooling == "max" else read.mean(0)
            np.testing.assert_allclose(vector, expected.numpy(), atol=1e-4, rtol=1e-4)


def test_a_row_says_what_it_was_pooled_over(run: Callable[..., IngestSummary], root: Path) -> None:
    summary = run()
    found = rows(connect(root), "from activations inner join prompts using (prompt_id)")
    for row in found:
        text = ["<s>", *row["text"].replace(" ", "Ġ")]
        assert row["token_count"] == len(text)
        assert (row["pooled_start"], row["pooled_end"]) == (max(len(text) - 5, 0), len(text))
        assert row["pooled_tokens"] == text[-5:]
        assert row["norm"] == pytest.approx(np.linalg.norm(row["vector"]), rel=1e-5)
    run_row = last_run(root)
    tokens = sum(len(text) + 1 for text in TEXTS)
    assert (run_row["status"], run_row["rows"], run_row["tokens"]) == ("finished", 20, tokens)
    assert summary.tokens == tokens
    assert {row["run_id"] for row in found} == {summary.run_id}
    assert_checks_pass(root)


def test_a_second_run_does_no_model_work_and_says_so(
    run: Callable[..., IngestSummary], root: Path, request: pytest.FixtureRequest
) -> None:
    first = run()
    files = sorted((root / "activations").rglob("*.parquet"))
    request.getfixturevalue("no_model")
    second = run()
    assert second.model_id == first.model_id
    assert (second.prompt_count, second.new_count, second.rows, second.tokens) == (5, 0, 0, 0)
    row = last_run(root)
    assert (row["run_id"], row["status"], row["tokens"]) == (second.run_id, "finished", 0)
    assert sorted((root / "activations").rglob("*.parquet")) == files


def test_layers_and_prompts_added_later_fill_only_what_is_missing(
    run: Callable[..., IngestSummary], root: Path
) -> None:
    assert run(layers=[2, 0, 2]).rows == 10
    before = activation_rows(root)
    assert {key[2] for key in before} == {0, 2}
    assert run(limit=2, layers=[1]).rows == 2
    summary = run()
    assert (summary.new_count, summary.rows) == (5, 20 - 12)
    after = activation_rows(root)
    assert len(after) == 20
    assert all(np.array_equal(after[key], vector) for key, vector in before.items())
    assert_checks_pass(root)


@pytest.mark.parametrize(
    "change", [{"dtype": "bfloat16"}, {"template": "chat"}, {"pooling": "last"}]
)
def test_another_dtype_template_or_pooling_gives_new_rows_beside_the_old(
    run: Callable[..., IngestSummary], root: Path, change: dict[str, str]
) -> None:
    run()
    before = activation_rows(root)
    assert run(**change).rows == 20
    after = activation_rows(root)
    assert len(after) == 40
    assert all(np.array_equal(after[key], vector) for key, vector in before.items())
    others = [vector for key, vector in after.items() if key not in before]
    assert not any(np.array_equal(a, b) for a, b in zip(before.values(), others, strict=True))


def test_changed_weights_under_the_same_name_give_new_rows(
    run: Callable[..., IngestSummary], root: Path, llama_folder: Path
) -> None:
    first = run()
    path = llama_folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.0.mlp.down_proj.weight"] *= 2
    save_file(weights, path, metadata={"format": "pt"})
    second = run()
    assert second.model_id != first.model_id
    assert {key[0] for key in activation_rows(root)} == {first.model_id, second.model_id}
    assert len(activation_rows(root)) == 40


@pytest.mark.parametrize("too_long", [512, 600])
def test_a_prompt_too_long_is_named_or_skipped_and_recorded(
    run: Callable[..., IngestSummary], root: Path, import_texts: ImportTexts, too_long: int
) -> None:
    import_texts(["y" * 511, "z" * too_long, "short"])
    with pytest.raises(PromptError) as caught:
        run()
    reason = f"{too_long + 1} tokens, the context is 512"
    assert reason in str(caught.value) and "'zzz" in str(caught.value)
    assert last_run(root)["status"] == "failed"
    summary = run(skip_unusable=True)
    assert (summary.prompt_count, summary.new_count, summary.skipped_count) == (3, 2, 1)
    assert [item["reason"] for item in last_run(root)["skipped"]] == [reason]
    assert {len(key[1]) for key in activation_rows(root)} == {511, 5}


def test_when_every_prompt_is_skipped_no_model_is_loaded(
    run: Callable[..., IngestSummary], import_texts: ImportTexts, no_model: None
) -> None:
    import_texts(["y" * 600])
    assert run(skip_unusable=True).rows == 0


def test_weights_that_give_nan_are_an_error_naming_prompt_and_layer(
    run: Callable[..., IngestSummary], root: Path, llama_folder: Path
) -> None:
    path = llama_folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.2.mlp.down_proj.weight"][3, 3] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    longest = rows(connect(root), "from prompts order by length(text) desc")[0]
    with pytest.raises(NonFiniteError) as caught:
        run()
    assert f"at layer 2 for prompt {longest['prompt_id']} in float32" in str(caught.value)
    assert activation_rows(root) == {}
    assert last_run(root)["status"] == "failed"
    assert run(layers=[0, 1]).rows == 10, "the layers below are sound"


@pytest.mark.parametrize(
    "selection",
    [{}, {"layers": (0, 1), "token_layers": (2,)}],
    ids=["pooled", "kept tokens"],
)
def test_what_overflows_float16_is_found_before_anything_is_stored(
    root: Path,
    llama: ModelSpec,
    llama_folder: Path,
    import_texts: ImportTexts,
    selection: dict[str, Any],
) -> None:
    import_texts(TEXTS)
    overflow_in_half_precision(llama_folder)
    longest = rows(connect(root), "from prompts order by length(text) desc")[0]["prompt_id"]
    with pytest.raises(NonFiniteError) as caught:
        ingest_texts(root, llama, **selection, dtype="float16")
    assert str(caught.value) == (
        f"tiny-llama gives NaN or infinity at layer 2 for prompt {longest} in float16: "
        "try --dtype float32 or bfloat16"
    )
    for table in ("activations", "prompt_tokens"):
        assert rows(connect(root), f"select count(*) as n from {table}") == [{"n": 0}]
    for dtype in ("float32", "bfloat16"):
        ingest_texts(root, llama, **selection, dtype=dtype)
    found = rows(connect(root), "select max(norm) as n from activations")[0]["n"]
    kept = rows(connect(root), "select max(list_max(vector)) as n from prompt_tokens")[0]["n"]
    assert max(found, kept or 0) > 65504, "what float16 cannot hold is held"
    assert_checks_pass(root)


def test_an_overflow_is_not_taken_for_a_block_without_an_mlp(
    run: Callable[..., IngestSummary], root: Path, llama: ModelSpec, llama_folder: Path
) -> None:
    overflow_in_half_precision(llama_folder)
    with pytest.raises(NonFiniteError, match="infinity at layer 2 in float16: try --dtype"):
        ingest_texts(root, llama, sites=("mlp_out",), dtype="float16")
    assert activation_rows(root) == {}


def test_a_limit_holds_for_each_set_and_a_shared_prompt_is_run_once(
    run: Callable[..., IngestSummary], root: Path, llama: ModelSpec, import_texts: ImportTexts
) -> None:
    import_texts(["hi", "other", "third"], name="more")
    summary = ingest_activations(
        root, llama, ActivationRequest(prompt_sets={"texts": 2, "more": 2}, layers=(0,))
    )
    assert (summary.prompt_count, summary.rows) == (3, 3)
    assert {key[1] for key in activation_rows(root)} == {TEXTS[0], "hi", "other"}


def test_a_layer_that_is_not_there_is_refused_before_any_work(
    run: Callable[..., IngestSummary], root: Path, no_model: None
) -> None:
    with pytest.raises(LayerError, match="layer 4 of tiny-llama does not exist: it has 4"):
        run(layers=[0, 4])
    assert activation_rows(root) == {}


def test_an_interrupted_run_keeps_what_it_has_done(
    run: Callable[..., IngestSummary], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Forward.start, []

    def interrupted(*args: Any) -> StartedBatch:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Forward, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(token_budget=1)
    kept = activation_rows(root)
    assert {key[1] for key in kept} == set(sorted(TEXTS, key=len)[-2:])
    row = last_run(root)
    assert (row["status"], row["rows"], row["skipped"]) == ("interrupted", 8, [])
    assert run().new_count == 3
    assert len(activation_rows(root)) == 20
    assert_checks_pass(root)


def test_a_batch_that_does_not_fit_the_memory_is_halved_and_the_run_says_so(
    run: Callable[..., IngestSummary], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Forward.start

    def small_memory(self: Forward, names: list[str], rendered: list[Rendered]) -> StartedBatch:
        if len(names) * max(len(prompt.token_ids) for prompt in rendered) > 60:
            raise torch.OutOfMemoryError("pretended")
        return real(self, names, rendered)

    monkeypatch.setattr(Forward, "start", small_memory)
    assert run(token_budget=200).new_count == len(TEXTS)
    assert len(activation_rows(root)) == 4 * len(TEXTS)
    assert "out of memory: token budget halved to 100" in last_run(root)["message"]


def test_a_prompt_that_does_not_fit_alone_is_one_line(
    run: Callable[..., IngestSummary], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> StartedBatch:
        raise torch.OutOfMemoryError("pretended")

    monkeypatch.setattr(Forward, "start", no_memory)
    with pytest.raises(ModelError, match=r"a prompt of \d+ tokens does not fit the memory of cpu"):
        run(token_budget=200)


def test_one_batch_or_many_give_the_same_rows(
    run: Callable[..., IngestSummary], root: Path, llama: ModelSpec
) -> None:
    run(token_budget=1)
    many = activation_rows(root)
    shutil.rmtree(data_file(root, "activations", "any", llama.name).parent)
    run(token_budget=10_000)
    one = activation_rows(root)
    assert one.keys() == many.keys()
    for key, vector in one.items():
        np.testing.assert_allclose(vector, many[key], atol=1e-5)


def test_two_processes_at_once_both_succeed_and_store_each_row_once(
    run: Callable[..., IngestSummary], root: Path, llama: ModelSpec, import_texts: ImportTexts
) -> None:
    import_texts([f"prompt number {index}" for index in range(60)], name="many")
    request = ActivationRequest(prompt_sets={"many": None}, token_budget=40)
    jobs = [forked(ingest_activations, root, llama, request) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert len(activation_rows(root)) == 240
    finished = rows(connect(root), "from runs where command = 'ingest activations' order by rows")
    assert [(row["status"], row["rows"]) for row in finished] == [
        ("finished", 0),
        ("finished", 240),
    ]
    assert_checks_pass(root)


def test_two_models_of_one_name_are_two_models(
    run: Callable[..., IngestSummary], root: Path, llama: ModelSpec
) -> None:
    run(layers=[0])
    other = replace(llama, name="other")
    assert ingest_texts(root, other, layers=(0,)).rows == 5
    found = rows(
        connect(root), "select model, count(*) as n from activations group by 1 order by 1"
    )
    assert found == [{"model": "other", "n": 5}, {"model": "tiny-llama", "n": 5}]


def keyed_vectors(root: Path, table: str, *columns: str) -> dict[tuple, np.ndarray]:
    named = ", ".join(columns)
    found = rows(connect(root), f"select {named}, vector from {table}")
    keyed = {tuple(row[name] for name in columns): np.array(row["vector"]) for row in found}
    assert len(keyed) == len(found), "two rows share a key"
    return keyed


def test_sites_poolings_and_tokens_of_one_pass_equal_a_pass_for_each(
    root: Path, llama: ModelSpec, import_texts: ImportTexts
) -> None:
    import_texts(TEXTS)
    sites, poolings = ("resid_post", "mlp_out", "resid_pre"), ("last", "max", "instruction_last")
    chosen = tuple(poolings)
    together = {"layers": (0, 2), "sites": sites, "poolings": chosen, "token_layers": (2,)}
    summary = ingest_texts(root, llama, **together, token_budget=40)
    pooled_count, token_count = 5 * 2 * 3 * 3, sum(len(text) + 1 for text in TEXTS) * 3
    assert summary.rows == pooled_count + token_count
    key = ("prompt_id", "layer", "site", "pooling")
    stored = keyed_vectors(root, "activations", *key)
    tokens = keyed_vectors(root, "prompt_tokens", "prompt_id", "layer", "site", "position")
    assert (len(stored), len(tokens)) == (pooled_count, token_count)
    assert_checks_pass(root)

    shutil.rmtree(data_file(root, "activations", "any", llama.name).parent)
    for site in sites:
        for pooling in chosen:
            selection = {"layers": (0, 2), "sites": (site,), "poolings": (pooling,)}
            ingest_texts(root, llama, **selection, token_budget=40)
    alone = keyed_vectors(root, "activations", *key)
    assert alone.keys() == stored.keys()
    for name, vector in alone.items():
        np.testing.assert_allclose(stored[name], vector, atol=1e-5)
    # Every token's row is what the pooling of the last token says of it.
    lengths = {prompt_id: position for prompt_id, _, _, position in sorted(tokens)}
    for prompt_id, layer, site, pooling in stored:
        if layer == 2 and pooling == "last":
            last = tokens[prompt_id, 2, site, lengths[prompt_id]]
            np.testing.assert_allclose(stored[prompt_id, 2, site, "last"], last, atol=1e-6)


def test_kept_tokens_are_those_of_the_prompt_in_order(
    root: Path, llama: ModelSpec, import_texts: ImportTexts
) -> None:
    import_texts(TEXTS)
    ingest_texts(root, llama, layers=(0,), token_layers=(1,))
    found = rows(
        connect(root),
        "select text, list(token order by tokens.position) as tokens, "
        "list(tokens.position order by tokens.position) as positions "
        "from prompt_tokens as tokens inner join prompts using (prompt_id) group by text",
    )
    assert len(found) == len(TEXTS)
    for row in found:
        assert row["tokens"] == ["<s>", *row["text"].replace(" ", "Ġ")]
        assert row["positions"] == list(range(len(row["text"]) + 1))
    again = ingest_texts(root, llama, layers=(0,), token_layers=(1, 3))
    assert again.rows == sum(len(text) + 1 for text in TEXTS), "layer 3 alone is new"
    assert_checks_pass(root)


def test_a_shared_prefix_gives_the_same_rows_from_fewer_tokens(
    root: Path, llama: ModelSpec, import_texts: ImportTexts
) -> None:
    import_texts(TEXTS)
    system = "You are a careful assistant who answers in one line."
    # `mean` and the kept tokens reach into the prefix, `last` does not.
    selection = {
        "sites": ("resid_post", "attn_out"),
        "poolings": ("last", "mean", "post_template_mean"),
        "token_layers": (3,),
        "template": "chat",
        "system": system,
    }
    key = ("prompt_id", "layer", "site", "pooling", "pooled_start", "pooled_end", "token_count")
    results = []
    for shares_prefix in (True, False):
        summary = ingest_texts(
            root, llama, **selection, token_budget=90, shares_prefix=shares_prefix
        )
        tokens = keyed_vectors(root, "prompt_tokens", "prompt_id", "layer", "site", "position")
        results.append((summary, keyed_vectors(root, "activations", *key) | tokens))
        for table in ("activations", "prompt_tokens"):
            shutil.rmtree(data_file(root, table, "any", llama.name).parent)
    (shared, with_prefix), (whole, without) = results
    assert with_prefix.keys() == without.keys()
    for name, vector in without.items():
        np.testing.assert_allclose(with_prefix[name], vector, atol=1e-5)
    prefix = len(f"<system>{system}<user>") + 1
    assert whole.tokens - shared.tokens == prefix * (len(TEXTS) - 1)


def test_a_model_that_cannot_share_a_prefix_says_so_in_the_run_row(
    root: Path, tmp_path: Path, import_texts: ImportTexts
) -> None:
    import_texts(TEXTS)
    folder = save_tiny(tmp_path / "tiny-gemma", "gemma3_text", head_dim=8)
    selection = {"template": "chat", "system": "You are careful."}
    ingest_texts(root, resolve(str(folder)), **selection)
    message = last_run(root)["message"]
    assert "was run with every prompt: the cache has DynamicSlidingWindowLayer" in message


def test_no_vocabulary_logits_are_computed(
    run: Callable[..., IngestSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = axes.ingest.jobs.load

    def without_head(*args: Any) -> Any:
        loaded = real(*args)
        loaded.model.lm_head.register_forward_hook(lambda *_: pytest.fail("logits computed"))
        return loaded

    monkeypatch.setattr(axes.ingest.jobs, "load", without_head)
    assert run().rows == 20


def test_shards_in_turn_give_all_rows_once(
    root: Path, llama: ModelSpec, import_texts: ImportTexts
) -> None:
    import_texts([f"prompt number {index}" for index in range(30)])
    counts = [ingest_texts(root, llama, shard=f"{number}/3").prompt_count for number in (1, 2, 3)]
    assert sum(counts) == 30 and min(counts) > 0
    assert len(activation_rows(root)) == 120
    assert ingest_texts(root, llama).new_count == 0


def test_a_plan_says_what_the_job_then_does_and_writes_nothing(
    root: Path, llama: ModelSpec, import_texts: ImportTexts
) -> None:
    import_texts(TEXTS)
    selection = {"layers": (0, 1), "token_layers": (2,), "template": "chat", "system": "Be kind."}
    connect(root).close()  # Whoever opens a root first makes the index of keys.
    before = sorted(root.rglob("*"))
    plan = plan_activations(root, llama, for_texts(**selection))
    assert [path for path in root.rglob("*") if path not in before] == []
    assert plan.tokens_per_second > 0
    assert plan.seconds == pytest.approx(plan.tokens / plan.tokens_per_second)
    summary = ingest_texts(root, llama, **selection)
    assert (plan.new_count, plan.rows, plan.tokens) == (5, summary.rows, summary.tokens)
    stored = sum(path.stat().st_size for path in root.rglob(f"model={llama.name}/*.parquet"))
    # Of tiny vectors most of the file is footer; the estimate is of the rows.
    assert plan.bytes < stored < plan.bytes + 40_000
    done = plan_activations(root, llama, for_texts(**selection))
    assert (done.rows, done.tokens, done.seconds) == (0, 0, None)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_reduced_precision_is_pooled_and_stored_in_float32(
    run: Callable[..., IngestSummary], root: Path, dtype: str
) -> None:
    full = run().model_id
    reduced = run(dtype=dtype).model_id
    stored = activation_rows(root)
    tolerance = 0.02 if dtype == "bfloat16" else 0.003
    for (model_id, *key), vector in stored.items():
        if model_id == full:
            other = stored[reduced, *key]
            assert other.dtype == np.float32
            assert np.linalg.norm(other - vector) < tolerance * np.linalg.norm(vector)
            # A mean of five is not a number of the reduced precision.
            assert not np.array_equal(other, torch.tensor(other).to(getattr(torch, dtype)).float())


def test_a_model_spread_over_devices_gives_the_same_rows(
    run: Callable[..., IngestSummary], root: Path, llama: ModelSpec
) -> None:
    run()
    placed = activation_rows(root)
    shutil.rmtree(data_file(root, "activations", "any", llama.name).parent)
    run(device="auto")
    spread = activation_rows(root)
    assert spread.keys() == placed.keys()
    for key, vector in placed.items():
        np.testing.assert_allclose(spread[key], vector, atol=1e-6)
