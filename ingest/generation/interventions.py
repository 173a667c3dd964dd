"""The job: steer a model along axes, by many strengths, and store what becomes of it.

Of a labelled set of prompts it measures how likely the answer opens with one of some phrases and
how far the steered model's own last activations have moved; of benign texts, how far the
next-token distributions moved (KL) and how well the texts are still predicted; of greedy
completions, where asked for, how much they repeat themselves. Their text is stored, so that
labelers can say the rest.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from axes.ingest.forward.templates import Template
from axes.ingest.generation.sweeps import UNSTEERED, Change, read_sweeps
from axes.ingest.generation.trials import Trials
from axes.ingest.jobs import IngestSummary, open_job, stops_between_batches
from axes.ingest.models.load import require_layers
from axes.ingest.models.registry import ModelSpec
from axes.ingest.prompts import read_prompts
from axes.warehouse.errors import ModelError
from axes.warehouse.names import did_you_mean
from axes.warehouse.progress import track
from axes.warehouse.runs import record_run


def ingest_interventions(
    root: Path,
    spec: ModelSpec,
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
    model's own space. Completions of `max_new_tokens` are made for `completed_axis_ids`, and if
    there are any for the unsteered model. Texts of `benign_set` are read raw. What is there is not
    measured again. Raises `AxisError` for an axis that is not there or of another space, and as
    `ingest_activations` does.
    """
    change, policy = change or Change(), Template(template, system)
    phrases = opener_phrases(openers)
    prompts = read_prompts(root, {prompt_set: limit})
    benign = read_prompts(root, {benign_set: benign_limit})
    job = open_job(root, spec, device, dtype)
    layer_count = job.layer_count()
    require_layers(spec.name, layer_count, layers or ())
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
        record_run(root, "ingest interventions", parameters, device=job.device) as run,
        stops_between_batches() as check_interrupt,
    ):
        sweeps = read_sweeps(
            root,
            spec.name,
            job.identity.model_id,
            layer_count,
            axis_ids=axis_ids,
            strengths=strengths,
            layers=layers,
            change=change,
            benign_set=benign_set,
        )
        answered, texts = (
            {
                prompt_id: prompt.token_ids
                for prompt_id, prompt in job.render_usable(
                    {prompt.prompt_id: prompt.text for prompt in chosen},
                    rendering,
                    skipped=run.skipped,
                    skip_unusable=skip_unusable,
                    room=max_new_tokens,
                ).items()
            }
            for chosen, rendering in ((prompts, policy), (benign, Template()))
        )
        completed = [sweep for sweep in sweeps if sweep.axis_id in completed_axis_ids]
        trials = Trials(job, run, openers, phrases)
        work = [
            *trials.prompt_work([UNSTEERED, *sweeps], answered, policy.name, token_budget),
            *trials.text_work([UNSTEERED, *sweeps], texts, token_budget),
            *trials.completion_work(
                [UNSTEERED, *completed] if completed else [], answered, policy.name, max_new_tokens
            ),
        ]
        with track(f"intervene {spec.name}", len(work), "batches") as advance:
            for batch in work:
                batch()
                advance(1)
                check_interrupt()
    return job.summary(run, len(prompts) + len(benign), trials.new_count)


def opener_phrases(name: str) -> tuple[str, ...]:
    """The phrases of `openers.toml` under a name; raises `ModelError` for one that is not there."""
    known = tomllib.loads((Path(__file__).parents[1] / "openers.toml").read_text())
    if name not in known:
        raise ModelError(
            f"no openers {name}{did_you_mean(name, known)}: there are {', '.join(known)}"
        )
    return tuple(known[name])
