"""`axes drift`: parse, analyse every model asked for, print.

`axes monitor`: parse, let the model speak, show each token as it comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from axes.cli.options import (
    FORMATS,
    MODEL,
    PROMPT_SET,
    format_option,
    is_typed,
    loading_options,
    memory_limit_option,
    model_spec,
    root_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from axes.analysis.stats.calibration import Calibration
    from axes.ingest.generation.monitor import Monitor, Reading
    from axes.ingest.models.load import LoadedModel
    from axes.warehouse.axes import Probe, Readout
    from axes.warehouse.connection import Connection

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
    from axes.analysis.drift.drift import DriftDefinition, run_drift, verdict
    from axes.analysis.drift.trajectories import (
        Selection,
        project_completions,
        read_trajectories,
        write_cross_completions,
    )
    from axes.ingest.models.registry import known_as
    from axes.warehouse.axes import find_axis, find_readout, traced_models
    from axes.warehouse.connection import connect, query
    from axes.warehouse.errors import CoverageError, LabelError
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


_JSONL = "jsonl"


@click.command()
@loading_options
@click.option("--axis", required=True, help="An axis: id, start of an id, or name.")
@click.option("--layer", type=int, help="Default: where the model's prompts are projected.")
@click.argument("prompt")
@click.option(
    "--template",
    type=click.Choice(("raw", "chat")),
    default="raw",
    show_default=True,
    help="The prompt's text alone, or in the model's chat template.",
)
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--temperature", type=click.FloatRange(min=0.0), default=0.0, help="0 is greedy (default)."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling.")
@click.option(
    "--calibration",
    default="platt",
    show_default=True,
    help="Which calibration of the axis (axes calibrate) gives the probability.",
)
@click.option(
    "--stop-above",
    type=click.FloatRange(0.0, 1.0),
    metavar="P",
    help="Stop when the calibrated probability of the last five tokens reaches this.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the tokens here.")
@root_option
@click.option(
    "--format",
    "output_format",
    type=click.Choice((*FORMATS, _JSONL)),
    default="table",
    envvar="AXES_FORMAT",
    show_default=True,
    show_envvar=True,
    help="How tokens are printed; jsonl prints each as it comes.",
)
def monitor(
    model: str,
    axis: str,
    layer: int | None,
    prompt: str,
    template: str,
    calibration: str,
    stop_above: float | None,
    output: Path | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Let MODEL answer PROMPT and show the projection on an axis of every token, live.

    The answer is coloured on stderr from blue (low) to red (high); NO_COLOR turns that off. The
    tokens follow on stdout. Nothing is stored: `axes ingest traces` does that.

    \b
    axes monitor smollm2-135m --axis universal/demo/18/demo_safety/lambda-held_out "Name a river."
    axes monitor qwen2.5-7b --axis 31011258 "Tell me more." --stop-above 0.9 --format jsonl
    """
    import pyarrow as pa
    from rich.console import Console

    from axes.ingest.generation.monitor import Monitor
    from axes.ingest.jobs import open_job
    from axes.ingest.requests import ModelRequest
    from axes.warehouse.render import show

    spec = model_spec(model, options)
    request = ModelRequest(device=options.pop("device"), dtype=options.pop("dtype"))
    job = open_job(root, spec, request)
    probe = _probe(root, axis, spec.name, job.identity.model_id, layer)
    calibrated = _calibration(root, probe.axis_id, job.identity.model_id, calibration, stop_above)
    loaded = job.load()
    console = Console(stderr=True, highlight=False)
    share = _shares(root, probe.axis_id, job.identity.model_id)
    is_streamed = output_format == _JSONL and output is None
    described: list[dict[str, Any]] = []

    def tell(reading: Reading) -> None:
        text = str(loaded.tokenizer.decode([reading.token_id]))
        described.append({"step": reading.step, "token": text, **asdict(reading)})
        del described[-1]["row"]
        if is_streamed:
            click.echo(json.dumps(described[-1]))
        else:
            _paint(console, text, share(reading))

    watched = Monitor.of(
        loaded,
        probe,
        probability=None if calibrated is None else calibrated.probability,
        stop_above=stop_above,
        on_reading=tell,
    )
    _speak(loaded, watched, prompt, template, **options)
    if not is_streamed:
        console.print()
    if stop_above is not None:
        passed = [row["step"] for row in described if (row["probability"] or 0.0) >= stop_above]
        told = f"stopped after step {passed[0]}" if passed else "not reached"
        click.echo(f"probability {stop_above:g}: {told}", err=True)
    if output_format == _JSONL and output is not None:
        output.write_text("".join(json.dumps(row) + "\n" for row in described))
    elif not is_streamed:
        show(pa.Table.from_pylist(described), output_format, output)


