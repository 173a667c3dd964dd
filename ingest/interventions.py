"""The job: steer a model along axes, by many strengths, and store what becomes of it.

Of a labelled set of prompts it measures how likely the answer opens with one of some phrases and
how far the steered model's own last activations have moved; of benign texts, how far the
next-token distributions moved (KL) and how well the texts are still predicted; of greedy
completions, where asked for, how much they repeat themselves, and it stores their text, so that
labelers can say the rest.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ingest import outcomes
from ingest.batching import pad, plan_batches, positions
from ingest.generation import Sampling, generate
from ingest.jobs import IngestSummary, Job, non_finite, open_job, stops_between_batches
from ingest.models import LoadedModel, require_layers
from ingest.prompts import read_prompts
from ingest.recording import block_points, record, takes_argument
from ingest.resuming import resume_after
from ingest.steering import Intervention, steer
from ingest.templates import Rendered, Template, pad_id
from warehouse.connection import connect_tables, query, rows, vectors
from warehouse.errors import AxisError, ModelError
from warehouse.locks import committing
from warehouse.progress import track
from warehouse.runs import Run, record_run
from warehouse.sites import RESID_POST
from warehouse.writer import content_key, rows_table, write_rows

COMMAND = "ingest interventions"

# Logits of one pass at most, in numbers: with what is computed from them a gigabyte.
_LOGITS = 1 << 26
_TAIL = 5


@dataclass(frozen=True)
class Change:
    """What is done, apart from the axis, the layers and how strongly."""

    mode: str = "add"
    positions: str = "all"
    above: float | None = None
    condition: str | None = None


@dataclass(frozen=True)
class Sweep:
    """One axis at one set of blocks under several strengths; without an axis, the model as it is.

    `unit` is what a strength of 1 is; `completes` says whether completions are made too.
    """

    axis_id: str | None = None
    vector: Tensor | None = None
    layers: tuple[int, ...] = ()
    strengths: tuple[float, ...] = (0.0,)
    unit: float | None = None
    change: Change = Change("none")
    completes: bool = True

    def described(self, model_id: str, template: str, strength: float) -> dict[str, Any]:
        """The columns that say what was done, and the id that is a hash of them."""
        columns = {
            "model_id": model_id,
            "axis_id": self.axis_id,
            "layers": ",".join(map(str, self.layers)),
            "strength": strength,
            "unit": self.unit,
            "template": template,
            **vars(self.change),
        }
        return {"intervention_id": content_key(columns), **columns}

    def interventions(self, strengths: Tensor) -> list[Intervention]:
        """For a batch with these strengths, one for each row."""
        if self.vector is None:
            return []
        change = self.change
        return [
            Intervention(
                self.vector,
                self.layers,
                change.mode,
                strengths,
                unit=self.unit or 1.0,
                positions=change.positions,
                above=change.above,
                condition=change.condition or "position",
            )
        ]


def ingest_interventions(
    root: Path,
    spec: Any,
    prompt_set: str,
    benign_set: str,
    *,
    axis_ids: Sequence[str],
    strengths: Sequence[float],
    layers: Sequence[int] | None = None,
    change: Change | None = None,
    template: str = "chat",
    system: str | None = None,
    limit: int | None = None,
    benign_limit: int | None = 16,
    completed_axis_ids: Sequence[str] = (),
    max_new_tokens: int = 32,
    openers: str = "refusal",
    device: str | None = None,
    dtype: str | None = None,
    token_budget: int = 2048,
    skip_unusable: bool = False,
) -> IngestSummary:
    """Measure each axis under each strength at each of `layers` (default: the axis's own).

    `ablate` takes the axis from all of `layers` at once (default: every block). Axes lie in the
    model's own space. Completions of `max_new_tokens` are made for `completed_axis_ids` only, and
    for the unsteered model. What is there is not measured again. Raises `AxisError` for an axis
    that is not there or of another space, and as `ingest_activations` does.
    """
    change = change or Change()
    policy = Template(template, system)
    prompts = read_prompts(root, {prompt_set: limit})
    benign = read_prompts(root, {benign_set: benign_limit})
    job = open_job(root, spec, device, dtype)
    layer_count = job.layer_count()
    if layers is not None:
        require_layers(spec.name, layer_count, layers)
    parameters = {
        **job.described(),
        "prompt_set": prompt_set,
        "benign_set": benign_set,
        "axis_ids": list(axis_ids),
        "strengths": list(strengths),
        "layers": layers,
        **vars(change),
        "template": policy.name,
        "system": system,
        "limit": limit,
        "benign_limit": benign_limit,
        "completed_axis_ids": list(completed_axis_ids),
        "max_new_tokens": max_new_tokens,
        "openers": openers,
    }
    with (
        job.lock(),
        record_run(root, COMMAND, parameters, device=job.device) as run,
        stops_between_batches() as check_interrupt,
    ):
        sweeps = _sweeps(job, layer_count, axis_ids, strengths, layers, change, benign_set)
        completed = {None, *completed_axis_ids} if completed_axis_ids else set()
        sweeps = [replace(sweep, completes=sweep.axis_id in completed) for sweep in sweeps]
        sets = {
            policy: {prompt.prompt_id: prompt.text for prompt in prompts},
            Template(): {prompt.prompt_id: prompt.text for prompt in benign},
        }
        rendered = {
            chosen: job.render_usable(
                texts,
                chosen,
                skipped=run.skipped,
                skip_unusable=skip_unusable,
                room=max_new_tokens,
            )
            for chosen, texts in sets.items()
        }
        bench = _Bench(job, run, policy, token_budget, max_new_tokens, opener_texts(openers))
        work = [
            *bench.prompt_work(sweeps, rendered[policy]),
            *bench.benign_work(sweeps, rendered[Template()]),
            *bench.completion_work(sweeps, rendered[policy]),
        ]
        with track(f"intervene {spec.name}", len(work), "batches") as advance:
            for kind, batch, pending in work:
                with committing(root, spec.name):
                    kind(batch, pending)
                advance(1)
                check_interrupt()
    asked = len(prompts) + len(benign)
    return job.summary(run, asked, len({name for _, batch, _ in work for name in batch}))


def opener_texts(name: str) -> tuple[str, ...]:
    """The phrases of `openers.toml` under a name; raises `ModelError` for one that is not there."""
    known = tomllib.loads((Path(__file__).parent / "openers.toml").read_text())
    if name not in known:
        raise ModelError(f"no openers {name}: openers.toml has {', '.join(known)}")
    return tuple(known[name])
