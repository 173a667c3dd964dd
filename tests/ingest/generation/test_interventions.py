"""The job stores what a pass with the hooks gives, once, whoever ran before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import axes.ingest.generation.interventions
import axes.ingest.jobs
from axes.ingest.activations import ingest_activations
from axes.ingest.forward.steering import Intervention, steer
from axes.ingest.generation.interventions import first_ids, ingest_interventions, opener_phrases
from axes.ingest.models.registry import ModelSpec, resolve
from axes.ingest.prompts import prompt_id
from axes.ingest.requests import ActivationRequest, InterventionRequest
from axes.warehouse.errors import AxisError, CoverageError, LayerError, ModelError
from tests.ingest.conftest import (
    assert_checks_pass,
    last_run,
    loaded_on_cpu,
    put_axis,
    put_texts,
    read,
)

ASKED = ["hello there, you", "hi", "what is a duck", "tell me more of it"]
BENIGN = ["the sky is blue", "ducks can swim well", "a"]
LAYER = 1
STRENGTHS = [-0.5, 0.25, 2.0]


@pytest.fixture(scope="module")
def prepared(empty_root: Path, saved_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, benign texts with activations, and two axes of the model's own."""
    root = shutil.copytree(empty_root, tmp_path_factory.mktemp("steerable") / "lake")
    put_texts(root, ASKED, "asked")
    put_texts(root, BENIGN, "benign")
    spec = resolve(str(saved_llama))
    ingest_activations(root, spec, ActivationRequest(prompt_sets={"benign": None}))
    for name in ("first", "second"):
        put_axis(root, spec, name, LAYER, axis_id=name)
    return root


@pytest.fixture
def steerable(prepared: Path, tmp_path: Path) -> Path:
    return shutil.copytree(prepared, tmp_path / "lake")


def run(root: Path, spec: ModelSpec, **options: Any) -> Any:
    defaults = {"axis_ids": ["first", "second"], "strengths": STRENGTHS, "max_new_tokens": 4}
    sets = {"prompt_set": "asked", "benign_set": "benign"}
    return ingest_interventions(root, spec, InterventionRequest(**sets, **{**defaults, **options}))


def outcomes(root: Path) -> dict[tuple, float]:
    """Axis, layers, strength, prompt and metric -> value."""
    found = read(root, "from intervention_outcomes")
    names = ("axis_id", "layers", "strength", "prompt_id", "metric")
    keyed = {tuple(row[name] for name in names): row["value"] for row in found}
    assert len(keyed) == len(found), "two outcomes share a key"
    return keyed


