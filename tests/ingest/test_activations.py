"""The job stores what a direct pass gives, once per key, and does no work that is done."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import axes.ingest.jobs
from axes.ingest import activations
from axes.ingest.activations import IngestSummary, ingest_activations, plan_activations
from axes.ingest.forward.activation_keys import Item
from axes.ingest.forward.pooling import POOLINGS
from axes.ingest.forward.templates import Rendered
from axes.ingest.models.registry import ModelSpec, resolve
from axes.ingest.requests import ActivationRequest
from axes.warehouse.connection import connect
from axes.warehouse.errors import LayerError, NonFiniteError, PromptError
from axes.warehouse.writer import data_file
from tests.ingest.conftest import (
    ImportTexts,
    activation_rows,
    assert_checks_pass,
    for_texts,
    ingest_texts,
    last_run,
    loaded_on_cpu,
    overflow_in_half_precision,
    read,
)
from tests.tiny_models import save_tiny

Run = Callable[..., IngestSummary]

TEXTS = ["hello there, you", "hi", "a rather longer prompt than the others are", "x", "what is it"]


@pytest.fixture
def run(root: Path, llama: ModelSpec, import_texts: ImportTexts) -> Run:
    """Run the job on five prompts, in several batches."""
    import_texts(TEXTS)

    def job(
        limit: int | None = None,
        layers: Sequence[int] | None = None,
        **options: Any,
    ) -> IngestSummary:
        options = {"layers": layers, "token_budget": 40, **options}
        return ingest_activations(
            root, llama, ActivationRequest(prompt_sets={"texts": limit}, **options)
        )

    return job


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading weights is an error."""
    monkeypatch.setattr(axes.ingest.jobs, "load", lambda *_: pytest.fail("weights loaded"))


@pytest.mark.parametrize("template", ["raw", "chat"])
def test_rows_equal_a_direct_pass_over_each_prompt(run, root, llama, llama_folder, template):
    poolings = sorted(POOLINGS)
    if template == "raw":
        with pytest.raises(PromptError, match="raw: it has no position for post_template_mean"):
            run(poolings=poolings)
        poolings.remove("post_template_mean")
    summary = run(poolings=poolings, template=template)
    assert (summary.prompt_count, summary.new_count) == (5, 5)
    stored = activation_rows(root)
    assert len(stored) == summary.rows == 20 * len(poolings)
    loaded = loaded_on_cpu(llama)
    # One token a byte, and BOS before: "<user>" is six tokens, "<assistant>" eleven.
    lead, tail = (1, 0) if template == "raw" else (7, 11)
    for text, pooling in itertools.product(TEXTS, poolings):
        rendered = text if template == "raw" else f"<user>{text}<assistant>"
        end = lead + len(text)
        positions = {
            "last5_mean": slice(-5, None),
            "last": slice(-1, None),
            "mean": slice(None),
            "max": slice(None),
            "instruction_last": slice(end - 1, end),
            "post_template_mean": slice(end, end + tail),
            "content_mean": slice(lead, end),
            "content_max": slice(lead, end),
        }[pooling]
        with torch.no_grad():
            tokens = torch.tensor([loaded.tokenizer(rendered).input_ids])
            states = list(loaded.model(tokens, output_hidden_states=True).hidden_states)
            # The list's last entry is normed: the last block is run on what comes before.
            places = torch.arange(tokens.shape[1])[None]
            rotary = loaded.model.base_model.rotary_emb(states[3], places)
            states[4] = loaded.blocks[3](states[3], position_embeddings=rotary)
        for layer in range(4):
            vector = stored[summary.model_id, text, layer, pooling, template]
            read = states[layer + 1][0][positions]
            expected = read.amax(0) if pooling.endswith("max") else read.mean(0)
            np.testing.assert_allclose(vector, expected.numpy(), atol=1e-4, rtol=1e-4)


