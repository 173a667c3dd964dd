"""`axes explain`: features, tokens and prompts that say what an axis may stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import (
    COUNT,
    FILE,
    MODEL,
    axis_argument,
    device_option,
    dtype_option,
    prints,
    source_option,
    with_warehouse,
)
from axes.ingest.models.registry import resolve
from axes.ingest.requests import ModelRequest
from axes.warehouse.errors import AxisError
from axes.warehouse.render import echo

if TYPE_CHECKING:
    from axes.warehouse.axes import Axis, AxisReadout
    from axes.warehouse.handle import Warehouse

_HIDDEN = "[hidden]"
# Of a generated token, for its mean to be more than one place.
_MIN_COUNT = 3

# Ranks count from the highest, and below zero from the lowest. `{positive}`: what stays hidden.
_ENDS = """
, ranked as (
    select
        *,
        row_number() over (order by value desc, key) as from_top,
        row_number() over (order by value, key) as from_bottom
    from valued
)
select * exclude (key, from_top, from_bottom),
    if(from_top <= from_bottom, from_top, -from_bottom) as rank
from ranked
where least(from_top, from_bottom) <= $count
order by from_top
"""
_PROMPTS = f"""
with valued as (
    select
        prompt_id as key, prompt_id, projection as value,
        if(prompt_id in ({{positive}}), '{_HIDDEN}', (
            select min(text) from prompts where prompts.prompt_id = projections.prompt_id
        )) as text
    from projections
    where axis_id = $axis_id and model = $model and model_id = $model_id
)
{_ENDS}
"""
# Tokens of completions of positive prompts are as hidden as these are.
_TOKENS = f"""
with valued as (
    select tokens.token as key, tokens.token as text, avg(projection) as value
    from token_projections as projected
    inner join generations using (model, generation_id)
    inner join generation_tokens as tokens using (model, generation_id, step, layer)
    where
        projected.axis_id = $axis_id and projected.model = $model and model_id = $model_id
        and prompt_id not in ({{positive}})
    group by tokens.token having count(*) >= {_MIN_COUNT}
)
{_ENDS}
"""


@dataclass(frozen=True)
class Explanation:
    """A feature, a token of the vocabulary, a prompt, or a generated token, by `part`."""

    part: str
    rank: int
    text: str
    value: float
    left: float | None = None
    left_random: float | None = None
    prompt_id: str | None = None


@click.command()
@axis_argument
@click.option(
    "--sae",
    type=FILE,
    help="Sparse autoencoder of the axis's layer: the features that the axis is made of.",
)
@click.option(
    "--model",
    type=MODEL,
    help="Model to load for the tokens of the unembedding. Default: none is loaded, and prompts "
    "are of the axis's model.",
)
@source_option
@device_option
@dtype_option
@click.option("--count", type=COUNT, default=10, help="Features, and rows at each end.")
@with_warehouse
@prints
def explain(
    axis: str, sae: Path | None, model: str | None, count: int, warehouse: Warehouse, **options: Any
) -> object:
    """Show features, tokens and prompts that say what AXIS may stand for; nothing is stored.

    Rows by part: feature (of --sae, by orthogonal matching pursuit, with the share of the axis that
    the features so far leave, and leave of random directions), vocabulary (with --model: the logit
    lens, in standard deviations), prompt (stored projections) and generated (stored tokens, mean
    projection). Ranks below zero count from the lowest. Prompts of the positive class are hidden.

    \b
    axes explain universal/demo/18/demo_safety/lambda-held_out
    axes explain native/smollm2-135m/18/demo_safety --sae FOLDER --model smollm2-135m
    """
    from axes.ingest.jobs import open_job
    from axes.warehouse.axes import find_axis, read_axis_readout

    found = find_axis(warehouse, axis)
    job = None
    if model is not None:
        spec = resolve(model, options.pop("source"))
        job = open_job(warehouse.root, spec, ModelRequest(**options))
    name = found.space.model if job is None else job.spec.name
    model_id = found.space.model_id if job is None else job.identity.model_id
    readout = read_axis_readout(warehouse, found, name, model_id)
    rows = [] if sae is None else _features(found, readout, sae, count)
    if job is not None:
        from axes.ingest.models.unembedding import near_tokens

        near = near_tokens(job.load(), readout.vector, count)
        rows += [Explanation("vocabulary", *each) for each in near]
    prompts = _stored(warehouse, "prompt", _PROMPTS, readout, count)
    if not prompts:
        to_do = f"axes score {readout.axis_id} --model {name}"
        echo(f"no prompts of {name} are projected on {readout.axis_name}: `{to_do}`", err=True)
    elif any(row.text == _HIDDEN for row in prompts):
        echo(f"texts of the positive class are {_HIDDEN}: the table prompts has them", err=True)
    return rows + prompts + _stored(warehouse, "generated", _TOKENS, readout, count)


def _features(axis: Axis, readout: AxisReadout, folder: Path, count: int) -> list[Explanation]:
    """What an autoencoder of the readout's layer makes of the axis."""
    import numpy as np

    from axes.analysis.exchange.formats.sae import open_sae, sae_folder
    from axes.analysis.methods.pursuit import decompose

    sae = open_sae(sae_folder(str(folder)))
    vector = readout.vector / np.linalg.norm(readout.vector)
    if (sae.d_model, sae.layer_at(axis.space.site)) != (len(vector), readout.layer):
        raise AxisError(
            f"{folder} is of {sae.d_model} numbers at {sae.hook}, and {axis.name} of {len(vector)} "
            f"at layer {readout.layer} of {readout.model} ({axis.space.site})"
        )
    return [
        Explanation("feature", rank, str(each.feature), *each[1:])
        for rank, each in enumerate(decompose(sae.decoder(), vector, count), 1)
    ]


def _stored(
    warehouse: Warehouse, part: str, statement: str, readout: AxisReadout, count: int
) -> list[Explanation]:
    from axes.explore.hiding import POSITIVE_PROMPTS

    names = ("axis_id", "model", "model_id")
    parameters = {name: getattr(readout, name) for name in names} | {"count": count}
    found = warehouse.query(statement.format(positive=POSITIVE_PROMPTS), parameters).to_pylist()
    return [Explanation(part=part, **row) for row in found]
