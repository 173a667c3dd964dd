"""What comes out of a block is what the intervention says, however the model is run."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, GenerationConfig

from axes.ingest.forward.batching import pad
from axes.ingest.forward.prefix_cache import resume_after
from axes.ingest.forward.recording import block_points, cache_argument, record, recorded
from axes.ingest.forward.steering import Intervention, steer
from axes.ingest.models.load import LoadedModel, find_blocks
from axes.warehouse.errors import AxisError, LayerError
from tests.ingest.forward.families import (
    KINDS,
    LEFT_PADDED,
    ROWS,
    block_outputs,
    loaded_tiny,
    shared_tiny,
)

LAYER = 1
STRENGTHS = torch.tensor([0.5, 0.0, -2.0])


@pytest.fixture(scope="module")
def llama() -> LoadedModel:
    return shared_tiny("llama")


def unit_axis(loaded: LoadedModel, seed: int = 0) -> torch.Tensor:
    axis = torch.randn(loaded.d_model, generator=torch.Generator().manual_seed(seed))
    return axis / axis.norm()


def outputs(
    loaded: LoadedModel,
    interventions: Sequence[Intervention],
    rows: Sequence[list[int]] = ROWS,
    *,
    side: str = "left",
    **options: Any,
) -> list[torch.Tensor]:
    """Per row the `[layer, position, d_model]` that blocks put out while steered, no padding."""
    with steer(loaded, interventions, **options):
        return block_outputs(loaded, rows, side)


@pytest.mark.parametrize("family", KINDS)
def test_each_mode_does_what_it_says_on_every_kind_of_architecture(family):
    loaded, side = shared_tiny(family), "left" if family in LEFT_PADDED else "right"
    axis = unit_axis(loaded)
    plain = outputs(loaded, [], side=side)

    def steered(*interventions: Intervention) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return zip(plain, outputs(loaded, interventions, side=side), strict=True)

    for before, after in steered(Intervention(axis, [LAYER], strength=0.25, unit=8.0)):
        torch.testing.assert_close(after[LAYER] - before[LAYER], (2 * axis).expand(before[0].shape))
        assert torch.equal(after[:LAYER], before[:LAYER])
        assert (after[LAYER + 1] - before[LAYER + 1]).abs().max() > 1e-2, "it is passed on"
    for before, after in steered(Intervention(axis, range(loaded.layer_count), mode="ablate")):
        assert (before @ axis).abs().max() > 0.1
        assert (after @ axis).abs().max() < 1e-5
        kept = before[0] - (before[0] @ axis)[:, None] * axis
        torch.testing.assert_close(after[0], kept)
    for _, after in steered(Intervention(axis, [LAYER], mode="clamp", strength=-1.5, unit=2.0)):
        torch.testing.assert_close(after[LAYER] @ axis, torch.full((after.shape[1],), -3.0))
    for mode in ("add", "ablate"):
        nothing = Intervention(axis, range(4), mode=mode, strength=0.0, unit=7.0)
        assert all(torch.equal(after, before) for before, after in steered(nothing)), mode


@pytest.mark.parametrize("mode", ["add", "ablate", "clamp"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_different_strengths_in_one_batch_are_as_each_alone(llama, mode, side):
    axis = unit_axis(llama)
    together = outputs(llama, [Intervention(axis, [LAYER], mode, STRENGTHS)], side=side)
    for row, strength, mixed in zip(ROWS, STRENGTHS.tolist(), together, strict=True):
        (alone,) = outputs(llama, [Intervention(axis, [LAYER], mode, strength)], [row])
        torch.testing.assert_close(mixed, alone, atol=1e-4, rtol=1e-4)


def test_adding_after_a_block_is_a_bias_of_its_last_projection():
    """What llama.cpp does with `direction.b`: the residual stream after block b, every position."""
    loaded = loaded_tiny("gpt2")
    axis = unit_axis(loaded)
    steered = outputs(loaded, [Intervention(axis, [LAYER], strength=3.0)])
    with torch.no_grad():
        loaded.blocks[LAYER].mlp.c_proj.bias.add_(3.0 * axis)
    for biased, after in zip(outputs(loaded, []), steered, strict=True):
        torch.testing.assert_close(after, biased, atol=1e-4, rtol=1e-4)


def test_interventions_of_one_block_are_made_in_their_order(llama):
    axis, other = unit_axis(llama), unit_axis(llama, seed=1)
    both = [Intervention(axis, [LAYER], "clamp", 2.0), Intervention(other, [LAYER], "add", 1.0)]
    for first, then in zip(outputs(llama, both[:1]), outputs(llama, both), strict=True):
        torch.testing.assert_close(then[LAYER] - first[LAYER], other.expand(first[0].shape))
    # Every layer has its own unit.
    scaled = Intervention(axis, [0, 2], "clamp", 0.5, unit={0: 4.0, 2: 10.0})
    for after in outputs(llama, [scaled]):
        for layer, value in ((0, 2.0), (2, 5.0)):
            torch.testing.assert_close(after[layer] @ axis, torch.full((after.shape[1],), value))


def test_only_positions_above_the_threshold_are_changed(llama):
    axis = unit_axis(llama)
    plain = outputs(llama, [])
    threshold = float(torch.cat([row[LAYER] @ axis for row in plain]).median())
    conditional = Intervention(axis, [LAYER], strength=1.0, above=threshold)
    changed_count = 0
    for before, after in zip(plain, outputs(llama, [conditional]), strict=True):
        is_above = before[LAYER] @ axis > threshold
        moved = (after[LAYER] - before[LAYER]) @ axis
        torch.testing.assert_close(moved, is_above.float())
        changed_count += int(is_above.sum())
    assert 0 < changed_count < sum(map(len, ROWS))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_is_changed_whole_where_its_last_prompt_token_is_above(llama, side):
    axis = unit_axis(llama)
    plain = outputs(llama, [])
    lasts = torch.stack([row[LAYER, -1] @ axis for row in plain])
    threshold = float(lasts.sort().values[:2].mean())
    conditional = Intervention(axis, [LAYER], strength=1.0, above=threshold, condition="row")
    expected = (lasts > threshold).tolist()
    assert sorted(expected) == [False, True, True]
    steered = outputs(llama, [conditional], side=side)
    for before, after, is_above in zip(plain, steered, expected, strict=True):
        moved = (after[LAYER] - before[LAYER]) @ axis
        torch.testing.assert_close(moved, torch.full_like(moved, float(is_above)))


def test_in_a_pass_over_finished_text_only_what_is_meant_is_changed(llama):
    axis = unit_axis(llama)
    prompt_lengths = [4, 2, 5]
    plain = outputs(llama, [], side="right")
    for positions in ("prompt", "generated"):
        part = Intervention(axis, [LAYER], strength=1.0, positions=positions)
        steered = outputs(llama, [part], side="right", prompt_width=prompt_lengths)
        for before, after, length in zip(plain, steered, prompt_lengths, strict=True):
            is_prompt = torch.arange(before.shape[1]) < length
            is_meant = is_prompt if positions == "prompt" else ~is_prompt
            moved = (after[LAYER] - before[LAYER]) @ axis
            torch.testing.assert_close(moved, is_meant.float())


def generated(
    loaded: LoadedModel, interventions: Sequence[Intervention], **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens `[batch, position]` and what block LAYER put out at them, but for the last."""
    tokens, mask = pad(ROWS, 0, side="left")
    steps: list[torch.Tensor] = []
    config = GenerationConfig(max_new_tokens=5, min_new_tokens=5, pad_token_id=0, eos_token_id=2)
    with (
        torch.inference_mode(),
        steer(loaded, interventions),
        record(block_points(loaded.blocks, [LAYER]), lambda _, hidden: steps.append(+hidden)),
    ):
        sequences = loaded.model.generate(
            tokens, attention_mask=mask.long(), generation_config=config, **options
        )
    return sequences, torch.cat(steps, dim=1)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
