"""Recorded block outputs are the model's own hidden states, however the batch is padded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import Point, block_points, record, run_backbone
from axes.ingest.models.load import find_blocks
from tests.tiny_models import tiny_model

FAMILIES = ("gpt_neox", "llama", "mistral", "qwen2", "gemma3_text", "gpt2", "bloom", "mamba")
# Families with attention take left padding; a state-space model carries it into its state.
LEFT_PADDED = FAMILIES[:-1]
ROWS = [[1, *range(5, 5 + count)] for count in (9, 3, 6)]


def recorded_rows(
    model: torch.nn.Module, rows: Sequence[list[int]], side: str = "right"
) -> list[torch.Tensor]:
    """Per row the recorded `[layer, position, d_model]`, padding cut away."""
    count = model.config.get_text_config().num_hidden_layers
    points = block_points(find_blocks(model), range(count))
    tokens, mask = pad(rows, 0, side=side)
    got: dict[int, torch.Tensor] = {}
    with record(points, lambda point, hidden: got.update({point.layer: +hidden})):
        run_backbone(model, tokens, mask)
    stacked = torch.stack([got[layer] for layer in range(count)], dim=1)
    return [stacked[index][:, mask[index]] for index in range(len(rows))]


def own_hidden_states(model: torch.nn.Module, row: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's block outputs `[layer, position, d_model]` but the last, and its normed last."""
    count = model.config.get_text_config().num_hidden_layers
    with torch.no_grad():
        states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
    # Mamba's list leaves the embeddings out and has the last block both before and after the norm.
    first = 0 if model.config.model_type == "mamba" else 1
    states = torch.stack(states)[:, 0]
    return states[first : first + count - 1], states[-1]


def final_norm(model: torch.nn.Module) -> torch.nn.Module:
    names = {"norm", "ln_f", "final_layer_norm", "norm_f"}
    return next(module for name, module in model.base_model.named_children() if name in names)


def perturbed(architecture: str) -> torch.nn.Module:
    """A tiny model whose biases and norm gains are not at their initial zeros and ones."""
    model = tiny_model(architecture)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return model


@pytest.mark.parametrize(
    ("architecture", "side"),
    [(name, "right") for name in FAMILIES] + [(name, "left") for name in LEFT_PADDED],
)
def test_recording_equals_the_models_own_hidden_states(architecture: str, side: str) -> None:
    model = perturbed(architecture)
    for row, recorded in zip(ROWS, recorded_rows(model, ROWS, side), strict=True):
        inner, last = own_hidden_states(model, row)
        torch.testing.assert_close(recorded[:-1], inner, atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            normed = final_norm(model)(recorded[-1])
        torch.testing.assert_close(normed, last, atol=1e-4, rtol=1e-4)
        assert (recorded[-1] - last).abs().max() > 1e-2, "what is stored is not normed"


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_prompt_alone_and_in_a_batch_give_the_same(architecture: str) -> None:
    model = perturbed(architecture)
    for row, together in zip(ROWS, recorded_rows(model, ROWS), strict=True):
        torch.testing.assert_close(together, recorded_rows(model, [row])[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_leaving_out_a_full_mask_changes_nothing(architecture: str) -> None:
    model = perturbed(architecture)
    blocks = find_blocks(model)
    tokens = torch.tensor([ROWS[0], ROWS[0][::-1]])
    with_mask: list[torch.Tensor] = []
    seen: list[dict] = []
    handle = model.base_model.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(given), with_kwargs=True
    )
    with (
        torch.inference_mode(),
        record(block_points(blocks, range(4)), lambda _, hidden: with_mask.append(+hidden)),
    ):
        model.base_model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    without: list[torch.Tensor] = []
    with record(block_points(blocks, range(4)), lambda _, hidden: without.append(+hidden)):
        run_backbone(model, tokens, torch.ones_like(tokens, dtype=torch.bool))
    handle.remove()
    assert "attention_mask" not in seen[-1]
    torch.testing.assert_close(torch.stack(without), torch.stack(with_mask), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wanted", [[2], [0, 3], [3, 1]])
def test_only_the_layers_asked_for_are_recorded(wanted: list[int]) -> None:
    model = tiny_model("llama")
    blocks = find_blocks(model)
    got: dict[int, torch.Tensor] = {}
    tokens, mask = pad(ROWS, 0)
    points = block_points(blocks, wanted)
    with record(points, lambda point, hidden: got.update({point.layer: +hidden})):
        run_backbone(model, tokens, mask)
    assert sorted(got) == sorted(wanted)
    for layer in wanted:
        torch.testing.assert_close(got[layer][0], recorded_rows(model, ROWS)[0][layer])


def test_hooks_are_removed_after_use_and_after_an_exception() -> None:
    model = tiny_model("llama")
    blocks = find_blocks(model)
    seen: list[int] = []
    tokens, mask = pad(ROWS, 0)
    with record(block_points(blocks, range(4)), lambda point, _: seen.append(point.layer)):
        run_backbone(model, tokens, mask)
    assert seen == [0, 1, 2, 3]

    def refuse(point: Point, _hidden: torch.Tensor) -> None:
        raise RuntimeError(f"refused at {point.layer}")

    points = block_points(blocks, [1, 2])
    with pytest.raises(RuntimeError, match="refused at 1"), record(points, refuse):
        run_backbone(model, tokens, mask)
    run_backbone(model, tokens, mask)
    assert seen == [0, 1, 2, 3]
    assert not any(block._forward_hooks for block in blocks)


def test_leaving_early_records_the_same_and_does_not_run_the_blocks_above() -> None:
    model = perturbed("llama")
    blocks = find_blocks(model)
    tokens, mask = pad(ROWS, 0)
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(blocks)
    ]
    got: dict[int, torch.Tensor] = {}
    with record(
        block_points(blocks, [0, 1]),
        lambda point, hidden: got.update({point.layer: +hidden}),
        leaves_early=True,
    ):
        run_backbone(model, tokens, mask)
        pytest.fail("the forward pass went on to its end")
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]
    for index, recorded in enumerate(recorded_rows(model, ROWS)):
        for layer in (0, 1):
            torch.testing.assert_close(got[layer][index][mask[index]], recorded[layer])
    assert not any(block._forward_hooks for block in blocks)
