"""Several models on the same prompts: route prompts between them, or rank them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import (
    AXIS,
    CALIBRATIONS,
    LABELER,
    PROMPT_SET,
    allow_missing_option,
    fit_fraction_option,
    format_option,
    limit_option,
    models_option,
    prompts_option,
    root_option,
    seed_option,
    together,
)

if TYPE_CHECKING:
    from axes.analysis.routing.responses import AnswerQuery
    from axes.warehouse.connection import Connection

# What `axes route` and `axes compare` print, and `axes sql` prints again.
ROUTING_TABLE = """
select
    policy, outcome, outcome_lower, outcome_upper, regret, gain, gain_lower, gain_upper,
    over_raw, refusal, cost, cost_of_choice, prompt_count
from v_routing
where routing_id = '{routing_id}'
order by outcome, policy
"""

COMPARISON_TABLE = """
select
    rank, model, probability, probability_lower, probability_upper, first, outcome,
    outcome_lower, outcome_upper, prompt_probability, elevation, refusal, alignment_r2, warnings
from v_comparison
where scoring_id = '{scoring_id}'
order by rank, model
"""


_answer_options = together(
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
        "--negated", is_flag=True, help="Use the labeler's negative class as the outcome."
    ),
    click.option(
        "--refusals",
        type=LABELER,
        default="refusal_substring",
        show_default=True,
        help="Labeler whose positive class is a refusal.",
    ),
    click.option(
        "--axis", type=AXIS, help="Name, id, or start of one. Default: the latest universal axis."
    ),
    click.option(
        "--statistic",
        type=click.Choice(("mean", "last", "max")),
        default="mean",
        show_default=True,
        help="How the projections of a completion's tokens are pooled to one number.",
    ),
    limit_option,
    click.option(
        "--template", "templates", multiple=True, help="Only completions under this; repeatable."
    ),
    click.option("--max-new-tokens", type=int, help="Only completions generated with this limit."),
    click.option(
        "--calibration-prompts",
        "calibrate",
        type=PROMPT_SET,
        help="Prompt set to calibrate on instead of a part of --prompts; must share no prompt.",
    ),
    fit_fraction_option(),
    click.option(
        "--calibration",
        "method",
        type=click.Choice(CALIBRATIONS[:2]),
        default="platt",
        show_default=True,
        help="How a projection becomes a probability.",
    ),
    seed_option,
    allow_missing_option,
)


@click.command()
@_answer_options
@click.option(
    "--cost",
    default="parameter_count",
    show_default=True,
    help="Cost of a completion: tokens, a numeric column of the table models, or FILE:COLUMN (a "
    "file with columns model, COLUMN, and prompt_id where costs differ between prompts).",
)
@click.option("--max-cost", type=float, help="Exclude models that cost more.")
@click.option("--quality", help="Quality of a model, in the same forms as --cost.")
@click.option("--min-quality", type=float, help="Exclude models with a lower quality.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    show_default=True,
    help="Choose the cheapest model whose probability is within this of the lowest.",
)
@root_option
@format_option
def route(
    cost: str,
    max_cost: float | None,
    quality: str | None,
    min_quality: float | None,
    tolerance: float,
    root: Path,
    output_format: str,
    **answer_options: Any,
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
    from axes.warehouse.connection import connect, query
    from axes.warehouse.render import show

    connection = connect(root)
    if min_quality is not None and quality is None:
        raise click.UsageError("--min-quality needs --quality")
    prompts, answers, calibration = _answer_query(connection, **answer_options)
    routing_id, notes = run_routing(
        root,
        prompts,
        answers,
        cost=cost,
        quality=quality,
        limits=Limits(max_cost, min_quality, tolerance),
        **calibration,
    )
    show(query(connection, ROUTING_TABLE.replace("{routing_id}", routing_id)), output_format)
    _say(notes, f"routing {routing_id}")


@click.command()
@_answer_options
@root_option
@format_option
def compare(root: Path, output_format: str, **answer_options: Any) -> None:
    """Rank models by their completions of the same prompts, lowest outcome probability first.

    Each model's projections are calibrated on that model's completions. Read the warnings first,
    and compare with `outcome`, the rate that the labeler gives for the same completions.

    \b
    axes compare --prompts demo_safety --labeler judge --limit 120
    """
    from axes.analysis.routing.model_ranking import run_comparison
    from axes.warehouse.connection import connect, query
    from axes.warehouse.render import show

    connection = connect(root)
    prompts, answers, calibration = _answer_query(connection, **answer_options)
    scoring_id, notes = run_comparison(root, prompts, answers, **calibration)
    show(
        query(connection, COMPARISON_TABLE.replace("{scoring_id}", scoring_id)),
        output_format,
        cell_width=200,
    )
    _say(notes, f"scoring {scoring_id}")


def _answer_query(
    connection: Connection,
    *,
    models: tuple[str, ...],
    prompts: str,
    labeler: str,
    negated: bool,
    refusals: str,
    only: str | None,
    axis: str | None,
    statistic: str,
    limit: int | None,
    templates: tuple[str, ...],
    max_new_tokens: int | None,
    calibrate: str | None,
    fraction: float,
    method: str,
    seed: int,
    allow_missing: bool,
) -> tuple[str, AnswerQuery, dict[str, Any]]:
    """The prompt set, the query for completions, and how they are calibrated."""
    from axes.analysis.routing.responses import AnswerQuery, axis_models, shared_axis

    axis_id = shared_axis(connection, axis)["axis_id"]
    answers = AnswerQuery(
        axis_id=axis_id,
        models=tuple(sorted(set(models))) or axis_models(connection, axis_id),
        labeler=labeler,
        statistic=statistic,
        is_negated=negated,
        templates=tuple(sorted(set(templates))),
        max_new_tokens=max_new_tokens,
        refusals=refusals,
        only=None if only is None else only == "positive",
        limit=limit,
        allow_missing=allow_missing,
    )
    calibration = {
        "calibrate_on": calibrate,
        "fraction": fraction,
        "method": method,
        "seed": seed,
    }
    return prompts, answers, calibration


def _say(notes: tuple[str, ...], result: str) -> None:
    for note in notes:
        click.echo(note, err=True)
    click.echo(result, err=True)
