"""The whole job against the bare model: what storing costs.

The floor is forward passes of the same blocks over the same length-sorted batches, already
tokenised and padded: no hook, no pooling, no writing. Both run in one process on the same weights;
the job's own loading of them is left out, which the floor does not pay either. Rounds are short and
many, since machines get faster and slower within a minute by more than the job adds; what part of
the job's own time is no forward pass depends on that least.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from axes.ingest.forward.batching import pad, plan_batches
from axes.ingest.forward.recording import run_backbone
from axes.ingest.forward.templates import Template, pad_id, render
from axes.ingest.requests import ActivationRequest
from axes.warehouse.connection import connect
from benchmarks.ingest.workload import Workload, workload
from benchmarks.run import Figure, alternate, interval_figure, ratios, seconds

MODELS = ("smollm2-135m", "gemma3-270m")
PROMPT_COUNT = 500
ROUNDS = 12
GOAL = 1.03


def measure() -> Iterator[Figure]:
    """Of each model the job over the floor, all layers, and its time beside the passes."""
    for model in MODELS:
        with workload(model, PROMPT_COUNT) as work:
            over, beside = over_floor(work)
        conditions = f"{model}, {PROMPT_COUNT} prompts"
        name = "ingest job / bare forward passes"
        yield interval_figure(name, over, GOAL, "lower", conditions)
        name = "share of the ingest job that is no forward pass"
        yield interval_figure(name, beside, None, "lower", conditions)


def over_floor(
    work: Workload, token_budget: int = ActivationRequest.token_budget
) -> tuple[list[float], list[float]]:
    """By round: the seconds of the job over those of the bare passes, and its share beside them."""
    batches, beside = _batches(work, token_budget), list[float]()
    work.warm_up()
    floor, job = alternate(
        ROUNDS,
        lambda: seconds(lambda: _forward(work, batches)),
        lambda: _job(work, token_budget, beside),
    )
    return ratios(job, floor), beside


def _job(work: Workload, token_budget: int, beside: list[float]) -> float:
    with work.fresh_root() as root:
        taken = seconds(lambda: work.run_job(root, token_budget=token_budget))
        sql = "select stage_seconds.forward from v_runs where stage_seconds is not null"
        ((forward,),) = connect(root).execute(sql).fetchall()
    beside.append(1 - forward / taken)
    return taken


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
