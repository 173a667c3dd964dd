"""Several models on the same prompts: route prompts between them, or rank them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import (
    AXIS,
    CALIBRATIONS,
    LABELER,
    PROMPT_SET,
    SHARE,
    allow_missing_option,
    fit_fraction_option,
    format_option,
    limit_option,
    models_option,
    prompts_option,
    seed_option,
    show_query,
    together,
    with_warehouse,
)
from axes.warehouse.render import echo, echo_id

if TYPE_CHECKING:
    from axes.analysis.routing.response_scores import ScoringRequest
    from axes.warehouse.handle import Warehouse

# What `axes route` and `axes compare` print, and `axes sql` prints again.
ROUTING_TABLE = """
select
    policy, outcome, outcome_lower, outcome_upper, regret, gain, gain_lower, gain_upper,
    over_raw, refusal, cost, cost_of_choice, prompt_count
from v_routing
where routing_id = ?
order by outcome, policy
"""

COMPARISON_TABLE = """
select
    rank, model, probability, probability_lower, probability_upper, first, outcome,
    outcome_lower, outcome_upper, prompt_probability, elevation, refusal, alignment_r2, warnings
from v_comparison
where scoring_id = ?
order by rank, model
"""


_completion_options = together(
    models_option("Repeatable. Default: every model with completions."),
    prompts_option("Prompt set that the models completed.", required=True),
    click.option(
        "--labeler",
        type=LABELER,
        required=True,
        help="Labeler of the completions; its positive class is the outcome.",
    ),
    click.option(
        "--only",
        type=click.Choice(("positive", "negative")),
        help="Use only prompts of this class, by the label of the prompt.",
    ),
    click.option(
        "--negated",
        "is_negated",
        is_flag=True,
        help="Use the labeler's negative class as the outcome.",
    ),
    click.option(
        "--refusals",
        type=LABELER,
        default="refusal_substring",
        help="Labeler whose positive class is a refusal.",
    ),
    click.option(
        "--axis", type=AXIS, help="Name, id, or start of one. Default: the latest universal axis."
    ),
    click.option(
        "--statistic",
        type=click.Choice(("mean", "last", "max")),
        default="mean",
        help="How the projections of a completion's tokens are pooled to one number.",
    ),
    limit_option,
    click.option(
        "--template", "templates", multiple=True, help="Only completions under this; repeatable."
    ),
    click.option("--max-new-tokens", type=int, help="Only completions generated with this limit."),
    click.option(
        "--calibration-prompts",
        "calibrate_on",
        type=PROMPT_SET,
        help="Prompt set to calibrate on instead of a part of --prompts; must share no prompt.",
    ),
    fit_fraction_option(),
    click.option(
        "--calibration",
        "method",
        type=click.Choice(CALIBRATIONS[:2]),
        default="platt",
        help="How a projection becomes a probability.",
    ),
    seed_option,
    allow_missing_option,
)


@click.command()
@_completion_options
@click.option(
    "--cost",
    default="parameter_count",
    help="Cost of a completion: tokens, a numeric column of the table models, or FILE:COLUMN (a "
    "file with columns model, COLUMN, and prompt_id where costs differ between prompts).",
)
@click.option("--max-cost", type=float, help="Exclude models that cost more.")
@click.option("--quality", help="Quality of a model, in the same forms as --cost.")
@click.option("--min-quality", type=float, help="Exclude models with a lower quality.")
@click.option(
    "--tolerance",
    type=SHARE,
    default=0.0,
    help="Choose the cheapest model whose probability is within this of the lowest.",
)
@with_warehouse
@format_option
def route(
    cost: str,
    max_cost: float | None,
    quality: str | None,
    min_quality: float | None,
    tolerance: float,
    warehouse: Warehouse,
    output_format: str,
    **options: Any,
) -> None:
    """Compare policies that choose a model for each prompt, on stored completions.

    A policy chooses the model whose completion (or whose prompt activation) is least likely to have
    the outcome, from its projection and the model's calibration, which is fitted on other prompts.
    `gain` is relative to the model that was best on those prompts; `_raw` policies skip the
    calibration.

    \b
    axes route --prompts demo_safety --labeler judge --limit 120
    axes route --prompts mine --labeler refusal_substring --negated --cost tokens --tolerance 0.05
    """
    from axes.analysis.routing.router import Limits
    from axes.analysis.routing.routing import run_routing

    if min_quality is not None and quality is None:
        raise click.UsageError("--min-quality needs --quality")
    routing_id, notes = run_routing(
        warehouse,
        _request(warehouse, **options),
        cost=cost,
        quality=quality,
        limits=Limits(max_cost, min_quality, tolerance),
    )
    show_query(warehouse, ROUTING_TABLE, [routing_id], output_format)
    _echo_notes(notes, "routing", routing_id)


@click.command()
@_completion_options
@with_warehouse
@format_option
def compare(warehouse: Warehouse, output_format: str, **options: Any) -> None:
    """Rank models by the probability of the outcome in their completions, lowest first.

    Each model's projections are calibrated on its own completions. Read the warnings first, and
    `outcome`, the share of the same completions that the labeler marks.

    \b
    axes compare --prompts demo_safety --labeler judge --limit 120
    """
    from axes.analysis.routing.model_ranking import run_comparison

    scoring_id, notes = run_comparison(warehouse, _request(warehouse, **options))
    show_query(warehouse, COMPARISON_TABLE, [scoring_id], output_format, cell_width=200)
    _echo_notes(notes, "scoring", scoring_id)


def _request(
    warehouse: Warehouse,
    *,
    models: tuple[str, ...],
    prompts: str,
    axis: str | None,
    only: str | None,
    templates: tuple[str, ...],
    **options: Any,
) -> ScoringRequest:
    """The options as a request: fields of `ScoringRequest` and of its `CompletionQuery`."""
    from axes.analysis.routing.response_scores import ScoringRequest
    from axes.analysis.routing.responses import CompletionQuery, projected_models, shared_axis_id

    calibration = {
        name: options.pop(name) for name in ("calibrate_on", "fraction", "method", "seed")
    }
    axis_id = shared_axis_id(warehouse, axis)
    completions = CompletionQuery(
        axis_id=axis_id,
        models=tuple(sorted(set(models))) or projected_models(warehouse, axis_id),
        templates=tuple(sorted(set(templates))),
        only=None if only is None else only == "positive",
        **options,
    )
    return ScoringRequest(prompts, completions, **calibration)


def _echo_notes(notes: tuple[str, ...], kind: str, result_id: str) -> None:
    for note in notes:
        echo(note, err=True)
    echo_id(kind, result_id)