def _probe(root: Path, axis: str, model: str, model_id: str, layer: int | None) -> Probe:
    """The axis at one layer of the model; raises `AxisError` where that could be several."""
    from axes.warehouse.axes import read_probes
    from axes.warehouse.errors import AxisError

    layers = None if layer is None else [layer]
    probes = read_probes(root, [axis], model=model, model_id=model_id, layers=layers)
    if len(probes) > 1:
        at = ", ".join(str(probe.layer) for probe in probes)
        raise AxisError(f"{model} has alignments for {axis} at layers {at}: say --layer")
    return probes[0]


def _speak(
    loaded: LoadedModel,
    watched: Monitor,
    prompt: str,
    template: str,
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> None:
    import torch
    from transformers import GenerationConfig

    from axes.ingest.forward.templates import Template, pad_id, render
    from axes.ingest.generation.generate import end_ids

    (rendered,) = render(loaded.tokenizer, [prompt], Template(template), loaded.spec.name)
    tokens = torch.tensor([rendered.token_ids], device=loaded.device)
    ends = {"eos_token_id": end_ids(loaded), "pad_token_id": pad_id(loaded.tokenizer)}
    # The checkpoint's own sampling defaults must not slip in.
    loaded.model.generation_config = GenerationConfig(**ends)
    drawing = {"temperature": temperature, "top_k": 0} if temperature > 0 else {}
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=temperature > 0, **ends, **drawing
    )
    torch.manual_seed(seed)
    model: Any = loaded.model
    with watched.watching(), torch.inference_mode():
        sequences = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            generation_config=config,
            stopping_criteria=[watched],
        )
    watched.finish(sequences)


def _calibration(
    root: Path, axis_id: str, model_id: str, method: str, stop_above: float | None
) -> Calibration | None:
    """The stored calibration; None, and said so, where nothing depends on it."""
    from axes.analysis.study.calibrate import stored_calibration
    from axes.warehouse.connection import connect_tables
    from axes.warehouse.errors import CalibrationError

    try:
        connection = connect_tables(root, "calibrations", "runs")
        return stored_calibration(connection, axis_id, model_id, method)
    except CalibrationError as error:
        if stop_above is not None or is_typed("calibration"):
            raise
        click.echo(f"projections only: {error}", err=True)
        return None


def _shares(root: Path, axis_id: str, model_id: str) -> Callable[[Reading], float | None]:
    """Where a reading lies, 0 to 1: its probability, else among the model's projected prompts."""
    from axes.warehouse.connection import connect_tables, rows

    scale = rows(
        connect_tables(root, "projections"),
        "select avg(projection) as centre, stddev_pop(projection) as width from projections "
        "where axis_id = ? and model_id = ?",
        [axis_id, model_id],
    )[0]

    def share(reading: Reading) -> float | None:
        if reading.probability is not None or reading.smoothed is None:
            return reading.probability
        if not scale["width"]:
            return None
        place = 0.5 + (reading.smoothed - scale["centre"]) / (4 * scale["width"])
        return min(max(place, 0.0), 1.0)

    return share


def _paint(console: Console, text: str, share: float | None) -> None:
    """One token in its colour, from blue over grey to red; without a share as it is."""
    from rich.style import Style
    from rich.text import Text

    style = Style()
    if share is not None:
        red, blue = round(255 * min(2 * share, 1.0)), round(255 * min(2 - 2 * share, 1.0))
        style = Style(color=f"rgb({red},{min(red, blue)},{blue})")
    console.print(Text(text, style=style), end="", soft_wrap=True)