@pytest.mark.parametrize("family", LEFT_PADDED)
def test_generation_with_a_cache_is_as_a_pass_over_the_finished_text(family, positions):
    loaded = shared_tiny(family)
    steering = Intervention(unit_axis(loaded), [LAYER], "add", STRENGTHS, 4.0, positions)
    sequences, hidden = generated(loaded, [steering])
    width = max(map(len, ROWS))
    for index, row in enumerate(ROWS):
        text = [*row, *sequences[index, width:-1].tolist()]
        alone = replace(steering, strength=float(STRENGTHS[index]))
        (whole,) = outputs(loaded, [alone], [text], prompt_width=len(row))
        mine = hidden[index, width - len(row) :]
        torch.testing.assert_close(mine, whole[LAYER], atol=1e-3, rtol=1e-3)


def test_the_decision_on_a_row_holds_while_it_is_continued(llama):
    axis = unit_axis(llama)
    _, plain = generated(llama, [])
    width = max(map(len, ROWS))
    lasts = plain[:, width - 1] @ axis
    threshold = float(lasts.sort().values[1:].mean())
    # The threshold is in the unit too.
    bound = {"above": threshold / 10, "condition": "row"}
    gated = Intervention(axis, [LAYER], "clamp", 0.5, unit=10.0, **bound)
    _, steered = generated(llama, [gated])
    for index, is_above in enumerate((lasts > threshold).tolist()):
        is_clamped = ((steered[index] @ axis - 5.0).abs() < 1e-4)[width - len(ROWS[index]) :]
        assert is_clamped.all() if is_above else not is_clamped.any()


