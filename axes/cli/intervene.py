"""`axes intervene`: steer a model along axes, measure the effect, compare with controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import (
    AXIS,
    PROMPT_SET,
    Command,
    Numbers,
    Options,
    format_option,
    limit_option,
    loading_options,
    model_spec,
    prompts_option,
    read_system,
    rendering_options,
    root_option,
    seed_option,
)
from axes.ingest.models.registry import known_as
from axes.ingest.requests import (
    CONDITIONS,
    STEERED_POSITIONS,
    STEERING_MODES,
    InterventionRequest,
)
from axes.warehouse.names import sql_literal
from axes.warehouse.render import show

if TYPE_CHECKING:
    from axes.analysis.steering.effects import Experiment

# Printed: the slope over all strengths, and the effect of the highest strength.
PRINTED = """
select
    axis_name, layers, metric, prompts_class, strength, unsteered, estimate, lower, upper,
    random_lower, random_upper, p_value, prompt_count, verdict
from v_interventions
where
    experiment_id = {experiment_id} and role = 'axis'
    and coalesce(strength = {highest}, true)
order by axis_name, layers, prompts_class desc, metric, strength nulls first
"""


def _control_option(name: str, default: int, help: str) -> Command:
    return click.option(
        f"--{name}", f"{name}_count", type=click.IntRange(min=0), default=default, help=help
    )


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
@click.option(
    "--benign",
    "benign_set",
    type=PROMPT_SET,
    required=True,
    help="Prompt set used to measure the side effects of steering (KL divergence and perplexity); "
    "nothing is generated from it.",
)
@click.option(
    "--strengths",
    type=Numbers(float),
    default=",".join(map(str, InterventionRequest.strengths)),
    help="Comma list, in units of the layer's median norm; for ablate, the share to remove.",
)
@click.option(
    "--layers",
    type=Numbers(),
    help="Comma list. Default: the layer of the axis; for ablate, every layer.",
)
@click.option(
    "--mode",
    type=click.Choice(STEERING_MODES),
    default=InterventionRequest.mode,
    help="Add to the component along the axis, remove it, or set it.",
)
@click.option(
    "--positions",
    type=click.Choice(STEERED_POSITIONS),
    default=InterventionRequest.positions,
    help="Which tokens are steered.",
)
@click.option(
    "--min-projection",
    "above",
    type=float,
    help="Steer only where the projection exceeds this, in units of the layer's median norm.",
)
@click.option(
    "--condition",
    type=click.Choice(CONDITIONS),
    default=InterventionRequest.condition,
    help="With --min-projection: test each token, or the prompt's last token for the whole row.",
)
@click.option(
    "--pull-back",
    "pull_backs",
    type=click.Choice(("transpose", "pseudo_inverse")),
    multiple=True,
    default=("transpose", "pseudo_inverse"),
    help="How an axis is pulled back through an alignment; repeatable.",
)
@_control_option("random", 20, "Random directions, as controls.")
@_control_option("shuffled", 5, "Directions fitted to shuffled labels, as controls.")
@_control_option("orthogonal", 5, "Random directions orthogonal to the axis, as controls.")
@rendering_options(InterventionRequest.template)
@limit_option
@click.option(
    "--benign-limit",
    type=click.IntRange(min=1),
    default=InterventionRequest.benign_limit,
    help="Use only the first prompts of the benign set.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=0),
    default=InterventionRequest.max_new_tokens,
    help="Length of the greedy completions along the axes; 0 generates none.",
)
@click.option(
    "--complete-controls", is_flag=True, help="Generate completions along the controls too."
)
@click.option(
    "--openers",
    default=InterventionRequest.openers,
    help="Opening phrases to score, a key of ingest/openers.toml.",
)
@seed_option
@click.option(
    "--token-budget",
    type=click.IntRange(min=1),
    default=InterventionRequest.token_budget,
    help="Max tokens in one batch, padding included.",
)
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

    spec = model_spec(model, options)
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
    printed = PRINTED.format(
        experiment_id=sql_literal(experiment_id), highest=max(experiment.strengths)
    )
    show(warehouse.query(printed), output_format)
    click.echo(f"experiment {experiment_id}", err=True)


def _register_directions(
    root: Path, model: str, prompt_set: str, seed: int, options: Options
) -> tuple[str, dict[str, str]]:
    """The model's id, and the role of each axis and control; their options are removed."""
    from axes.analysis.steering.controls import register_directions
    from axes.warehouse.handle import Warehouse

    counts = {
        "random": options.pop("random_count"),
        "shuffled_labels": options.pop("shuffled_count"),
        "orthogonal": options.pop("orthogonal_count"),
    }
    axes, pull_backs = options.pop("axes"), options.pop("pull_backs")
    return register_directions(
        Warehouse.open(root),
        known_as(model),
        axes,
        pull_backs=pull_backs,
        counts=counts,
        prompt_set=prompt_set,
        seed=seed,
    )
