"""`axes drift`: does the projection change while a model generates?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import (
    FILE,
    LABELER,
    axis_option,
    calibration_option,
    format_option,
    is_typed,
    memory_limit_option,
    models_option,
    prompts_option,
    seed_option,
    show_query,
    with_warehouse,
)
from axes.ingest.models.registry import known_as
from axes.warehouse.render import echo, echo_id

if TYPE_CHECKING:
    from axes.analysis.stats.calibration import Calibration
    from axes.warehouse.axes import Axis, AxisReadout
    from axes.warehouse.handle import Warehouse

_TABLE = """
select
    model, labeler, metric, control, estimate, lower, upper, p_value,
    positive_count as positive, negative_count as negative
from drift_figures
where list_contains(?, drift_id) and step is null
order by model, metric not like '%slope%', metric, control != 'none', control
"""


@click.command()
@axis_option
@models_option("Repeatable. Default: every model with traces that the axis can project.")
@prompts_option("Only completions of this set's prompts.", name="prompt_set")
@click.option(
    "--labeler",
    type=LABELER,
    help="Labeler of the completions' classes, such as refusal_substring. Default: each "
    "completion has the label of its prompt.",
)
@click.option("--template", help="Only completions under this template: raw, chat, ...")
@click.option("--max-new-tokens", type=int, help="Only completions generated with this limit.")
@click.option(
    "--min-steps",
    "least_steps",
    type=click.IntRange(min=2),
    help="For the survivor control: keep completions with at least this many tokens and truncate "
    "them to it. Default: the smaller class median.",
)
@click.option(
    "--min-auroc",
    "bound",
    type=click.FloatRange(0.5, 1.0),
    default=0.75,
    help="AUROC of the running projection from which it counts as separating the classes.",
)
@click.option(
    "--event",
    metavar="REGEX",
    help="Regular expression marking the event to predict. Lead time is counted in tokens up to "
    "its first match. `refusal` uses the built-in refusal phrases. Default: the end of a positive "
    "completion.",
)
@calibration_option
@click.option(
    "--cross-completions",
    "cross_file",
    type=FILE,
    help="Only write this JSONL file for `axes ingest traces --completions`: each prompt with a "
    "completion of the other class.",
)
@seed_option
@memory_limit_option
@with_warehouse
@format_option
def drift(
    axis: str,
    models: tuple[str, ...],
    event: str | None,
    cross_file: Path | None,
    warehouse: Warehouse,
    output_format: str,
    **options: Any,
) -> None:
    """Does the positive class's projection change while the model generates? With controls.

    Prints the slope of each class and their difference with a bootstrap interval; the same for
    pairs matched by the prompt's projection and by length, for random axes and for shuffled steps;
    and a verdict in words. Curves are in v_drift_curve, completions in trajectories.

    \b
    axes drift --axis universal/demo/18/demo_safety/lambda-held_out --template raw
    axes drift --axis 31011258 --model smollm2-135m --labeler refusal_substring --event refusal
    axes sql "from v_drift_curve where curve = 'running_auroc' order by model, step"
    """
    from axes.analysis.drift.drift import verdict
    from axes.analysis.drift.trajectories import (
        Selection,
        read_trajectories,
        traced_models,
        write_cross_completions,
    )
    from axes.warehouse.axes import find_axis
    from axes.warehouse.errors import CoverageError, LabelError

    registered = find_axis(warehouse, axis)
    names = ("prompt_set", "labeler", "template", "max_new_tokens")
    selection = Selection(*(options.pop(name) for name in names))
    traced = traced_models(warehouse, registered, [known_as(model) for model in models])
    if cross_file is not None:
        if len(traced) > 1:
            raise click.UsageError("--cross-completions takes one model: choose it with --model")
        trajectories = read_trajectories(
            warehouse, _readout(warehouse, registered, *traced[0]), selection
        )
        echo(write_cross_completions(warehouse, trajectories, cross_file, seed=options["seed"]))
        return
    options |= {"selection": selection, "event": _event_pattern(event)}
    drift_ids: list[str] = []
    for model, model_id in traced:
        try:
            drift_ids.append(_drift_of(warehouse, registered, model, model_id, **options))
        except (CoverageError, LabelError) as error:
            # Without --model, a model that cannot be analysed does not stop the others.
            if len(traced) == 1 or models:
                raise
            echo(f"left out: {error}", err=True)
    if not drift_ids:
        raise CoverageError(f"no model has completions to analyse on {axis}")
    show_query(warehouse, _TABLE, [drift_ids], output_format)
    for drift_id in drift_ids:
        echo(f"\n{verdict(warehouse, drift_id)}", err=output_format != "table")
        echo_id("drift", drift_id, err=output_format != "table")


def _drift_of(
    warehouse: Warehouse, axis: Axis, model: str, model_id: str, *, calibration: str, **options: Any
) -> str:
    """The id of the stored drift analysis of one model."""
    from axes.analysis.drift.drift import DriftDefinition, run_drift

    readout = _readout(warehouse, axis, model, model_id)
    calibrated = find_calibration(warehouse, readout, calibration)
    threshold = None if calibrated is None else calibrated.threshold
    return run_drift(warehouse, readout, DriftDefinition(threshold=threshold, **options))


def _readout(warehouse: Warehouse, axis: Axis, model: str, model_id: str) -> AxisReadout:
    """The axis in one model's space, with the model's completions projected on it."""
    from axes.analysis.drift.token_projections import project_completions
    from axes.warehouse.axes import read_axis_readout

    readout = read_axis_readout(warehouse, axis, model, model_id)
    project_completions(warehouse, axis, readout)
    return readout


def _event_pattern(event: str | None) -> str | None:
    """The regular expression of `--event`; raises `click.BadParameter` for an invalid one."""
    from axes.ingest.labels.refusals import APOSTROPHES, packaged_phrases

    if event is None:
        return None
    if event == "refusal":
        phrases = [r"\s+".join(map(re.escape, text.split())) for text in packaged_phrases()]
        return "|".join(phrases).replace("'", f"[{APOSTROPHES}]")
    try:
        re.compile(event)
    except re.error as error:
        raise click.BadParameter(f"{event} is not a regular expression: {error}") from error
    return event


def find_calibration(
    warehouse: Warehouse, readout: AxisReadout, method: str, *, is_required: bool = False
) -> Calibration | None:
    """The stored calibration; None with a message on stderr where nothing depends on it.

    Raises `CalibrationError` where it is missing and required, or `--calibration` was typed.
    """
    from axes.analysis.study.calibrate import stored_calibration
    from axes.warehouse.errors import CalibrationError

    try:
        return stored_calibration(warehouse.connection, readout.axis_id, readout.model_id, method)
    except CalibrationError as error:
        if is_required or is_typed("calibration"):
            raise
        echo(f"no calibrated threshold or probability: {error}", err=True)
        return None
