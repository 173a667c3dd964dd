"""`axes intervene`: parse, let models be steered and the outcomes be judged, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from axes.cli.options import PROMPT_SET, format_option, loading_options, model_spec, root_option
from axes.ingest.requests import (
    CONDITIONS,
    STEERED_POSITIONS,
    STEERING_MODES,
    TEMPLATES,
    InterventionRequest,
)

# What is printed: the slope over all strengths, and the effect of the highest.
PRINTED = """
select
    axis_name, layers, metric, prompts_class, strength, unsteered, estimate, lower, upper,
    random_lower, random_upper, p_value, prompt_count, verdict
from v_interventions
where
    experiment_id = '{experiment_id}' and role = 'axis'
    and coalesce(strength = {highest}, true)
order by axis_name, layers, prompts_class desc, metric, strength nulls first
"""


class _Numbers(click.ParamType):
    """A comma list of numbers of a kind, such as -0.1,0.1."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[float, ...]:
        try:
            return tuple(dict.fromkeys(self._kind(part) for part in str(value).split(",")))
        except ValueError:
            self.fail(f"{value}: a comma list of numbers is needed", param, context)


@click.command()
@loading_options
@click.option(
    "--axis",
    "axes",
    multiple=True,
    required=True,
    help="Id or name; repeatable. One of another model's space is pulled back.",
)
@click.option(
    "--prompts", "prompt_set", type=PROMPT_SET, required=True, help="Labelled set that is answered."
)
@click.option(
    "--benign", "benign_set", type=PROMPT_SET, required=True, help="Set whose texts are only read."
)
@click.option(
    "--strengths",
    type=_Numbers(float),
    default=",".join(map(str, InterventionRequest.strengths)),
    show_default=True,
    help="Comma list, in median norms of the layer; for ablate the share that is taken away.",
)
@click.option("--layers", type=_Numbers(int), help="Comma list. Default: the axis's; ablate: all.")
@click.option(
    "--mode",
    type=click.Choice(STEERING_MODES),
    default=InterventionRequest.mode,
    show_default=True,
    help="Move along the axis, take its component away, or set it.",
)
@click.option(
    "--positions",
    type=click.Choice(STEERED_POSITIONS),
    default=InterventionRequest.positions,
    show_default=True,
    help="Which tokens are changed.",
)
@click.option("--above", type=float, help="Only what projects higher than this, in median norms.")
@click.option(
    "--condition",
    type=click.Choice(CONDITIONS),
    default=InterventionRequest.condition,
    show_default=True,
    help="With --above: each token decides for itself, or the prompt's last for its row.",
)
@click.option(
    "--pull-back",
    "pull_backs",
    type=click.Choice(("transpose", "pseudo_inverse")),
    multiple=True,
    default=("transpose", "pseudo_inverse"),
    show_default=True,
    help="How an axis comes back through an alignment; repeatable.",
)
@click.option("--random", "random_count", type=click.IntRange(min=0), default=20, show_default=True)
@click.option(
    "--shuffled", "shuffled_count", type=click.IntRange(min=0), default=5, show_default=True
)
@click.option(
    "--orthogonal", "orthogonal_count", type=click.IntRange(min=0), default=5, show_default=True
)
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    default=InterventionRequest.template,
    show_default=True,
)
@click.option(
    "--system",
    "system_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a system prompt for --template chat.",
)
@click.option("--skip-unusable", is_flag=True, help="Leave out prompts that are too long.")
@click.option("--limit", type=click.IntRange(min=1), help="First prompts of the set only.")
@click.option(
    "--benign-limit",
    type=click.IntRange(min=1),
    default=InterventionRequest.benign_limit,
    show_default=True,
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=0),
    default=InterventionRequest.max_new_tokens,
    show_default=True,
    help="Length of greedy completions along the axes; 0: none are made.",
)
@click.option("--complete-controls", is_flag=True, help="Completions along the controls too.")
@click.option(
    "--openers",
    default=InterventionRequest.openers,
    show_default=True,
    help="Phrases of ingest/openers.toml.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of controls and intervals.")
@click.option(
    "--token-budget",
    type=click.IntRange(min=1),
    default=InterventionRequest.token_budget,
    show_default=True,
)
@root_option
@format_option
def intervene(
    model: str,
    axes: tuple[str, ...],
    prompt_set: str,
    benign_set: str,
    strengths: tuple[float, ...],
    layers: tuple[int, ...] | None,
    pull_backs: tuple[str, ...],
    random_count: int,
    shuffled_count: int,
    orthogonal_count: int,
    max_new_tokens: int,
    complete_controls: bool,
    seed: int,
    system_file: Path | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Steer MODEL along axes by many strengths, beside controls, and judge what it does.

    Measured are how likely answers open as the phrases do, KL from the unsteered model and
    perplexity on benign texts, how far the last block's activations move, and with
    --max-new-tokens repetition and refusals of completions. What was measured before is not
    measured again. See docs/interventions.md.

    \b
    axes intervene smollm2-135m --axis native/smollm2-135m/23/demo_safety \\
      --prompts demo_safety --limit 48 --benign demo_alignment
    """
    from axes.analysis.steering.controls import register_directions
    from axes.analysis.steering.effects import Experiment, judge
    from axes.ingest.generation.interventions import ingest_interventions
    from axes.ingest.labels.labeling import Scope
    from axes.ingest.labels.refusals import label_refusals
    from axes.ingest.models.registry import known_as
    from axes.ingest.prompts import import_ready_sets
    from axes.warehouse.connection import connect, query
    from axes.warehouse.render import show

    spec = model_spec(model, options)
    options["system"] = None if system_file is None else system_file.read_text().strip()
    import_ready_sets(root, [prompt_set, benign_set])
    model_id, roles = register_directions(
        root,
        known_as(model),
        axes,
        pull_backs=pull_backs,
        counts={
            "random": random_count,
            "shuffled_labels": shuffled_count,
            "orthogonal": orthogonal_count,
        },
        prompt_set=prompt_set,
        seed=seed,
    )
    own = [axis_id for axis_id, role in roles.items() if role == "axis"]
    completed = list(roles) if complete_controls else own
    request = InterventionRequest(
        prompt_set=prompt_set,
        benign_set=benign_set,
        axis_ids=list(roles),
        strengths=strengths,
        layers=layers,
        completed_axis_ids=completed if max_new_tokens else [],
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
        strengths=strengths,
        prompt_set=prompt_set,
        benign_set=benign_set,
        template=request.rendering.name,
        new_tokens=max_new_tokens,
        seed=seed,
        **vars(request.change),
    )
    experiment_id = judge(root, experiment)
    statement = PRINTED.format(experiment_id=experiment_id, highest=max(strengths))
    show(query(connect(root), statement), output_format)
    click.echo(f"experiment {experiment_id}", err=True)
