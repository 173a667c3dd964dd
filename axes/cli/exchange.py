"""`axes export` and `axes import`: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path

import click

from axes.analysis.exchange.formats import FORMATS
from axes.cli.options import format_option, root_option
from axes.warehouse.sites import SITES

_CONVENTIONS = ("block", "hidden_states")


@click.command("export")
@click.argument("axes", metavar="AXIS...", nargs=-1, required=True)
@click.option("--to", type=click.Choice(tuple(FORMATS)), required=True, help="File format.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: the axis's name, here."
)
@click.option(
    "--all-layers", is_flag=True, help="The same direction at every layer, in the one file."
)
@click.option(
    "--raw-norm",
    "is_raw",
    is_flag=True,
    help="Write vectors as long as they were fitted, for tools whose strengths count in those.",
)
@root_option
def export_command(
    axes: tuple[str, ...], to: str, output: Path | None, all_layers: bool, is_raw: bool, root: Path
) -> None:
    """Write AXIS (an id, the start of one, or a name) with its card; print the path.

    Several of one model, or --all-layers, make one file. Layers are numbered as the format's
    readers count them; docs/formats.md has the formats, how each counts, and what it loses.

    \b
    axes export universal/demo/18/demo_safety/lambda-held_out --to safetensors
    axes export native/smollm2-135m/23/demo_safety --all-layers --to repeng
    """
    from axes.analysis.exchange.export_axes import export_axes
    from axes.warehouse.connection import connect

    stem = axes[0].replace("/", "-") + ("-all" if all_layers else "")
    target = output or Path(stem + FORMATS[to].suffix)
    exported = export_axes(connect(root), axes, to, target, all_layers=all_layers, is_raw=is_raw)
    for remark in exported.remarks:
        click.echo(f"left out: {remark}", err=True)
    click.echo(f"read it with: {exported.usage}", err=True)
    click.echo(exported.path)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "source_format",
    type=click.Choice(tuple(FORMATS)),
    help="Its format, where its content is not recognised, or two fit.",
)
@click.option("--model", help="The model of the warehouse whose space it lies in.")
@click.option(
    "--layer",
    type=click.IntRange(min=0),
    help="Its layer, blocks counted from 0; of a file with several, the one that is wanted.",
)
@click.option("--site", type=click.Choice(SITES), help="Default: as its card says, or resid_post.")
@click.option("--pooling", help="Of the activations it is for: as its card says, or last5_mean.")
@click.option("--template", help="Of the activations it is for: as its card says, or raw.")
@click.option(
    "--convention",
    type=click.Choice(_CONVENTIONS),
    help="What its numbers count: the block that puts it out, or HF's hidden_states.",
)
@click.option("--name", help="Last part of the axis's name. Default: the file's name.")
@click.option("--fitted-on", metavar="SET", help="The labelled prompts that it was fitted on.")
@click.option(
    "--other-model",
    "is_other_model",
    is_flag=True,
    help="Take it although it says that it is of another model.",
)
@root_option
@format_option
def import_command(
    file: Path,
    source_format: str | None,
    model: str | None,
    layer: int | None,
    site: str | None,
    pooling: str | None,
    template: str | None,
    convention: str | None,
    name: str | None,
    fitted_on: str | None,
    is_other_model: bool,
    root: Path,
    output_format: str,
) -> None:
    """Register the directions of FILE (or a folder) as axes of kind imported; idempotent.

    Formats are those of `axes export`, and any safetensors, npz, npy, JSON or .pt file of
    directions. Nothing in a file is run: a .pt that holds more than tensors is refused. What was
    assumed is said on stderr. See docs/formats.md.

    \b
    axes import refusal.gguf --model smollm2-135m
    axes import vector.pt --model smollm2-135m --layer 15 --name sycophancy
    axes score imported/smollm2-135m/15/sycophancy
    """
    from dataclasses import asdict

    from axes.analysis.exchange.import_axes import import_axes
    from axes.analysis.exchange.placing import Asked
    from axes.ingest.models.registry import known_as
    from axes.warehouse.render import show_rows

    asked = Asked(
        format=source_format,
        model=None if model is None else known_as(model),
        layer=layer,
        site=site,
        pooling=pooling,
        template=template,
        convention=convention,
        name=name,
        fitted_on=fitted_on,
        is_other_model=is_other_model,
    )
    imported = import_axes(root, file, asked)
    click.echo(f"format {imported.format}", err=True)
    for remark in imported.remarks:
        click.echo(remark, err=True)
    show_rows([asdict(axis) for axis in imported.axes], output_format)
