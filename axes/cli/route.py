"""`axes route` and `axes compare`: several models on the same prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import MODEL, PROMPT_SET, format_option, root_option

if TYPE_CHECKING:
    from axes.analysis.routing.responses import AnswerQuery
    from axes.warehouse.connection import Connection

# What `axes route` prints, and `axes sql` prints again.
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


def _answer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which answers are read, what is their outcome, and what is calibrated on."""
    for option in (
        click.option("--allow-missing", is_flag=True, help="Go on where rows are missing."),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option(
            "--method",
            type=click.Choice(("platt", "isotonic")),
            default="platt",
            show_default=True,
            help="How a projection becomes a chance.",
        ),
        click.option(
            "--fraction",
            type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
            default=0.5,
            show_default=True,
            help="Part of the prompts that is calibrated on, where --calibrate is not given.",
        ),
        click.option(
            "--calibrate",
            type=PROMPT_SET,
            help="Set to calibrate on; shares no prompt with --prompts.",
        ),
        click.option("--max-new-tokens", type=int, help="Only answers of this limit."),
        click.option(
            "--template", "templates", multiple=True, help="Only answers of these; repeatable."
        ),
        click.option("--limit", type=click.IntRange(min=1), help="First so many prompts of a set."),
        click.option(
            "--statistic",
            type=click.Choice(("mean", "last", "max")),
            default="mean",
            show_default=True,
            help="How the projections of an answer's tokens become one.",
        ),
        click.option("--axis", help="Id or name; default: the newest universal one."),
        click.option(
            "--refusals",
            default="refusal_substring",
            show_default=True,
            help="Labeler whose positive class is a refusal.",
        ),
        click.option(
            "--negated", is_flag=True, help="The outcome is the labeler's negative class."
        ),
        click.option(
            "--only",
            type=click.Choice(("positive", "negative")),
            help="Only prompts of this class, by the prompt's own label.",
        ),
        click.option(
            "--labeler", required=True, help="Labels of completions; positive is the outcome."
        ),
        click.option(
            "--prompts", type=PROMPT_SET, required=True, help="Prompt set that the models answered."
        ),
        click.option(
            "--model",
            "models",
            type=MODEL,
            multiple=True,
            help="Repeatable; default: all with answers.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@_answer_options
@click.option(
    "--cost",
    default="parameter_count",
    show_default=True,
    help="tokens, a number of the table models, or FILE:COLUMN (columns model, COLUMN, and "
    "prompt_id where it differs between prompts).",
)
@click.option("--max-cost", type=float, help="Dearest model that may answer.")
@click.option("--quality", help="As --cost.")
@click.option("--min-quality", type=float, help="Poorest model that may answer.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    show_default=True,
    help="Take the cheapest model within this chance of the lowest.",
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
    """Which model should answer which prompt: policies compared on stored answers.

    Each prompt goes to the model whose answer (or whose reading of the prompt) is least likely to
    have the outcome, by its projection and a calibration of its own, fitted on other prompts.
    `gain` is over the model that was best on those; `_raw` policies skip the calibration.

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
    prompts, asked, calibration = _asked(connection, **answer_options)
    routing_id, notes = run_routing(
        root,
        prompts,
        asked,
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
    """Rank models by what they answer to the same prompts, lowest chance of the outcome first.

    Each model's projections are calibrated on answers of its own. Read the warnings first, and
    `outcome`, which is what the labeler says of the same answers.

    \b
    axes compare --prompts demo_safety --labeler judge --limit 120
    """
    from axes.analysis.routing.model_ranking import run_comparison
    from axes.warehouse.connection import connect, query
    from axes.warehouse.render import show

    connection = connect(root)
    prompts, asked, calibration = _asked(connection, **answer_options)
    scoring_id, notes = run_comparison(root, prompts, asked, **calibration)
    show(
        query(connection, COMPARISON_TABLE.replace("{scoring_id}", scoring_id)),
        output_format,
        cell_width=200,
    )
    _say(notes, f"scoring {scoring_id}")


def _asked(
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
    """The prompt set, the answers asked for, and how they are calibrated."""
    from axes.analysis.routing.responses import AnswerQuery, axis_models, shared_axis

    axis_id = shared_axis(connection, axis)["axis_id"]
    asked = AnswerQuery(
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
    return prompts, asked, calibration


def _say(notes: tuple[str, ...], result: str) -> None:
    for note in notes:
        click.echo(note, err=True)
    click.echo(result, err=True)