def test_content_is_stored_with_its_range_and_refused_where_its_place_is_unknown(
    run, root, llama_folder, tmp_path
):
    run(poolings=["content_max"], template="chat", layers=(1,))
    found = read(root, "from activations inner join prompts using (prompt_id)")
    assert len(found) == len(TEXTS)
    for row in found:
        assert (row["pooled_start"], row["pooled_end"]) == (7, 7 + len(row["text"]))
        assert row["pooled_tokens"] == list(row["text"].replace(" ", "Ġ"))
    shutil.copytree(llama_folder, tmp_path / "upper")
    template = "{{ messages[0].content | upper }}!"
    (tmp_path / "upper" / "chat_template.jinja").write_text(template)
    spec = resolve(str(tmp_path / "upper"))
    request = ActivationRequest(
        prompt_sets={"texts": None}, poolings=("content_mean",), template="chat"
    )
    with pytest.raises(PromptError, match="it has no position for content_mean") as refused:
        ingest_activations(root, spec, request)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("span", ["(0, count + 1)", "(count, count)", "(-1, count)", "(2, 1)"])
def test_positions_that_a_prompt_does_not_have_are_refused(run, root, tmp_path, no_model, span):
    file = tmp_path / "mine.py"
    file.write_text(
        "from axes.ingest.forward.pooling import Pooling, mean\n"
        f"POOLING = Pooling('mine', lambda count, user_end: {span}, mean)\n"
    )
    with pytest.raises(PromptError, match=r"mine@\w+ reads positions .* of its 17 tokens;"):
        run(poolings=[str(file)])
    assert run(poolings=[str(file)], skip_unusable=True).skipped_count == 5
    assert activation_rows(root) == {}


def test_tokens_that_the_model_does_not_have_are_refused(root, tmp_path, import_texts, no_model):
    import_texts(["x", "hi"])
    small = resolve(str(save_tiny(tmp_path / "small", "llama", vocab_size=90)))
    with pytest.raises(PromptError, match=r"token 9\d is beyond the model's vocabulary of 90: "):
        ingest_texts(root, small)


def test_a_row_says_what_it_was_pooled_over_and_no_logits_are_computed(run, root, monkeypatch):
    real = axes.ingest.jobs.load

    def without_head(*args: Any) -> Any:
        loaded = real(*args)
        loaded.model.lm_head.register_forward_hook(lambda *_: pytest.fail("logits computed"))
        return loaded

    monkeypatch.setattr(axes.ingest.jobs, "load", without_head)
    summary = run()
    found = read(root, "from activations inner join prompts using (prompt_id)")
    for row in found:
        text = ["<s>", *row["text"].replace(" ", "Ġ")]
        assert row["token_count"] == len(text)
        assert (row["pooled_start"], row["pooled_end"]) == (max(len(text) - 5, 0), len(text))
        assert row["pooled_tokens"] == text[-5:]
        assert row["norm"] == pytest.approx(np.linalg.norm(row["vector"]), rel=1e-5)
    run_row = last_run(root)
    stages = json.loads(run_row["parameters"])["stage_seconds"]
    names = {"plan", "tokenise", "load", "forward", "pool", "copy", "encode", "write"}
    assert stages.keys() == names and min(stages.values()) > 0
    duration = (run_row["finished_at"] - run_row["started_at"]).total_seconds()
    assert sum(stages.values()) < duration
    tokens = sum(len(text) + 1 for text in TEXTS)
    assert (run_row["status"], run_row["rows"], run_row["tokens"]) == ("finished", 20, tokens)
    assert summary.tokens == tokens
    assert {row["run_id"] for row in found} == {summary.run_id}
    assert_checks_pass(root)


def test_a_second_run_does_no_model_work_and_says_so(run, root, request):
    first = run()
    files = sorted((root / "activations").rglob("*.parquet"))
    request.getfixturevalue("no_model")
    second = run()
    assert second.model_id == first.model_id
    assert (second.prompt_count, second.new_count, second.rows, second.tokens) == (5, 0, 0, 0)
    row = last_run(root)
    assert (row["run_id"], row["status"], row["tokens"]) == (second.run_id, "finished", 0)
    assert sorted((root / "activations").rglob("*.parquet")) == files


def test_layers_and_prompts_added_later_fill_only_what_is_missing(run: Run, root: Path) -> None:
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


