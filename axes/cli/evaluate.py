"""Directions of one model, how two versions differ, and what an axis says of stored rows.

`axes fit`, `axes evaluate`, `axes diff`, `axes angles`, `axes score`, `axes calibrate` and
`axes transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.analysis.stats import CORRECTIONS
from axes.cli.options import (
    AXIS,
    CALIBRATIONS,
    COUNT,
    MODEL,
    Command,
    allow_missing_option,
    axis_argument,
    fit_fraction_option,
    format_option,
    memory_limit_option,
    model_argument,
    models_option,
    prints,
    prompt_sets_option,
    prompts_option,
    request_options,
    root_option,
    seed_option,
    show_query,
    with_warehouse,
)
from axes.cli.study import space_options, study_options
from axes.ingest.models.registry import known_as
from axes.ingest.requests import TokenRequest
from axes.warehouse.render import echo, echo_id, show_rows

if TYPE_CHECKING:
    from axes.warehouse.handle import Warehouse

_SUMMARY = """
select scorer, metric, layer, estimate, lower, upper, p_value, p_value_adjusted, is_in_sample
from evaluations
where study_id = $study_id and judged_on is null and component is null and (
    layer is null or layer = (
        select max(layer) from evaluations where study_id = $study_id and judged_on is not null
    )
)
order by metric, scorer
"""
_RANKS = """
select
    component as rank, scorer, metric, estimate, lower, upper, p_value, p_value_adjusted
from evaluations
where study_id = $study_id and component is not null
order by scorer, metric, rank
"""
_VERDICT = """
select scorer, model, prompt_set, estimate, lower, upper from evaluations
where
    study_id = ? and judged_on is null and layer is null
    and metric in ('auroc', 'auroc_difference')
