"""`axes drift`: parse, analyse every model asked for, print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from axes.cli.names import MODEL, PROMPT_SET
from axes.cli.options import format_option, memory_limit_option, root_option

if TYPE_CHECKING:
    from axes.warehouse.connection import Connection
    from axes.warehouse.readouts import Readout

_TABLE = """
select
    model, labeler, metric, control, estimate, lower, upper, p_value,
    positive_count as positive, negative_count as negative
from drift_figures
where list_contains(?, drift_id) and step is null
order by model, metric not like '%slope%', metric, control != 'none', control
"""


@click.command()
@click.option("--axis", required=True, help="An axis: id, start of an id, or name.")
@click.option(
    "--model",
    "models",
    type=MODEL,
    multiple=True,
    help="Repeatable; default: every model with traces on it.",
)
@click.option(
    "--prompts", "prompt_set", type=PROMPT_SET, help="Completions of this set's prompts only."
)
@click.option(
    "--labeler",
    help="Who says which class a completion is of, such as refusal_substring. "
    "Default: the label of its prompt.",
)
@click.option("--template", help="Completions under this template only: raw, chat, ...")
@click.option("--max-new-tokens", type=int, help="Completions made under this limit only.")
@click.option(
    "--least-steps",
    type=click.IntRange(min=2),
    help="Of the control `lasting`. Default: what half of either class reach.",
)
@click.option(
    "--bound",
    type=click.FloatRange(0.5, 1.0),
    default=0.75,
    show_default=True,
    help="AUROC of the running projection from which the class counts as told.",
)
@click.option(
    "--event",
    metavar="REGEX",
    help="Count tokens of warning to where this first matches a completion; `refusal`: to the "
    "first phrase of a refusal. Default: to the end of completions of the positive class.",
)
@click.option(
    "--calibration",
    default="platt",
    show_default=True,
    help="Whose threshold (axes calibrate) is crossed; without one there are no crossings.",
)
@click.option(
    "--cross-completions",
    "cross_file",
    type=click.Path(path_type=Path),
    help="Only write this JSONL: each prompt with a completion of the other class, for "
    "`axes ingest traces --completions`.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@memory_limit_option
@root_option
@format_option
def drift(
    axis: str,
    models: tuple[str, ...],
    prompt_set: str | None,
    labeler: str | None,
    template: str | None,
    max_new_tokens: int | None,
    least_steps: int | None,
    bound: float,
    event: str | None,
    calibration: str,
    cross_file: Path | None,
    seed: int,
    memory_limit: int | None,
    root: Path,
    output_format: str,
) -> None:
    """Does the positive class's projection drift while the model speaks? With controls.

    Slopes by class, their difference with a bootstrap interval, the same on pairs matched in the
    prompt's projection and in length, on random axes and on shuffled steps, and a verdict in words.
    Curves and completions are in v_drift_curve and trajectories.

    \b
    axes drift --axis universal/demo/18/demo_safety/lambda-held_out --template raw
    axes drift --axis 31011258 --model smollm2-135m --labeler refusal_substring --event refusal
    axes sql "from v_drift_curve where curve = 'running_auroc' order by model, step"
    """
    from axes.analysis.drift.drift import DriftDefinition, run_drift
    from axes.analysis.drift.drift_verdict import verdict
    from axes.analysis.drift.token_projections import project_completions
    from axes.analysis.drift.trajectories import (
        Selection,
        read_trajectories,
        write_cross_completions,
    )
    from axes.ingest.models.registry import known_as
    from axes.warehouse.axes import find_axis
    from axes.warehouse.connection import connect, query
    from axes.warehouse.errors import CoverageError, LabelError
    from axes.warehouse.readouts import find_readout, traced_models
    from axes.warehouse.render import show

    connection = connect(root, memory_limit=memory_limit)
    axis_id = find_axis(connection, axis)["axis_id"]
    selection = Selection(prompt_set, labeler, template, max_new_tokens)
    model_ids = traced_models(connection, axis_id, [known_as(model) for model in models])
    if cross_file is not None and len(model_ids) > 1:
        raise click.UsageError("--cross-completions is of one model: say which with --model")
    drift_ids = []
    for model_id in model_ids:
        readout = find_readout(root, connection, axis_id, model_id)
        project_completions(root, connection, readout)
        if cross_file is not None:
            found = read_trajectories(connection, readout, selection)
            click.echo(write_cross_completions(connection, found, cross_file, seed=seed))
            return
        definition = DriftDefinition(
            selection=selection,
            least_steps=least_steps,
            bound=bound,
            event=_event_pattern(event),
            threshold=_threshold(connection, readout, calibration),
            seed=seed,
        )
        try:
            drift_ids.append(run_drift(root, connection, readout, definition))
        except (CoverageError, LabelError) as error:
            # One of many that nobody named: the others are not to wait for it.
            if len(model_ids) == 1 or models:
                raise
            click.echo(f"left out: {error}", err=True)
    if not drift_ids:
        raise CoverageError(f"no model has completions to analyse on {axis}")
    show(query(connection, _TABLE, [drift_ids]), output_format)
    for drift_id in drift_ids:
        words = verdict(connection, drift_id)
        click.echo(f"\n{words}\ndrift {drift_id}", err=output_format != "table")


def _event_pattern(event: str | None) -> str | None:
    """The regular expression that is meant; raises `click.BadParameter` for one that is none."""
    from axes.ingest.labels.refusals import APOSTROPHES, packaged_phrases

    if event is None:
        return None
    if event == "refusal":
        phrases = [r"\s+".join(map(re.escape, text.split())) for text in packaged_phrases()]
        return "|".join(phrases).replace("'", f"[{APOSTROPHES}]")
    try:
        re.compile(event)
    except re.error as error:
        raise click.BadParameter(f"{event} is no regular expression: {error}") from error
    return event


def _threshold(connection: Connection, readout: Readout, method: str) -> float | None:
    """The calibrated threshold; None, and said so, where there is none and none was asked for."""
    from axes.analysis.study.calibrate import stored_calibration
    from axes.warehouse.errors import CalibrationError

    try:
        return stored_calibration(connection, readout.axis_id, readout.model_id, method).threshold
    except CalibrationError as error:
        source = click.get_current_context().get_parameter_source("calibration")
        if source is not ParameterSource.DEFAULT:
            raise
        click.echo(f"no crossings of a threshold: {error}", err=True)
        return None