def test_another_dtype_template_or_pooling_gives_new_rows_beside_the_old(run, root):
    full = run().model_id
    before = activation_rows(root)
    for change in ({"template": "chat"}, {"poolings": ("last",)}):
        known = activation_rows(root)
        assert run(**change).rows == 20
        new = {key: value for key, value in activation_rows(root).items() if key not in known}
        assert len(new) == 20
        assert not any(map(np.array_equal, before.values(), new.values()))
    # Reduced precision is pooled and stored in float32.
    for dtype, tolerance in (("bfloat16", 0.02), ("float16", 0.003)):
        reduced = run(dtype=dtype).model_id
        stored = activation_rows(root)
        for (_, *key), vector in before.items():
            other = stored[reduced, *key]
            assert other.dtype == np.float32
            assert 0 < np.linalg.norm(other - vector) < tolerance * np.linalg.norm(vector)
            # A mean of five is not a number of the reduced precision.
            assert not np.array_equal(other, torch.tensor(other).to(getattr(torch, dtype)).float())
    assert len(stored) == 100
    assert all(np.array_equal(stored[key], vector) for key, vector in before.items())
    assert {key[0] for key in before} == {full}


def test_changed_weights_under_the_same_name_and_another_name_give_new_rows(
    run: Run, root: Path, llama: ModelSpec, llama_folder: Path
) -> None:
    first = run()
    path = llama_folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.0.mlp.down_proj.weight"] *= 2
    save_file(weights, path, metadata={"format": "pt"})
    second = run()
    assert second.model_id != first.model_id
    assert {key[0] for key in activation_rows(root)} == {first.model_id, second.model_id}
    assert ingest_texts(root, replace(llama, name="other"), layers=(0,)).rows == 5
    found = read(root, "select model, count(*) as n from activations group by 1 order by 1")
    assert found == [{"model": "other", "n": 5}, {"model": "tiny-llama", "n": 40}]


def test_prompts_too_long_are_named_or_skipped_and_recorded(run, root, import_texts, request):
    import_texts(["y" * 511, "z" * 512, "x" * 600, "short"])
    with pytest.raises(PromptError, match=r"'zzz.*: 513 tokens, the context is 512; --skip"):
        run()
    assert last_run(root)["status"] == "failed"
    summary = run(skip_unusable=True)
    assert (summary.prompt_count, summary.new_count, summary.skipped_count) == (4, 2, 2)
    reasons = [f"{count} tokens, the context is 512" for count in (513, 601)]
    assert [item["reason"] for item in last_run(root)["skipped"]] == reasons
    assert {len(key[1]) for key in activation_rows(root)} == {511, 5}
    # Where every prompt is skipped no model is loaded.
    request.getfixturevalue("no_model")
    import_texts(["y" * 600])
    assert run(skip_unusable=True).rows == 0


def test_weights_that_give_nan_are_an_error_naming_prompt_and_layer(run, root, llama_folder):
    path = llama_folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.2.mlp.down_proj.weight"][3, 3] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    longest = read(root, "from prompts order by length(text) desc")[0]
    with pytest.raises(NonFiniteError) as caught:
        run()
    assert f"at layer 2 for prompt {longest['prompt_id']} in float32" in str(caught.value)
    assert activation_rows(root) == {}
    assert last_run(root)["status"] == "failed"
    assert run(layers=[0, 1]).rows == 10, "the layers below are sound"


