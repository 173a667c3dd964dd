"""`axes intervene`: steer a model along axes, measure the effect, compare with controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import (
    AXIS,
    Command,
    Options,
    format_option,
    loading_options,
    model_spec,
    prompts_option,
    read_system,
    request_options,
    root_option,
    seed_option,
    show_query,
    system_option,
)
from axes.ingest.models.registry import known_as
from axes.ingest.requests import InterventionRequest
from axes.warehouse.render import echo_id

if TYPE_CHECKING:
    from axes.analysis.steering.effects import Experiment

# Printed: the slope over all strengths, and the effect of the highest strength.
PRINTED = """
select
    axis_name, layers, metric, prompts_class, strength, unsteered, estimate, lower, upper,
    random_lower, random_upper, p_value, control_p_value_adjusted, prompt_count, verdict
from v_interventions
where
    experiment_id = $experiment_id and role = 'axis'
    and coalesce(strength = $highest, true)
order by axis_name, layers, prompts_class desc, metric, strength nulls first
"""


def _control_option(role: str, default: int, help: str) -> Command:
    """How many controls of a role."""
    name = role.partition("_")[0]
    return click.option(f"--{name}", role, type=click.IntRange(min=0), default=default, help=help)


@click.command()
@loading_options
@click.option(
    "--axis",
    "axes",
    type=AXIS,
    multiple=True,
    required=True,
    help="Name or id; repeatable. An axis in another model's space is pulled back.",
)
@prompts_option("Labelled set to complete while steering.", required=True, name="prompt_set")
@system_option
@request_options(InterventionRequest)
@click.option(
    "--pull-back",
    "pull_backs",
    type=click.Choice(("transpose", "pseudo_inverse")),
    multiple=True,
    default=("transpose", "pseudo_inverse"),
    help="How an axis is pulled back through an alignment; repeatable.",
)
@_control_option("random", 20, "Random directions, as controls.")
@_control_option("shuffled_labels", 5, "Directions fitted to shuffled labels, as controls.")
@_control_option("orthogonal", 5, "Random directions orthogonal to the axis, as controls.")
@_control_option(
    "covariance",
    0,
    "Random directions with the covariance of activations: 200 for the claim `steering`.",
)
@click.option(
    "--complete-controls", is_flag=True, help="Generate completions along the controls too."
)
@seed_option
@root_option
@format_option
def intervene(
    model: str,
    prompt_set: str,
    benign_set: str,
    max_new_tokens: int,
    complete_controls: bool,
    seed: int,
    system_file: Path | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Steer MODEL along axes at several strengths and compare the effect with control directions.

    Measures how likely completions open with the phrases, KL divergence from the unsteered model
    and perplexity on benign texts, how far the last block's activations move, and with
    --max-new-tokens the repetition and refusals of completions. See docs/interventions.md.

    \b
    axes intervene smollm2-135m --axis native/smollm2-135m/23/demo_safety \\
      --prompts demo_safety --limit 48 --benign demo_alignment
    """
    from axes.analysis.steering.effects import Experiment
    from axes.ingest.generation.interventions import ingest_interventions
    from axes.ingest.labels.labeling import Scope
    from axes.ingest.labels.refusals import label_refusals
    from axes.ingest.prompts import import_ready_sets

    spec = model_spec(model, options, root)
    options["system"] = read_system(system_file)
    import_ready_sets(root, [prompt_set, benign_set])
    model_id, roles = _register_directions(root, model, prompt_set, seed, options)
    completed = [axis_id for axis_id, role in roles.items() if complete_controls or role == "axis"]
    request = InterventionRequest(
        prompt_set=prompt_set,
        benign_set=benign_set,
        axis_ids=list(roles),
        completed_axis_ids=completed if max_new_tokens else (),
        max_new_tokens=max_new_tokens,
        **options,
    )
    ingest_interventions(root, spec, request)
    if max_new_tokens:
        label_refusals(root, scope=Scope(spec.name, prompt_set))
    experiment = Experiment(
        model=spec.name,
        model_id=model_id,
        roles=roles,
        strengths=tuple(request.strengths),
        prompt_set=prompt_set,
        benign_set=benign_set,
        template=request.rendering.name,
        new_tokens=max_new_tokens,
        seed=seed,
        **vars(request.change),
    )
    _show_effects(root, experiment, output_format)


def _show_effects(root: Path, experiment: Experiment, output_format: str) -> None:
    from axes.analysis.steering.effects import evaluate_experiment
    from axes.warehouse.handle import Warehouse

    warehouse = Warehouse.open(root)
    experiment_id = evaluate_experiment(warehouse, experiment)
    parameters = {"experiment_id": experiment_id, "highest": max(experiment.strengths)}
    show_query(warehouse, PRINTED, parameters, output_format)
    echo_id("experiment", experiment_id)


def _register_directions(
    root: Path, model: str, prompt_set: str, seed: int, options: Options
) -> tuple[str, dict[str, str]]:
    """The model's id, and the role of each axis and control; their options are removed."""
    from axes.analysis.steering.controls import CONTROLS, register_directions
    from axes.warehouse.handle import Warehouse

    return register_directions(
        Warehouse.open(root),
        known_as(model),
        options.pop("axes"),
        pull_backs=options.pop("pull_backs"),
        counts={role: options.pop(role) for role in CONTROLS},
        prompt_set=prompt_set,
        seed=seed,
    )