def test_a_state_space_model_tells_its_prompt_from_what_it_generates():
    loaded = shared_tiny("mamba")
    axis = unit_axis(loaded)
    tokens = torch.tensor([ROWS[0]])
    steps: list[torch.Tensor] = []
    clamped = Intervention(axis, [LAYER], "clamp", 9.0, positions="generated")
    config = GenerationConfig(max_new_tokens=4, min_new_tokens=4, pad_token_id=0, eos_token_id=2)
    with (
        torch.inference_mode(),
        steer(loaded, [clamped]),
        record(block_points(loaded.blocks, [LAYER]), lambda _, hidden: steps.append(hidden @ axis)),
    ):
        loaded.model.generate(tokens, generation_config=config)
    assert [len(step[0]) for step in steps] == [len(ROWS[0]), 1, 1, 1]
    assert (steps[0] - 9.0).abs().min() > 1e-3
    torch.testing.assert_close(torch.cat(steps[1:], 1), torch.full((1, 3), 9.0))


def test_a_prefix_that_was_run_before_counts_as_said(llama):
    """With a given width the columns of a cache that was filled outside are the prompt's."""
    axis = unit_axis(llama)
    steering = Intervention(axis, [LAYER], "clamp", 9.0, positions="generated")
    cache = DynamicCache(config=llama.model.config)
    rest = torch.tensor([ROWS[0][4:]])
    got: list[torch.Tensor] = []
    with torch.inference_mode():
        named = {cache_argument(llama.model.base_model): cache}
        llama.model.base_model(torch.tensor([ROWS[0][:4]]), use_cache=True, **named)
        with (
            steer(llama, [steering], prompt_width=6),
            record(block_points(llama.blocks, [LAYER]), lambda _, hidden: got.append(+hidden)),
        ):
            llama.model.base_model(rest, use_cache=True, **named)
    is_clamped = ((got[0][0] @ axis) - 9.0).abs() < 1e-4
    assert is_clamped.tolist() == [False, False, *[True] * (len(ROWS[0]) - 6)]


def test_what_the_caller_gave_and_what_blocks_put_out_is_left_as_it_was(llama):
    axis = unit_axis(llama).numpy().copy()
    strengths = STRENGTHS.clone()
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = llama.blocks[LAYER].register_forward_hook(
        lambda _module, _args, output: kept.append((output, output.clone())) and None
    )
    try:
        outputs(llama, [Intervention(axis, [LAYER], strength=strengths)])
    finally:
        handle.remove()
    assert torch.equal(*kept[0])
    np.testing.assert_array_equal(axis, unit_axis(llama).numpy())
    assert torch.equal(strengths, STRENGTHS)