def test_what_is_stored_is_what_each_prompt_alone_gives_under_the_hook(steerable, llama):
    run(steerable, llama, template="raw", completed_axis_ids=["first"])
    loaded = loaded_on_cpu(llama)
    (axis,) = read(steerable, "select vector from axes where axis_id = 'first'")
    vector = torch.tensor(axis["vector"])
    (norms,) = read(
        steerable,
        "select median_norm from v_layer_norms where layer = ? and prompt_set = 'benign'",
        [LAYER],
    )
    unit = norms["median_norm"]
    found = outcomes(steerable)
    ids = first_ids(loaded.tokenizer, opener_phrases("refusal"))

    def steered(text: str, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and the tail of the last block's output."""
        tail: list[torch.Tensor] = []
        change = Intervention(vector, [LAYER], strength=strength, unit=unit)
        handle = loaded.blocks[-1].register_forward_hook(
            lambda _module, _args, output: tail.append(output[0, -5:].mean(0))
        )
        tokens = loaded.tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode(), steer(loaded, [change]):
            logits = loaded.model(tokens).logits[0]
        handle.remove()
        return logits.log_softmax(-1), tail[0]

    for text in ASKED:
        before, tail = steered(text, 0.0)
        for strength in STRENGTHS:
            after, moved = steered(text, strength)
            chance = after[-1, ids].exp().sum()
            key = ("first", str(LAYER), strength, prompt_id(text))
            assert found[*key, "refusal_openers"] == pytest.approx(
                float(torch.log(chance / (1 - chance))), abs=1e-3
            )
            shift = float((moved - tail) @ vector)
            assert found[*key, "projection_shift"] == pytest.approx(shift, abs=1e-3)
    for text in BENIGN:
        before, _ = steered(text, 0.0)
        tokens = loaded.tokenizer(text).input_ids
        for strength in STRENGTHS:
            after, _ = steered(text, strength)
            key = ("first", str(LAYER), strength, prompt_id(text))
            kl = (before.exp() * (before - after)).sum(-1).mean()
            assert found[*key, "kl"] == pytest.approx(float(kl), abs=1e-4)
            loss = -after[range(len(tokens) - 1), tokens[1:]].mean()
            assert found[*key, "log_perplexity"] == pytest.approx(float(loss), abs=1e-4)

    # Completions are stored as text with what was done.
    generations = read(steerable, "from generations")
    assert len(generations) == len(ASKED) * (1 + len(STRENGTHS))
    changed = [row for row in generations if row["axis_id"] is not None]
    assert {row["strength"] for row in changed} == set(STRENGTHS)
    assert {(row["steering_mode"], row["steering_layers"]) for row in changed} == {("add", "1")}
    measured = read(
        steerable,
        "select distinct generation_id from intervention_outcomes where metric = 'repetition'",
    )
    ids = {row["generation_id"] for row in generations}
    assert {row["generation_id"] for row in measured} == ids
    assert_checks_pass(steerable)


def test_a_second_run_loads_no_model_and_more_strengths_run_those_alone(
    steerable, llama, monkeypatch
):
    run(steerable, llama, completed_axis_ids=["first"])
    before = outcomes(steerable)
    loads: list[str] = []
    load_weights = axes.ingest.jobs.Job.load
    monkeypatch.setattr(
        axes.ingest.jobs.Job,
        "load",
        lambda self: loads.append("load") or load_weights(self),
    )
    run(steerable, llama, completed_axis_ids=["first"])
    assert loads == [] and last_run(steerable)["rows"] == 0
    run(steerable, llama, strengths=[*STRENGTHS, 3.0])
    after = outcomes(steerable)
    new = after.keys() - before.keys()
    assert {strength for _, _, strength, _, _ in new} == {3.0}
    assert before.items() <= after.items()


def test_interrupted_between_batches_and_started_again_it_has_the_rows_of_one_that_was_not(
    steerable, llama, monkeypatch, tmp_path
):
    other = shutil.copytree(steerable, tmp_path / "other")
    run(other, llama, token_budget=64, completed_axis_ids=["second"])
    write, left = axes.ingest.generation.interventions.write_rows, [3]

    def dies(*arguments: Any, **options: Any) -> Path:
        if arguments[1] == "intervention_outcomes":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return write(*arguments, **options)

    monkeypatch.setattr(axes.ingest.generation.interventions, "write_rows", dies)
    with pytest.raises(KeyboardInterrupt):
        run(steerable, llama, token_budget=64, completed_axis_ids=["second"])
    partial = outcomes(steerable)
    monkeypatch.undo()
    run(steerable, llama, token_budget=64, completed_axis_ids=["second"])
    whole = outcomes(steerable)
    assert 0 < len(partial) < len(whole)
    assert whole == outcomes(other)
    assert_checks_pass(steerable)


def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same_rows(
    steerable, llama, monkeypatch, tmp_path
):
    other = shutil.copytree(steerable, tmp_path / "other")
    run(other, llama, completed_axis_ids=["first"])
    module = axes.ingest.generation.interventions

    def fails_above_two(measure: Callable[..., Any]) -> Callable[..., Any]:
        def small(loaded: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
            if len(batch) > 2:
                raise torch.OutOfMemoryError("pretended")
            return measure(loaded, batch, *arguments, **options)

        return small

    for name in ("measure_prompts", "measure_texts", "complete"):
        monkeypatch.setattr(module, name, fails_above_two(getattr(module, name)))
    run(steerable, llama, completed_axis_ids=["first"])
    message = last_run(steerable)["message"]
    assert "token budget halved to" in message and "batch size halved to" in message
    assert outcomes(steerable) == pytest.approx(outcomes(other), abs=1e-4)
    assert_checks_pass(steerable)


def test_ablation_takes_all_blocks_at_once_layers_are_swept_and_a_condition_is_another_change(
    steerable, llama
):
    run(steerable, llama, mode="ablate", strengths=[1.0])
    run(steerable, llama, layers=[0, 2], strengths=[2.0])
    run(steerable, llama, layers=[0, 2], strengths=[2.0], above=0.1)
    found = read(
        steerable,
        "select mode, layers, unit is null as is_share, count(distinct intervention_id) as n "
        "from intervention_outcomes where metric = 'log_perplexity' group by all",
    )
    # Of two axes, without and with the condition.
    assert {(row["mode"], row["layers"], row["is_share"], row["n"]) for row in found} == {
        ("none", "", True, 1),
        ("ablate", "0,1,2,3", True, 2),
        ("add", "0", False, 4),
        ("add", "2", False, 4),
    }


def test_what_cannot_be_run_is_refused_in_one_line(steerable, llama):
    foreign = {"space_model": "other", "space_model_id": "elsewhere"}
    put_axis(steerable, llama, "foreign", LAYER, axis_id="foreign", **foreign)
    with pytest.raises(
        AxisError, match=r"no axis typo: give an id or a name that `axes list axes`"
    ):
        run(steerable, llama, axis_ids=["typo"])
    with pytest.raises(AxisError, match=r"foreign lies in the space of other"):
        run(steerable, llama, axis_ids=["foreign"])
    with pytest.raises(LayerError, match=r"layer 9 of tiny-llama does not exist"):
        run(steerable, llama, layers=[9])
    with pytest.raises(ModelError, match=r"no openers praise: there are refusal"):
        run(steerable, llama, openers="praise")
    put_axis(steerable, llama, "chat", LAYER, axis_id="chat", template="chat")
    with pytest.raises(CoverageError, match=r"whose median norm is the unit of strength: run"):
        run(steerable, llama, axis_ids=["chat"])
