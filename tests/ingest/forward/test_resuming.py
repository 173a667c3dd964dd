"""A pass from a block on gives what the whole pass gives, steered or not, in every family."""

from __future__ import annotations

import pytest
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.prefix_cache import resume_after
from axes.ingest.forward.recording import block_points, record
from axes.ingest.forward.steering import Intervention, steer
from tests.ingest.forward.test_recording import FAMILIES, ROWS
from tests.ingest.forward.test_steering import loaded_tiny, unit_axis


@pytest.mark.parametrize("architecture", FAMILIES)
def test_resuming_gives_the_logits_of_the_whole_pass_and_computes_nothing_below(architecture):
    loaded = loaded_tiny(architecture)
    tokens, mask = pad(ROWS, 0)
    inputs = {"attention_mask": mask.long(), "use_cache": False}
    steering = [Intervention(unit_axis(loaded), [2], strength=torch.tensor([1.0, 0.0, -3.0]))]
    kept: dict[int, torch.Tensor] = {}
    points = block_points(loaded.blocks, [2])
    with torch.inference_mode():
        with record(points, lambda point, hidden: kept.update({point.layer: hidden.clone()})):
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
        with resume_after(loaded, 2, kept[2]):
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


def test_after_an_error_the_blocks_are_themselves_again():
    loaded = loaded_tiny("llama")
    hidden = torch.zeros(1, 4, 32)
    with pytest.raises(RuntimeError, match="on purpose"), resume_after(loaded, 1, hidden):
        raise RuntimeError("on purpose")
    assert not any("forward" in vars(block) for block in loaded.blocks)
