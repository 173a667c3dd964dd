"""What steering costs while a model generates, against plain generation of as many tokens.

The same prompts in the same batches, greedy, every completion of the full length. The axis is a
random unit vector; the strength is small, so that the model goes on as it would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from axes.ingest.forward.steering import Intervention, steer
from axes.ingest.forward.templates import pad_id
from benchmarks.ingest.workload import Workload, workload
from benchmarks.run import Figure, alternate, interval_figure, ratios, seconds

MODEL = "smollm2-135m"
# One full batch: strengths are one for each row.
PROMPT_COUNT = BATCH_SIZE = 16
NEW_TOKENS = 32
# Short rounds and many: what else runs on a machine changes within some ten seconds.
ROUNDS = 15
GOAL = 1.02
STRENGTH = 1e-3


def measure() -> Iterator[Figure]:
    """Generation with one block moved, with the axis taken out of all, and with a condition."""
    with workload(MODEL, PROMPT_COUNT) as work:
        batches = work.batches(BATCH_SIZE)
        kinds = _interventions(work)
        _generate(work, batches[:1], [])
        floor, *steered = alternate(
            ROUNDS,
            lambda: seconds(lambda: _generate(work, batches, [])),
            *(
                lambda change=change: seconds(lambda: _generate(work, batches, [change]))
                for change in kinds.values()
            ),
        )
    conditions = (
        f"{MODEL}, {PROMPT_COUNT} prompts, {NEW_TOKENS} tokens, batches of {BATCH_SIZE}, "
        f"{torch.get_num_threads()} threads"
    )
    for name, times in zip(kinds, steered, strict=True):
        figure = f"steered generation, {name} / plain generation"
        yield interval_figure(figure, ratios(times, floor), GOAL, "lower", conditions)


def _interventions(work: Workload) -> dict[str, Intervention]:
    """What is timed, by what is said of it."""
    loaded = work.loaded
    axis = torch.randn(loaded.d_model, generator=torch.Generator().manual_seed(0))
    axis = axis / axis.norm()
    layer = round(0.8 * (loaded.layer_count - 1))
    everywhere = range(loaded.layer_count)
    strengths = torch.linspace(-STRENGTH, STRENGTH, BATCH_SIZE)
    return {
        "add at one block, a strength for each row": Intervention(axis, [layer], "add", strengths),
        "ablate at one block": Intervention(axis, [layer], "ablate", STRENGTH),
        "ablate at every block": Intervention(axis, everywhere, "ablate", STRENGTH),
        "generated tokens of rows above a threshold": Intervention(
            axis, [layer], "add", STRENGTH, positions="generated", above=0.0, condition="row"
        ),
    }


def _generate(
    work: Workload, batches: Sequence[tuple[Tensor, Tensor]], changes: Sequence[Intervention]
) -> None:
    model: Any = work.loaded.model
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=work.loaded.tokenizer.eos_token_id,
        pad_token_id=pad_id(work.loaded.tokenizer),
    )
    for tokens, mask in batches:
        with torch.inference_mode(), steer(work.loaded, changes):
            model.generate(tokens, attention_mask=mask.long(), generation_config=config)
