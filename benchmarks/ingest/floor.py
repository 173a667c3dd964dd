"""The whole job against the bare model: what storing costs.

The floor is forward passes of the same blocks over the same length-sorted batches, already
tokenised and padded: no hook, no pooling, no writing. Both run in one process on the same weights;
the job's own loading of them is left out, which the floor does not pay either.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from axes.ingest.forward.batching import pad, plan_batches
from axes.ingest.forward.recording import run_backbone
from axes.ingest.forward.templates import Template, pad_id, render
from axes.ingest.requests import ActivationRequest
from benchmarks.ingest.workload import Workload, workload
from benchmarks.run import Figure, alternate, median_figure, ratios, seconds

MODELS = ("smollm2-135m", "gemma3-270m")
PROMPT_COUNT = 2000
ROUNDS = 5
GOAL = 1.03


def measure() -> Iterator[Figure]:
    """Job over floor, all layers, for each model."""
    for model in MODELS:
        with workload(model, PROMPT_COUNT) as work:
            rounds = over_floor(work)
        conditions = f"{model}, {PROMPT_COUNT} prompts"
        name = "ingest job / bare forward passes"
        yield median_figure(name, rounds, GOAL, "lower", conditions)


def over_floor(work: Workload, token_budget: int = ActivationRequest.token_budget) -> list[float]:
    """The seconds of the job over those of the bare passes, by round."""
    batches = _batches(work, token_budget)
    work.warm_up()
    floor, job = alternate(
        ROUNDS,
        lambda: seconds(lambda: _forward(work, batches)),
        lambda: work.job_seconds(token_budget=token_budget),
    )
    return ratios(job, floor)


def _batches(work: Workload, token_budget: int) -> list[tuple[Tensor, Tensor]]:
    tokenizer = work.loaded.tokenizer
    rendered = render(tokenizer, work.texts(), Template(), work.name)
    rows = {index: prompt.token_ids for index, prompt in enumerate(rendered)}
    lengths = {index: len(row) for index, row in rows.items()}
    planned = plan_batches(lengths, token_budget)
    return [pad([rows[index] for index in batch], pad_id(tokenizer)) for batch in planned]


def _forward(work: Workload, batches: list[tuple[Tensor, Tensor]]) -> None:
    for tokens, mask in batches:
        run_backbone(work.loaded.model, tokens, mask)
    if work.loaded.device.type == "cuda":
        torch.cuda.synchronize()
