"""What a monitor adds to a token: `generate` with one that reads, and that may stop, over plain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from axes.ingest.forward.batching import pad
from axes.ingest.forward.templates import Template, pad_id, render
from axes.ingest.generation.monitor import Monitor
from benchmarks.ingest.workload import workload
from benchmarks.run import Figure, alternate, interval_figure, ratios, seconds

MODEL = "smollm2-135m"
NEW_TOKENS = 64
ROUNDS = 15
GOAL = 1.02


def measure() -> Iterator[Figure]:
    """One row and eight, greedy, the same number of tokens in every round."""
    with workload(MODEL, 8) as work:
        loaded, texts = work.loaded, work.texts()
        vector = np.random.default_rng(0).standard_normal(loaded.d_model)
        block = loaded.blocks[round(0.8 * (loaded.layer_count - 1))]
        rendered = render(loaded.tokenizer, texts, Template("raw"), loaded.spec.name)
        for batch_size in (1, len(texts)):
            ids = [prompt.token_ids for prompt in rendered[:batch_size]]
            tokens, mask = pad(ids, pad_id(loaded.tokenizer), side="left")
            monitors = {
                "reading": Monitor(block, vector),
                # Never reached: every token's probability is computed and compared.
                "with a calibration": Monitor(
                    block, vector, probability=np.zeros_like, stop_above=1.0
                ),
            }
            plain = _speaking(loaded.model, tokens, mask)
            plain()
            watched = [_speaking(loaded.model, tokens, mask, one) for one in monitors.values()]
            timed = [lambda call=call: seconds(call) for call in (plain, *watched)]
            bare, *taken = alternate(ROUNDS, *timed)
            conditions = f"{MODEL}, {batch_size} rows, {NEW_TOKENS} tokens"
            for name, times in zip(monitors, taken, strict=True):
                title = f"generate, monitor {name} / plain, {batch_size} rows"
                yield interval_figure(title, ratios(times, bare), GOAL, "lower", conditions)


def _speaking(
    model: Any, tokens: torch.Tensor, mask: torch.Tensor, monitor: Monitor | None = None
) -> Callable[[], None]:
    arguments = {
        "attention_mask": mask.long(),
        "max_new_tokens": NEW_TOKENS,
        "min_new_tokens": NEW_TOKENS,
        "do_sample": False,
    }

    @torch.inference_mode()
    def speak() -> None:
        if monitor is None:
            model.generate(tokens, **arguments)
            return
        with monitor.watching():
            model.generate(tokens, stopping_criteria=[monitor], **arguments)

    return speak