def test_what_overflows_float16_is_found_before_anything_is_stored(run, root, llama_folder):
    overflow_in_half_precision(llama_folder)
    longest = read(root, "from prompts order by length(text) desc")[0]["prompt_id"]
    for selection in ({}, {"layers": (0, 1), "token_layers": (2,)}):
        with pytest.raises(NonFiniteError) as caught:
            run(**selection, dtype="float16")
        assert str(caught.value) == (
            f"tiny-llama gives NaN or infinity at layer 2 for prompt {longest} in float16: "
            "try --dtype float32 or bfloat16"
        )
    # It is not taken for a block without an MLP.
    with pytest.raises(NonFiniteError, match="infinity at layer 2 in float16: try --dtype"):
        run(sites=("mlp_out",), dtype="float16")
    for table in ("activations", "prompt_tokens"):
        assert read(root, f"select count(*) as n from {table}") == [{"n": 0}]
    for dtype in ("float32", "bfloat16"):
        run(token_layers=(2,), dtype=dtype)
    for largest in (
        "max(norm) as n from activations",
        "max(list_max(vector)) as n from prompt_tokens",
    ):
        (found,) = read(root, f"select {largest}")
        assert found["n"] > 65504, "what float16 cannot hold is held"
    assert_checks_pass(root)


def test_a_limit_holds_for_each_set_a_shared_prompt_is_run_once_and_layers_must_be_there(
    run: Run, root: Path, llama: ModelSpec, import_texts: ImportTexts
) -> None:
    import_texts(["hi", "other", "third"], name="more")
    with pytest.raises(LayerError, match="layer 4 of tiny-llama does not exist: it has 4"):
        run(layers=[0, 4])
    assert activation_rows(root) == {}
    summary = ingest_activations(
        root, llama, ActivationRequest(prompt_sets={"texts": 2, "more": 2}, layers=(0,))
    )
    assert (summary.prompt_count, summary.rows) == (3, 3)
    assert {key[1] for key in activation_rows(root)} == {TEXTS[0], "hi", "other"}


@pytest.mark.parametrize("other", [{"token_budget": 10_000}, {"device": "auto"}])
def test_other_batches_and_a_model_spread_over_devices_give_the_same_rows(run, root, llama, other):
    run(token_budget=1)
    expected = activation_rows(root)
    shutil.rmtree(data_file(root, "activations", "any", llama.name).parent)
    run(**{"token_budget": 1, **other})
    found = activation_rows(root)
    assert found.keys() == expected.keys()
    for key, vector in expected.items():
        np.testing.assert_allclose(found[key], vector, atol=1e-5)


def keyed_vectors(root: Path, table: str, *columns: str) -> dict[tuple, np.ndarray]:
    named = ", ".join(columns)
    found = read(root, f"select {named}, vector from {table}")
    keyed = {tuple(row[name] for name in columns): np.array(row["vector"]) for row in found}
    assert len(keyed) == len(found), "two rows share a key"
    return keyed


def test_sites_poolings_and_tokens_of_one_pass_equal_a_pass_for_each(run, root, llama):
    sites, chosen = ("resid_post", "mlp_out", "resid_pre"), ("last", "max", "instruction_last")
    together = {"layers": (0, 2), "sites": sites, "poolings": chosen, "token_layers": (2,)}
    summary = run(**together)
    pooled_count, token_count = 5 * 2 * 3 * 3, sum(len(text) + 1 for text in TEXTS) * 3
    assert summary.rows == pooled_count + token_count
    key = ("prompt_id", "layer", "site", "pooling")
    stored = keyed_vectors(root, "activations", *key)
    tokens = keyed_vectors(root, "prompt_tokens", "prompt_id", "layer", "site", "position")
    assert (len(stored), len(tokens)) == (pooled_count, token_count)
    assert_checks_pass(root)

    shutil.rmtree(data_file(root, "activations", "any", llama.name).parent)
    # Each site and each pooling in a pass of its own.
    for site, pooling in zip(sites, chosen, strict=True):
        selection = {"layers": (0, 2), "sites": (site,), "poolings": (pooling,)}
        run(**selection)
    alone = keyed_vectors(root, "activations", *key)
    assert len(alone) == 5 * 2 * 3 and alone.keys() <= stored.keys()
    for name, vector in alone.items():
        np.testing.assert_allclose(stored[name], vector, atol=1e-5)
    # Every token's row is what the pooling of the last token says of it.
    lengths = {prompt_id: position for prompt_id, _, _, position in sorted(tokens)}
    for prompt_id, layer, site, pooling in stored:
        if layer == 2 and pooling == "last":
            last = tokens[prompt_id, 2, site, lengths[prompt_id]]
            np.testing.assert_allclose(stored[prompt_id, 2, site, "last"], last, atol=1e-6)


