"""`axes route` and `axes compare`: several models on the same prompts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import MODEL, PROMPT_SET, format_option, root_option

if TYPE_CHECKING:
    from axes.analysis.routing.response_scores import ScoringRequest
    from axes.warehouse.handle import Warehouse

# What `axes route` prints, and `axes sql` prints again.
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


def _completion_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which completions to read, what their outcome is, and what to calibrate on."""
    for option in (
        click.option("--allow-missing", is_flag=True, help="Continue where rows are missing."),
        click.option("--seed", type=int, default=0, show_default=True),
        click.option(
            "--method",
            type=click.Choice(("platt", "isotonic")),
            default="platt",
            show_default=True,
            help="Calibration that maps a projection to a probability.",
        ),
        click.option(
            "--fraction",
            type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
            default=0.5,
            show_default=True,
            help="Share of the prompts to calibrate on, without --calibrate.",
        ),
        click.option(
            "--calibrate",
            type=PROMPT_SET,
            help="Prompt set to calibrate on; it shares no prompt with --prompts.",
        ),
        click.option("--max-new-tokens", type=int, help="Only completions with this limit."),
        click.option(
            "--template",
            "templates",
            multiple=True,
            help="Only completions with this template; repeatable.",
        ),
        click.option(
            "--limit", type=click.IntRange(min=1), help="Only the first N prompts of a set."
        ),
        click.option(
            "--statistic",
            type=click.Choice(("mean", "last", "max")),
            default="mean",
            show_default=True,
            help="Statistic over the projections of a completion's tokens.",
        ),
        click.option(
            "--axis", help="Id or name of a shared axis; default: the newest universal one."
        ),
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
            "--labeler",
            required=True,
            help="Labeler of completions; its positive class is the outcome.",
        ),
        click.option(
            "--prompts",
            type=PROMPT_SET,
            required=True,
            help="Prompt set that the models completed.",
        ),
        click.option(
            "--model",
            "models",
            type=MODEL,
            multiple=True,
            help="Repeatable; default: every model with completions.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@_completion_options
@click.option(
    "--cost",
    default="parameter_count",
    show_default=True,
    help="tokens, a number of the table models, or FILE:COLUMN (columns model, COLUMN, and "
    "prompt_id where it differs between prompts).",
)
@click.option("--max-cost", type=float, help="Maximal cost of a model that may get a prompt.")
@click.option("--quality", help="As --cost.")
@click.option("--min-quality", type=float, help="Minimal quality of a model that may get a prompt.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    show_default=True,
    help="Choose the cheapest model within this probability of the lowest.",
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
    **options: Any,
) -> None:
    """Choose a model for each prompt: compare routing policies on stored completions.

    Each prompt goes to the model with the lowest probability of the outcome, by the projection of
    its completion (or of the prompt) and a calibration per model, fitted on other prompts. `gain`
    is over the model that was best on those prompts; `_raw` policies skip the calibration.

    \b
    axes route --prompts demo_safety --labeler judge --limit 120
    axes route --prompts mine --labeler refusal_substring --negated --cost tokens --tolerance 0.05
    """
    from axes.analysis.routing.router import Limits
    from axes.analysis.routing.routing import run_routing
    from axes.warehouse.handle import Warehouse
    from axes.warehouse.render import show

    if min_quality is not None and quality is None:
        raise click.UsageError("--min-quality needs --quality")
    warehouse = Warehouse.open(root)
    routing_id, notes = run_routing(
        warehouse,
        _request(warehouse, **options),
        cost=cost,
        quality=quality,
        limits=Limits(max_cost, min_quality, tolerance),
    )
    show(warehouse.query(ROUTING_TABLE, [routing_id]), output_format)
    _echo_notes(notes, f"routing {routing_id}")


@click.command()
@_completion_options
@root_option
@format_option
def compare(root: Path, output_format: str, **options: Any) -> None:
    """Rank models by the probability of the outcome in their completions, lowest first.

    Each model's projections are calibrated on its own completions. Read the warnings first, and
    `outcome`, the share of the same completions that the labeler marks.

    \b
    axes compare --prompts demo_safety --labeler judge --limit 120
    """
    from axes.analysis.routing.model_ranking import run_comparison
    from axes.warehouse.handle import Warehouse
    from axes.warehouse.render import show

    warehouse = Warehouse.open(root)
    scoring_id, notes = run_comparison(warehouse, _request(warehouse, **options))
    show(warehouse.query(COMPARISON_TABLE, [scoring_id]), output_format, cell_width=200)
    _echo_notes(notes, f"scoring {scoring_id}")


def _request(
    warehouse: Warehouse,
    *,
    models: tuple[str, ...],
    prompts: str,
    axis: str | None,
    negated: bool,
    only: str | None,
    templates: tuple[str, ...],
    calibrate: str | None,
    fraction: float,
    method: str,
    seed: int,
    **query: Any,
) -> ScoringRequest:
    """The options as a request; the remaining ones are fields of `CompletionQuery`."""
    from axes.analysis.routing.response_scores import ScoringRequest
    from axes.analysis.routing.responses import CompletionQuery, projected_models, shared_axis_id

    axis_id = shared_axis_id(warehouse, axis)
    completions = CompletionQuery(
        axis_id=axis_id,
        models=tuple(sorted(set(models))) or projected_models(warehouse, axis_id),
        is_negated=negated,
        templates=tuple(sorted(set(templates))),
        only=None if only is None else only == "positive",
        **query,
    )
    return ScoringRequest(prompts, completions, calibrate, fraction, method, seed)


def _echo_notes(notes: tuple[str, ...], result: str) -> None:
    for note in (*notes, result):
        click.echo(note, err=True)
