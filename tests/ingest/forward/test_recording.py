"""Recorded block outputs are the model's own hidden states, however the batch is padded."""

from __future__ import annotations

import pytest
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.recording import Point, block_points, record, recorded, run_backbone
from tests.ingest.forward.families import (
    FAMILIES,
    KINDS,
    LEFT_PADDED,
    ROWS,
    block_outputs,
    loaded_tiny,
    shared_tiny,
)


def own_hidden_states(model: torch.nn.Module, row: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's block outputs `[layer, position, d_model]` but the last, and its normed last."""
    count = model.config.get_text_config().num_hidden_layers
    with torch.no_grad():
        states = model(torch.tensor([row]), output_hidden_states=True, use_cache=False)
        states = states.hidden_states
    # Mamba's list leaves the embeddings out and has the last block both before and after the norm.
    first = 0 if model.config.model_type in ("mamba", "mamba2", "falcon_mamba") else 1
    states = torch.stack(states)[:, 0]
    return states[first : first + count - 1], states[-1]


def final_norm(model: torch.nn.Module) -> torch.nn.Module:
    names = ("norm", "ln_f", "final_layer_norm", "norm_f", "final_layernorm")
    names += ("final_norm", "embedding_norm", "out_norm")
    return next(
        module
        for name, module in model.get_decoder().named_modules()
        if name.removeprefix("decoder.").removeprefix("model.") in names
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_recording_equals_the_models_own_hidden_states(family: str) -> None:
    """Right and left padded: no family has an entry anywhere in the code."""
    loaded = shared_tiny(family)
    assert loaded.layer_count == 4
    for side in ("right", "left") if family in LEFT_PADDED else ("right",):
        for row, found in zip(ROWS, block_outputs(loaded, ROWS, side), strict=True):
            inner, last = own_hidden_states(loaded.model, row)
            torch.testing.assert_close(found[:-1], inner, atol=1e-4, rtol=1e-4)
            normed = final_norm(loaded.model)(found[-1])
            torch.testing.assert_close(normed, last, atol=1e-4, rtol=1e-4)
            assert (found[-1] - last).abs().max() > 1e-2, "what is stored is not normed"


@pytest.mark.parametrize("family", KINDS)
def test_a_prompt_alone_and_in_a_batch_give_the_same(family: str) -> None:
    loaded = shared_tiny(family)
    for row, together in zip(ROWS, block_outputs(loaded), strict=True):
        torch.testing.assert_close(together, block_outputs(loaded, [row])[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", KINDS)
def test_leaving_out_a_full_mask_changes_nothing(family: str) -> None:
    model = shared_tiny(family).model
    points = block_points(shared_tiny(family).blocks, range(4))
    tokens = torch.tensor([ROWS[0], ROWS[0][::-1]])
    with_mask: list[torch.Tensor] = []
    seen: list[dict] = []
    handle = model.base_model.register_forward_pre_hook(
        lambda _module, _args, given: seen.append(given), with_kwargs=True
    )
    with torch.inference_mode(), record(points, lambda _, hidden: with_mask.append(+hidden)):
        model.base_model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    without = recorded(model, points, tokens, torch.ones_like(tokens, dtype=torch.bool))
    handle.remove()
    assert "attention_mask" not in seen[-1]
    torch.testing.assert_close(list(without.values()), with_mask, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wanted", [[2], [0, 3], [3, 1]])
def test_only_the_layers_asked_for_are_recorded(wanted: list[int]) -> None:
    loaded = shared_tiny("llama")
    tokens, mask = pad(ROWS, 0)
    found = recorded(loaded.model, block_points(loaded.blocks, wanted), tokens, mask)
    assert sorted(point.layer for point in found) == sorted(wanted)
    for point, hidden in found.items():
        torch.testing.assert_close(hidden[0], block_outputs(loaded)[0][point.layer])


def test_hooks_are_removed_after_use_and_after_an_exception() -> None:
    loaded = loaded_tiny("llama")
    seen: list[int] = []
    tokens, mask = pad(ROWS, 0)
    with record(block_points(loaded.blocks, range(4)), lambda point, _: seen.append(point.layer)):
        run_backbone(loaded.model, tokens, mask)
    assert seen == [0, 1, 2, 3]

    def refuse(point: Point, _hidden: torch.Tensor) -> None:
        raise RuntimeError(f"refused at {point.layer}")

    points = block_points(loaded.blocks, [1, 2])
    with pytest.raises(RuntimeError, match="refused at 1"), record(points, refuse):
        run_backbone(loaded.model, tokens, mask)
    run_backbone(loaded.model, tokens, mask)
    assert seen == [0, 1, 2, 3]
    assert not any(block._forward_hooks for block in loaded.blocks)


def test_leaving_early_does_not_run_the_blocks_above() -> None:
    loaded = loaded_tiny("llama")
    tokens, mask = pad(ROWS, 0)
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(loaded.blocks)
    ]
    with record(block_points(loaded.blocks, [0, 1]), lambda *_: None, leaves_early=True):
        run_backbone(loaded.model, tokens, mask)
        pytest.fail("the forward pass went on to its end")
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]
    assert not any(block._forward_hooks for block in loaded.blocks)