def test_half_precision_is_changed_in_single(llama):
    half = replace(llama, model=copy.deepcopy(llama.model).bfloat16())
    half = replace(half, blocks=find_blocks(half.model))
    axis = unit_axis(half)
    (after,) = outputs(half, [Intervention(axis, [LAYER], "ablate")], [ROWS[0]])
    assert after.dtype == torch.bfloat16
    # What is left is the rounding of the result to eight bits.
    left = after[LAYER].float()
    assert (left @ axis).abs().max() < 2e-2 * left.norm(dim=-1).max()


def test_hooks_are_removed_after_use_and_after_an_error():
    llama = loaded_tiny("llama")
    axis = unit_axis(llama)
    everything = [
        Intervention(axis, range(4), positions="generated"),
        Intervention(axis, [0], above=0.0, condition="row"),
    ]
    outputs(llama, everything)
    with pytest.raises(RuntimeError, match="on purpose"), steer(llama, everything):
        raise RuntimeError("on purpose")
    with pytest.raises(AxisError, match="2 strengths for a batch of 3"):
        outputs(llama, [Intervention(axis, [0], strength=torch.ones(2))])
    hidden = torch.zeros(1, 4, 32)
    with pytest.raises(RuntimeError, match="on purpose"), resume_after(llama, 1, hidden):
        raise RuntimeError("on purpose")
    assert not any("forward" in vars(block) for block in llama.blocks)
    assert not any(block._forward_hooks for block in llama.blocks)
    assert not llama.model.base_model._forward_pre_hooks


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"layers": [4]}, LayerError, r"layer 4 of tiny-llama does not exist: it has 4 \(0 to 3\)"),
        ({"mode": "erase"}, AxisError, "mode erase is unknown: it is add, ablate, clamp"),
        ({"positions": "last"}, AxisError, "positions last is unknown"),
        ({"condition": "batch"}, AxisError, "condition batch is unknown"),
        ({"axis": torch.ones(8)}, AxisError, "an axis of shape .8. does not fit tiny-llama"),
        ({"axis": torch.ones(32)}, AxisError, "the axis has norm 5.657: divide it by that"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model_runs(llama, change, error, message):
    asked = {"axis": unit_axis(llama), "layers": [0], **change}
    with pytest.raises(error, match=message), steer(llama, [Intervention(**asked)]):
        pytest.fail("the body of the with was run")


@pytest.mark.parametrize("family", KINDS)
def test_resuming_gives_the_logits_of_the_whole_pass_and_computes_nothing_below(family):
    loaded = shared_tiny(family)
    tokens, mask = pad(ROWS, 0)
    inputs = {"attention_mask": mask.long(), "use_cache": False}
    steering = [Intervention(unit_axis(loaded), [2], strength=torch.tensor([1.0, 0.0, -3.0]))]
    (below,) = recorded(loaded.model, block_points(loaded.blocks, [2]), tokens, mask).values()
    with torch.inference_mode():
        plain = loaded.model(tokens, **inputs).logits
        with steer(loaded, steering):
            steered = loaded.model(tokens, **inputs).logits
        ran: list[int] = []
        handles = [
            next(iter(block.children())).register_forward_hook(
                lambda *_, layer=layer: ran.append(layer)
            )
            for layer, block in enumerate(loaded.blocks)
        ]
        with resume_after(loaded, 2, below):
            ran.clear()
            resumed = loaded.model(tokens, **inputs).logits
            with steer(loaded, steering):
                resumed_steered = loaded.model(tokens, **inputs).logits
        again = loaded.model(tokens, **inputs).logits
    for handle in handles:
        handle.remove()
    assert set(ran[:2]) == {3}
    assert torch.equal(resumed[mask], plain[mask])
    assert torch.equal(resumed_steered[mask], steered[mask])
    assert torch.equal(again[mask], plain[mask]), "the blocks are themselves again"
    assert not torch.allclose(plain[mask], steered[mask])
