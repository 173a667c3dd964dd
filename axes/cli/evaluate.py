"""`axes evaluate`, `axes calibrate` and `axes transfer`: parse, call one function, print.

`axes score`: parse, call one function, print.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from axes.analysis.stats import CALIBRATIONS, CORRECTIONS
from axes.cli.options import MODEL, PROMPT_SET, format_option, memory_limit_option, root_option
from axes.cli.study import space_options

if TYPE_CHECKING:
    from axes.warehouse.connection import Connection

_SUMMARY = """
select scorer, metric, layer, estimate, lower, upper, p_value, p_value_adjusted, is_in_sample
from evaluations
where study_id = $study_id and judged_on is null and (
    layer is null or layer = (
        select max(layer) from evaluations where study_id = $study_id and judged_on is not null
    )
)
order by metric, scorer
"""
_SHOWN = {
    "summary": _SUMMARY,
    "layers": "from v_layer_tests where study_id = $study_id order by layer",
    "sources": "from v_source_transfer where study_id = $study_id order by fitted_on, judged_on",
}
_TRANSFER_SHOWN = {
    "verdicts": "from v_transfer_verdicts where study_id = $study_id order by method",
    "matrix": (
        "from v_threshold_transfer where study_id = $study_id order by method, fitted_on, model"
    ),
    "curve": (
        "from v_labelled_curve where study_id = $study_id order by method, model, labelled_count"
    ),
}

_least_overlap_option = click.option(
    "--least-overlap",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=0.5,
    show_default=True,
    help="Jaccard overlap of five-grams from which prompts are near duplicates, kept together.",
)


@click.command()
@click.argument("model", type=MODEL)
@click.option(
    "--prompts",
    type=PROMPT_SET,
    multiple=True,
    required=True,
    help="Labelled set; repeatable: further sets join the matrix of sources.",
)
@click.option(
    "--by",
    type=click.Choice(("source", "category", "split")),
    default="source",
    show_default=True,
    help="Column that says where a prompt comes from.",
)
@click.option(
    "--layer-fraction",
    type=click.FloatRange(0.0, 1.0),
    default=0.8,
    show_default=True,
    help="Layer of the matrix of sources: round(fraction * (layer_count - 1)).",
)
@click.option(
    "--correction",
    type=click.Choice(tuple(CORRECTIONS)),
    default="holm",
    show_default=True,
    help="Of the p-values of so many layers.",
)
@space_options
@click.option(
    "--show",
    "shown",
    type=click.Choice(tuple(_SHOWN)),
    default="summary",
    show_default=True,
    help="Which of the figures are printed; all are stored.",
)
@_least_overlap_option
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--allow-missing", is_flag=True, help="Go on where rows are missing.")
@root_option
@format_option
def evaluate(
    model: str,
    prompts: tuple[str, ...],
    by: str,
    layer_fraction: float,
    correction: str,
    site: str,
    pooling: str,
    template: str,
    shown: str,
    least_overlap: float,
    seed: int,
    allow_missing: bool,
    root: Path,
    output_format: str,
) -> None:
    """Judge MODEL's directions on prompts, layers and sources that they were not fitted on.

    Every layer out of fold, with its difference to a bag of words corrected for the number of
    layers; the layer chosen inside the training part; and sources against sources.

    \b
    axes evaluate smollm2-135m --prompts safety_600 --prompts harmbench
    axes evaluate smollm2-135m --prompts safety_600 --show sources
    """
    from axes.analysis.study.held_out import EvaluationDefinition, run_evaluation
    from axes.ingest.models.registry import known_as
    from axes.warehouse.connection import connect, query
    from axes.warehouse.handle import Warehouse
    from axes.warehouse.render import show

    definition = EvaluationDefinition(
        model=known_as(model),
        prompt_sets=tuple(dict.fromkeys(prompts)),
        by=by,
        layer_fraction=layer_fraction,
        correction=correction,
        site=site,
        pooling=pooling,
        template=template,
        least_overlap=least_overlap,
        seed=seed,
        allow_missing=allow_missing,
    )
    connection = connect(root)
    study_id = run_evaluation(Warehouse(root, connection), definition)
    show(query(connection, _SHOWN[shown], {"study_id": study_id}), output_format)
    click.echo(f"evaluation {study_id}", err=True)


@click.command()
@click.argument("axis")
@click.option(
    "--prompts", type=PROMPT_SET, required=True, help="Labelled set that is calibrated on."
)
@click.option(
    "--model",
    "models",
    type=MODEL,
    multiple=True,
    help="Name, NAME@ID or id; repeatable. Default: all projected.",
)
@click.option(
    "--method",
    "methods",
    type=click.Choice(tuple(CALIBRATIONS)),
    multiple=True,
    default=("platt",),
    show_default=True,
    help="Repeatable.",
)
@click.option(
    "--target",
    default="balanced_accuracy",
    show_default=True,
    help="What the threshold meets: balanced_accuracy (Youden's J) or, say, fpr=0.05.",
)
@click.option(
    "--fraction",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=0.5,
    show_default=True,
    help="Share of the set's pairs to fit on; the rest stays to judge on.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--allow-missing", is_flag=True, help="Go on where projections are missing.")
@root_option
@format_option
def calibrate(
    axis: str,
    prompts: str,
    models: tuple[str, ...],
    methods: tuple[str, ...],
    target: str,
    fraction: float,
    seed: int,
    allow_missing: bool,
    root: Path,
    output_format: str,
) -> None:
    """Put each model's projections on AXIS (id, start of one, or name) on a common scale.

    Calibrations are stored, with a threshold each; `v_calibrated_projections` applies them.

    \b
    axes calibrate universal/demo/18/demo_safety/lambda-held_out --prompts demo_safety
    axes calibrate 31011258 --prompts mine --method z_score --target fpr=0.05
    """
    from axes.analysis.study.calibrate import calibrate as fit_and_store
    from axes.warehouse.axes import find_axis
    from axes.warehouse.connection import connect, query
    from axes.warehouse.handle import Warehouse
    from axes.warehouse.render import show

    connection = connect(root)
    axis_id = find_axis(connection, axis)["axis_id"]
    ids = fit_and_store(
        Warehouse(root, connection),
        axis_id,
        _chosen_models(connection, axis_id, prompts, models),
        prompts,
        methods,
        target=target,
        fraction=fraction,
        seed=seed,
        allow_missing=allow_missing,
    )
    fitted = query(
        connection,
        "select calibration_id, model, method, target, threshold, positive_count, negative_count "
        "from calibrations where list_contains(?, calibration_id) order by model, method",
        [ids],
    )
    show(fitted, output_format)


@click.command()
@click.argument("axis")
@click.option(
    "--prompts", type=PROMPT_SET, required=True, help="Labelled set, projected on the axis."
)
@click.option(
    "--model",
    "models",
    type=MODEL,
    multiple=True,
    help="Name, NAME@ID or id; repeatable. Default: all projected.",
)
@click.option(
    "--target",
    default="balanced_accuracy",
    show_default=True,
    help="What a threshold meets on the model it comes from: balanced_accuracy, or fpr=RATE.",
)
@click.option(
    "--fraction",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of the prompts that thresholds are chosen on; the rest is judged.",
)
@click.option(
    "--show",
    "shown",
    type=click.Choice(tuple(_TRANSFER_SHOWN)),
    default="verdicts",
    show_default=True,
    help="Which of the figures are printed; all are stored.",
)
@_least_overlap_option
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--allow-missing", is_flag=True, help="Go on where projections are missing.")
@root_option
@format_option
def transfer(
    axis: str,
    prompts: str,
    models: tuple[str, ...],
    target: str,
    fraction: float,
    shown: str,
    least_overlap: float,
    seed: int,
    allow_missing: bool,
    root: Path,
    output_format: str,
) -> None:
    """Does a threshold on AXIS found on one model hold on another, before and after calibration?

    And how few labelled prompts of a model restore its own threshold.

    \b
    axes transfer universal/demo/18/demo_safety/lambda-held_out --prompts demo_safety
    axes transfer 31011258 --prompts demo_safety --show curve
    """
    from axes.analysis.study.thresholds import TransferDefinition, run_transfer
    from axes.warehouse.axes import find_axis
    from axes.warehouse.connection import connect, query
    from axes.warehouse.handle import Warehouse
    from axes.warehouse.render import show

    connection = connect(root)
    axis_id = find_axis(connection, axis)["axis_id"]
    definition = TransferDefinition(
        axis_id=axis_id,
        model_ids=tuple(_chosen_models(connection, axis_id, prompts, models)),
        prompt_set=prompts,
        target=target,
        fraction=fraction,
        least_overlap=least_overlap,
        seed=seed,
        allow_missing=allow_missing,
    )
    study_id = run_transfer(Warehouse(root, connection), definition)
    show(query(connection, _TRANSFER_SHOWN[shown], {"study_id": study_id}), output_format)
    click.echo(f"transfer {study_id}", err=True)


def _chosen_models(
    connection: Connection, axis_id: str, prompt_set: str, wanted: Sequence[str]
) -> list[str]:
    """The ids of the models named, or of all that the set is projected with."""
    from axes.analysis.activations import find_space
    from axes.analysis.projections import scored_models

    there = [model_id for _, model_id in scored_models(connection, axis_id, prompt_set)]
    return [
        name if name in there else find_space(connection, name).model_id
        for name in dict.fromkeys(wanted or there)
    ]


@click.command()
@click.argument("axis")
@click.option("--model", "models", type=MODEL, multiple=True, help="Only this model; repeatable.")
@click.option(
    "--prompts", "prompt_sets", type=PROMPT_SET, multiple=True, help="Only this set; repeatable."
)
@click.option("--alignment", help="Id of the map to use, where a model has several.")
@memory_limit_option
@root_option
@format_option
def score(
    axis: str,
    models: tuple[str, ...],
    prompt_sets: tuple[str, ...],
    alignment: str | None,
    memory_limit: int | None,
    root: Path,
    output_format: str,
) -> None:
    """Project stored activations on AXIS (an id, the start of one, or a name); idempotent.

    Models in the axis's own space are projected as they are, others through their alignment into
    it. The rows are in `projections`.

    \b
    axes score universal/demo/18/demo_safety/lambda-held_out --prompts harmbench
    """
    from dataclasses import asdict

    from axes.analysis.projections import score as score_axis
    from axes.warehouse.render import show_rows

    done = score_axis(
        root,
        axis,
        models=models,
        prompt_sets=prompt_sets,
        alignment=alignment,
        memory_limit=memory_limit,
    )
    show_rows([asdict(item) for item in done], output_format)