def test_kept_tokens_are_those_of_the_prompt_in_order(run: Run, root: Path) -> None:
    run(layers=(0,), token_layers=(1,))
    found = read(
        root,
        "select text, list(token order by tokens.position) as tokens, "
        "list(tokens.position order by tokens.position) as positions "
        "from prompt_tokens as tokens inner join prompts using (prompt_id) group by text",
    )
    assert len(found) == len(TEXTS)
    for row in found:
        assert row["tokens"] == ["<s>", *row["text"].replace(" ", "Ġ")]
        assert row["positions"] == list(range(len(row["text"]) + 1))
    again = run(layers=(0,), token_layers=(1, 3))
    assert again.rows == sum(len(text) + 1 for text in TEXTS), "layer 3 alone is new"
    assert_checks_pass(root)


def test_a_shared_prefix_gives_the_same_rows_from_fewer_tokens(run, root, llama):
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
        summary = run(**selection, token_budget=90, shares_prefix=shares_prefix)
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


def test_prefixes_that_some_prompts_share_run_once(run, root, llama, import_texts):
    """Families of examples, one with further turns; and prompts that begin as no other."""
    examples = [f"{name} is to {name[::-1]} as " * 2 for name in ("north", "seven")]
    turns = [examples[0], f"{examples[0]} what? And then: ", examples[1]]
    import_texts([*TEXTS, *(f"{turn}{word} ?" for turn in turns for word in ("up", "down", "x"))])
    results = []
    for shares_prefix in (True, False):
        summary = run(poolings=("last", "mean"), shares_prefix=shares_prefix)
        results.append(
            (summary, keyed_vectors(root, "activations", "prompt_id", "layer", "pooling"))
        )
        shutil.rmtree(data_file(root, "activations", "any", llama.name).parent)
    (shared, with_prefix), (whole, without) = results
    assert with_prefix.keys() == without.keys()
    for name, vector in without.items():
        np.testing.assert_allclose(with_prefix[name], vector, atol=1e-5)
    saved = 2 * len(examples[1]) + 5 * len(examples[0]) + 2 * len(" what? And then: ")
    assert saved <= whole.tokens - shared.tokens <= saved + 20
    assert last_run(root)["message"] is None


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=24), min_size=1, max_size=30),
    st.integers(1, 60),
    st.sets(st.integers(0, 29)),
)
def test_what_is_left_of_a_job_runs_in_the_batches_and_after_the_prefixes_of_the_whole(
    rows: list[list[int]], token_budget: int, stored: set[int]
) -> None:
    request = ActivationRequest(prompt_sets={}, token_budget=token_budget)
    rendered = {f"p{at}": Rendered(row, "", None, None) for at, row in enumerate(rows)}

    def planned(missing: list[str]) -> list[tuple[list[str], list[int]]]:
        """Every batch and the tokens that it is run after."""
        items = frozenset({Item(0, "resid_post", "last")})
        groups = activations._groups(rendered, dict.fromkeys(missing, items), request)
        return [
            (batch.names, family.tokens)
            for group in groups
            for batch in activations.Session.whole_batches(group, request, lambda *_: True)
            for family in group.planned(bool(group.trial))
            if batch.names[0] in family.names
        ]

    whole = planned([*rendered])
    left = [batch for at, batch in enumerate(whole) if at not in stored]
    assert planned([name for names, _ in reversed(left) for name in names]) == left


def test_a_model_that_cannot_share_a_prefix_says_so_in_the_run_row(root, tmp_path, import_texts):
    import_texts(TEXTS)
    folder = save_tiny(tmp_path / "tiny-gemma", "gemma3_text", head_dim=8)
    selection = {"template": "chat", "system": "You are careful."}
    ingest_texts(root, resolve(str(folder)), **selection)
    message = last_run(root)["message"]
    assert "was run with every prompt: the cache has DynamicSlidingWindowLayer" in message


def test_a_plan_says_what_the_job_then_does_and_writes_nothing(root, llama, import_texts):
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
