"""`axes monitor`: generate with a model and show each token with its projection as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.generation.drift import find_calibration
from axes.cli.options import (
    COUNT,
    SHARE,
    axis_option,
    calibration_option,
    format_for,
    format_option,
    loading_options,
    model_spec,
    output_option,
    read_system,
    request_options,
    root_option,
    system_option,
)
from axes.ingest.requests import ModelRequest, TraceRequest
from axes.warehouse.render import echo, show, show_rows, visible

if TYPE_CHECKING:
    from axes.ingest.forward.templates import Template
    from axes.ingest.generation.monitor import Monitor, Reading
    from axes.ingest.models.load import LoadedModel
    from axes.warehouse.axes import AxisReadout
    from axes.warehouse.handle import Warehouse

# The options that say how the model is run, apart from the system prompt.
_OF_MODEL = ("device", "dtype", "template", "template_options", "assistant_prefill")

# What is printed of one generated token.
Token = dict[str, Any]


@click.command()
@loading_options
@click.argument("prompt")
@axis_option
@click.option("--layer", type=int, help="Default: the layer that the model's prompts project at.")
@system_option
@request_options(TraceRequest, "template", "template_options", "assistant_prefill")
@click.option(
    "--max-new-tokens",
    type=COUNT,
    default=64,
    help="Max tokens of the completion.",
)
@request_options(TraceRequest, "temperature", "seed")
@calibration_option
@click.option(
    "--stop-above",
    type=SHARE,
    metavar="P",
    help="Stop when the calibrated probability of the last five tokens reaches this.",
)
@output_option
@root_option
@format_option
def monitor(
    model: str,
    axis: str,
    layer: int | None,
    calibration: str,
    stop_above: float | None,
    output: Path | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Complete PROMPT with MODEL and show the projection of every token on an axis, live.

    The completion is coloured on stderr from blue (low) to red (high); NO_COLOR turns that off.
    The tokens follow on stdout. Nothing is stored: `axes ingest traces` stores traces.

    \b
    axes monitor smollm2-135m --axis universal/demo/18/demo_safety/lambda-held_out "Name a river."
    axes monitor qwen2.5-7b --axis 31011258 "Tell me more." --stop-above 0.9 --format jsonl
    """
    import pyarrow as pa

    from axes.ingest.generation.monitor import Monitor
    from axes.ingest.jobs import open_job
    from axes.warehouse.axes import AXIS_TABLES, find_axis, read_axis_readout
    from axes.warehouse.handle import Warehouse

    spec = model_spec(model, options, root)
    stated = {name: options.pop(name) for name in _OF_MODEL}
    request = ModelRequest(system=read_system(options.pop("system_file")), **stated)
    job = open_job(root, spec, request)
    warehouse = Warehouse.open_tables(root, *{*AXIS_TABLES, "calibrations", "projections", "runs"})
    readout = read_axis_readout(
        warehouse, find_axis(warehouse, axis), spec.name, job.identity.model_id, layer=layer
    )
    is_required = stop_above is not None
    calibrated = find_calibration(warehouse, readout, calibration, is_required=is_required)
    loaded = job.load()
    paint = _painter(warehouse, readout)
    is_streamed = output_format == "jsonl" and output is None
    tokens: list[Token] = []

    def tell(reading: Reading) -> None:
        text = str(loaded.tokenizer.decode([reading.token_id]))
        tokens.append({"step": reading.step, "token": text, **asdict(reading)})
        del tokens[-1]["row"]
        if is_streamed:
            show_rows([tokens[-1]], "jsonl")
        else:
            paint(text, reading)

    probability = calibrated and calibrated.probability
    watched = Monitor.of(
        loaded, readout, probability=probability, stop_above=stop_above, on_reading=tell
    )
    _speak(loaded, watched, request.rendering, **options)
    if not is_streamed:
        echo(err=True)
        show(pa.Table.from_pylist(tokens), format_for(output, output_format), output)
    _echo_stop(tokens, stop_above)


def _echo_stop(tokens: list[Token], stop_above: float | None) -> None:
    if stop_above is None:
        return
    passed = [row["step"] for row in tokens if (row["probability"] or 0.0) >= stop_above]
    outcome = f"stopped after step {passed[0]}" if passed else "not reached"
    echo(f"probability {stop_above:g}: {outcome}", err=True)


def _speak(
    loaded: LoadedModel,
    watched: Monitor,
    template: Template,
    *,
    prompt: str,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> None:
    import torch

    from axes.ingest.forward.templates import foreign_token, render
    from axes.ingest.generation.generate import end_ids, own_config
    from axes.warehouse.errors import PromptError

    (rendered,) = render(loaded.tokenizer, [prompt], template, loaded.spec.name)
    if (fault := foreign_token(rendered.token_ids, loaded.vocab_size)) is not None:
        raise PromptError(f"{loaded.spec.name} cannot run the prompt: {fault}")
    tokens = torch.tensor([rendered.token_ids], device=loaded.device)
    drawing = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {}
    torch.manual_seed(seed)
    model: Any = loaded.model
    with (
        own_config(loaded, max_new_tokens, end_ids(loaded), **drawing) as config,
        watched.watching(),
        torch.inference_mode(),
    ):
        sequences = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            generation_config=config,
            stopping_criteria=[watched],
        )
    watched.finish(sequences)


def _painter(warehouse: Warehouse, readout: AxisReadout) -> Callable[[str, Reading], None]:
    """Prints a token on stderr from blue over grey to red, without a projection uncoloured.

    The colour is the probability, else relative to the model's projected prompts.
    """
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    statement = """
        select [avg(projection), stddev_pop(projection)]
        from projections where axis_id = ? and model_id = ?
    """
    ((centre, deviation),) = warehouse.column(statement, [readout.axis_id, readout.model_id])

    def paint(text: str, reading: Reading) -> None:
        share = reading.probability
        if share is None and reading.smoothed is not None and deviation:
            # Two standard deviations below and above the mean are the ends of the scale.
            share = min(max(0.5 + (reading.smoothed - centre) / (4 * deviation), 0.0), 1.0)
        style = Style(color=None if share is None else _colour(share, console.color_system))
        console.print(Text(visible(text), style=style), end="", soft_wrap=True)

    return paint


def _colour(share: float, color_system: str | None) -> str | None:
    """From blue over grey to red; of sixteen colours the terminal's own, between them none."""
    if color_system not in ("truecolor", "256"):
        return "blue" if share < 1 / 3 else "red" if share > 2 / 3 else None
    away = 2 * share - 1
    grey = round(128 * (1 - abs(away)))
    strong = round(128 + 127 * abs(away))
    red, blue = (strong, grey) if away > 0 else (grey, strong)
    return f"rgb({red},{grey},{blue})"