"""
_SHOWN = {
    "summary": _SUMMARY,
    "layers": "from v_layer_tests where study_id = $study_id order by layer",
    "sources": "from v_source_transfer where study_id = $study_id order by fitted_on, judged_on",
    "ranks": _RANKS,
}
_CALIBRATIONS = """
select calibration_id, model, method, target, threshold, positive_count, negative_count
from calibrations
where list_contains(?, calibration_id)
order by model, method
"""
_TRANSFER_SHOWN = {
    "verdicts": "from v_transfer_verdicts where study_id = $study_id order by method",
    "matrix": (
        "from v_threshold_transfer where study_id = $study_id order by method, fitted_on, model"
    ),
    "curve": (
        "from v_labelled_curve where study_id = $study_id order by method, model, labelled_count"
    ),
}

_min_overlap_option = click.option(
    "--min-overlap",
    "least_overlap",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=0.5,
    help="Prompts whose sets of five-grams overlap by at least this (Jaccard) count as near "
    "duplicates and stay on one side of every split.",
)
_target_option = click.option(
    "--target",
    default="balanced_accuracy",
    help="Criterion for the threshold: balanced_accuracy (Youden's J), or a rate such as fpr=0.05.",
)
_projected_models_option = models_option(
    "NAME, NAME@ID or id; repeatable. Default: every model with projections on the axis."
)


def _show_option(statements: dict[str, str]) -> Command:
    return click.option(
        "--show",
        "shown",
        type=click.Choice(tuple(statements)),
        default=next(iter(statements)),
        help="Which of the stored results to print.",
    )


@click.command()
@model_argument
@prompts_option("Labelled prompt set.", required=True)
@study_options("evaluate", "direction", "site", "pooling", "template", "allow_missing")
@click.option(
    "--rank", type=COUNT, help="Also fit the subspace of so many dimensions, an axis for each."
)
@memory_limit_option
@root_option
@prints
def fit(model: str, prompts: str, root: Path, **options: Any) -> object:
    """Fit MODEL's direction at every layer, and project the prompts on it.

    With --rank, also the subspace of a concept that has several directions: `axes score` and
    `export` take its name, and its scores are in `v_subspace_scores`.

    \b
    axes fit smollm2-135m --prompts demo_safety
    axes fit smollm2-135m --prompts demo_safety --rank 3
    axes fit smollm2-135m --prompts demo_safety --direction whitened
    """
    from axes import api

    return api.fit(model, prompts, root=root, **options).table


@click.command()
@model_argument
@prompt_sets_option(
    "Labelled set; repeatable: further sets join the matrix of sources.", required=True
)
@click.option(
    "--by",
    type=click.Choice(("source", "category", "split")),
    default="source",
    help="Column that defines the sources in the matrix of sources.",
)
@request_options(TokenRequest, "layer_fraction")
@click.option(
    "--correction",
    type=click.Choice(tuple(CORRECTIONS)),
    default="holm",
    help="Correction of the p-values for testing every layer.",
)
@click.option(
    "--max-rank",
    type=COUNT,
    help="Also evaluate subspaces of 1 to so many dimensions (--show ranks).",
)
@space_options
@_show_option(_SHOWN)
@_min_overlap_option
@seed_option
@allow_missing_option
@with_warehouse
@format_option
def evaluate(
    model: str,
    prompt_sets: tuple[str, ...],
    shown: str,
    warehouse: Warehouse,
    output_format: str,
    **options: Any,
) -> None:
    """Evaluate MODEL's directions on prompts, layers and sources that they were not fitted on.

    Three evaluations: every layer out of fold, compared with word pairs and corrected for the
    number of layers; a layer chosen inside the training folds; and a matrix that fits on each
    source and evaluates on the others.

    \b
    axes evaluate smollm2-135m --prompts safety_600 --prompts harmbench
    axes evaluate smollm2-135m --prompts safety_600 --show sources
    axes evaluate smollm2-135m --prompts safety_600 --max-rank 5 --show ranks
    """
    from axes.analysis.study.robustness.held_out import EvaluationDefinition, run_evaluation

    definition = EvaluationDefinition(
        model=known_as(model), prompt_sets=tuple(dict.fromkeys(prompt_sets)), **options
    )
    study_id = run_evaluation(warehouse, definition)
    echo(_verdict(warehouse, study_id), err=output_format not in ("table", "markdown"))
    show_query(warehouse, _SHOWN[shown], {"study_id": study_id}, output_format)
    echo_id("evaluation", study_id)


def _verdict(warehouse: Warehouse, study_id: str) -> str:
    """What an evaluation says of the direction, in one sentence."""
    from axes.analysis.stats.baselines import STRONGEST

    rows = {row["scorer"]: row for row in warehouse.query(_VERDICT, [study_id]).to_pylist()}
    chosen = rows["native_layer_chosen"]
    claim = "separates {prompt_set}"
    if chosen["upper"] < 0.5:
        claim = "ranks {prompt_set} the wrong way round"
    elif chosen["lower"] <= 0.5:
        claim = "is not shown to separate {prompt_set}"
    elif rows[f"native_layer_chosen_minus_{STRONGEST}"]["lower"] > 0:
        claim += " better than its words"
    text = "{model}'s direction " + claim + ": AUROC {estimate:.3f} ({lower:.3f} to {upper:.3f})"
    words = rows[STRONGEST]["estimate"]
    return f"{text.format_map(chosen)} out of fold; of {STRONGEST}: {words:.3f}"


_DIFFERENCES = {
    "layers": "select * exclude (study_id, first, second, prompt_set) from v_model_differences "
    "where study_id = $study_id order by layer",
    "axes": "select axis_name, kind, moved, moved_lower, moved_upper, cosine, p_value, axis_share "
    "from v_axis_moves where study_id = $study_id order by abs(moved) desc nulls last, axis_name",
}


@click.command()
@click.argument("first", type=MODEL)
@click.argument("second", type=MODEL)
@prompts_option("Prompt set that both have; labels are not needed.", required=True)
@click.option("--to", "other_template", help="Template of SECOND. Default: that of FIRST.")
@request_options(TokenRequest, "layer_fraction")
@space_options
@click.option(
    "--show",
    "shown",
    type=click.Choice(("layers", "axes", "prompts")),
    default="layers",
    help="Norms by layer; what moved along each axis at the layer; the prompts that moved most.",
)
@click.option("--limit", type=click.IntRange(1), default=20, help="Prompts to show.")
@allow_missing_option
@with_warehouse
@format_option
def diff(
    first: str,
    second: str,
    shown: str,
    limit: int,
    warehouse: Warehouse,
    output_format: str,
    **options: Any,
) -> None:
    """Compare the activations of two versions of a model: SECOND minus FIRST.

    Base and tuned, an adapter and none, two dtypes, or (with --to) two templates. At the layer of
    --layer-fraction the mean difference and its first principal components become axes of the kind
    `difference`. A version is NAME or NAME@ID.

    \b
    axes diff qwen2.5-0.5b qwen2.5-0.5b-instruct --prompts demo_safety
    axes diff smollm2-135m smollm2-135m --to chat --prompts demo_safety --show axes
    """
    from axes.analysis.comparison.differences import (
        DifferenceDefinition,
        compare_models,
        moved_prompts,
    )

    definition = DifferenceDefinition(known_as(first), known_as(second), **options)
    study_id = compare_models(warehouse, definition)
    if shown == "prompts":
        show_rows(
            [vars(row) for row in moved_prompts(warehouse, definition)[:limit]], output_format
        )
    else:
        show_query(warehouse, _DIFFERENCES[shown], {"study_id": study_id}, output_format)
    echo_id("difference", study_id)


@click.command()
@click.argument("axis_a", type=AXIS)
@click.argument("axis_b", type=AXIS)
@with_warehouse
@prints
def angles(axis_a: str, axis_b: str, warehouse: Warehouse) -> object:
    """Print the principal angles between two subspaces (or axes) of one model, layer and site.

    In degrees, the smallest first, next to the 5th percentile of 200 random subspaces.

    \b
    axes angles subspace/mine/23/demo_safety/rank-3 subspace/mine/23/demo_formality/rank-3
    """
    from axes.analysis.subspaces import principal_angles

    return principal_angles(warehouse, axis_a, axis_b)


@click.command()
@axis_argument
@models_option("Only this model; repeatable.")
@prompt_sets_option("Only this set; repeatable.")
@click.option("--alignment", help="Id of the alignment to use, where a model has several.")
@memory_limit_option
@root_option
@prints
def score(axis: str, root: Path, **options: Any) -> object:
    """Project stored activations on AXIS (a name, an id, or the start of one); idempotent.

    Models in the axis's space are projected directly, others through their alignment into it. The
    rows are in `projections`. AXIS may be a subspace: its scores are in `v_subspace_scores`.

    \b
    axes score universal/demo/18/demo_safety/lambda-held_out --prompts harmbench
    """
    from axes.analysis.projections import score as score_axis

    return score_axis(root, axis, **options)


@click.command()
@axis_argument
@prompts_option("Labelled set to calibrate on.", required=True)
@_projected_models_option
@click.option(
    "--calibration",
    "methods",
    type=click.Choice(CALIBRATIONS),
    multiple=True,
    default=("platt",),
    help="Calibration method; repeatable.",
)
@_target_option
@fit_fraction_option(may_be_all=True)
@seed_option
@allow_missing_option
@with_warehouse
@format_option
def calibrate(
    axis: str,
    prompts: str,
    models: Sequence[str],
    warehouse: Warehouse,
    output_format: str,
    **options: Any,
) -> None:
    """Map each model's projections on AXIS (a name, an id, or the start of one) to one scale.

    Each stored calibration has a threshold; `v_calibrated_projections` applies them.

    \b
    axes calibrate universal/demo/18/demo_safety/lambda-held_out --prompts demo_safety
    axes calibrate 31011258 --prompts mine --calibration z_score --target fpr=0.05
    """
    from axes.analysis.study.calibrate import calibrate as fit_and_store

    axis_id, model_ids = _axis_and_models(warehouse, axis, prompts, models)
    ids = fit_and_store(warehouse, axis_id, model_ids, prompts, **options)
    show_query(warehouse, _CALIBRATIONS, [ids], output_format)


@click.command()
@axis_argument
@prompts_option("Labelled set, projected on the axis.", required=True)
@_projected_models_option
@_target_option
@fit_fraction_option()
@_show_option(_TRANSFER_SHOWN)
@_min_overlap_option
@seed_option
@allow_missing_option
@with_warehouse
@format_option
def transfer(
    axis: str,
    prompts: str,
    models: tuple[str, ...],
    shown: str,
    warehouse: Warehouse,
    output_format: str,
    **options: Any,
) -> None:
    """Does a threshold on AXIS chosen on one model hold on another, before and after calibration?

    Also measures how few labelled prompts of a model restore the model's threshold.

    \b
    axes transfer universal/demo/18/demo_safety/lambda-held_out --prompts demo_safety
    axes transfer 31011258 --prompts demo_safety --show curve
    """
    from axes.analysis.study.robustness.thresholds import TransferDefinition, run_transfer

    chosen = _axis_and_models(warehouse, axis, prompts, models)
    study_id = run_transfer(warehouse, TransferDefinition(*chosen, prompts, **options))
    show_query(warehouse, _TRANSFER_SHOWN[shown], {"study_id": study_id}, output_format)
    echo_id("transfer", study_id)


def _axis_and_models(
    warehouse: Warehouse, axis: str, prompt_set: str, models: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """The ids of the axis and of `models`, by default every model with projections of the set."""
    from axes.analysis.activations import find_space
    from axes.analysis.projections import scored_models
    from axes.warehouse.axes import find_axis

    axis_id = find_axis(warehouse, axis).axis_id
    projected = scored_models(warehouse, axis_id, prompt_set)
    return axis_id, tuple(
        name if name in projected else find_space(warehouse, name).model_id
        for name in dict.fromkeys(models or projected)
    )
