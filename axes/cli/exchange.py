"""`axes export` and `axes import`: parse, call one function, print.

`axes activations`: vectors out of the warehouse, and those that others computed into it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from axes.analysis.exchange.formats import FORMATS
from axes.cli.options import format_option, memory_limit_option, root_option
from axes.cli.study import space_options
from axes.warehouse.names import SITES

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

    from axes.analysis.exchange.import_axes import Asked, import_axes
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


_FORMATS = ("safetensors", "npz", "parquet", "arrow", "datasets")
_OF_MODEL = ("layer_count", "d_model", "revision", "computed_with")


@click.group()
def activations() -> None:
    """Write activations to files for other tools, and read vectors that others computed.

    \b
    axes activations export smollm2-135m --prompts demo_safety --to npz
    axes activations import vectors.npz --model mine --layer-count 30 --layers-are blocks \\
      --pooling last --prompts mine
    """


@activations.command("export")
@click.argument("model")
@click.option("--prompts", required=True, help="Prompt set.")
@click.option("--layers", help="Comma list such as 0,12,23. Default: every layer that is stored.")
@click.option("--to", type=click.Choice(_FORMATS), required=True, help="File format.")
@click.option("--limit", type=click.IntRange(min=1), help="First prompts of the set only.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: MODEL-SET.FORMAT.")
@space_options
@memory_limit_option
@root_option
@format_option
def export_activations_command(
    model: str,
    prompts: str,
    layers: str | None,
    to: str,
    limit: int | None,
    output: Path | None,
    memory_limit: int | None,
    root: Path,
    output_format: str,
    **space: str,
) -> None:
    """Write MODEL's activations of a prompt set, with prompts and labels, to a file or folder.

    safetensors and npz hold an array [prompt, d_model] named layer.N for each block N; what their
    rows are is in NAME.index.parquet beside them. parquet, arrow and datasets (a folder for
    datasets.load_from_disk) hold a row for each prompt and layer. Each has a card that says model,
    layers, site, pooling and template.

    \b
    axes activations export smollm2-135m --prompts demo_safety --to npz -o vectors.npz
    axes activations export smollm2-135m --prompts demo_safety --layers 12,23 --to datasets
    """
    from axes.analysis.activations import find_space
    from axes.analysis.exchange.export_activations import export_activations
    from axes.ingest.models.registry import known_as
    from axes.warehouse.connection import connect
    from axes.warehouse.render import show_record

    try:
        chosen = None if layers is None else [int(part) for part in layers.split(",")]
    except ValueError as error:
        raise click.UsageError(f"--layers {layers}: a comma list of numbers is needed") from error
    connection = connect(root, memory_limit=memory_limit)
    name = known_as(model)
    target = output or Path(f"{name.replace('/', '-')}-{prompts}.{to}")
    written = export_activations(
        connection,
        find_space(connection, name, **space),
        prompts,
        to,
        target,
        layers=chosen,
        limit=limit,
    )
    show_record(written, output_format)


@click.command("import-activations")
@click.argument("file", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--index",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="What the rows of npz or safetensors are: .parquet, .csv, .jsonl, or a .txt of prompts. "
    "Default: NAME.index.parquet (.csv, ...) beside FILE.",
)
@click.option("--model", "name", help="Name that the model gets in the warehouse.")
@click.option("--layer-count", type=click.IntRange(min=1), help="Number of its blocks.")
@click.option("--d-model", type=click.IntRange(min=1), help="Width. Default: the vectors' own.")
@click.option("--revision", help="Commit or version of the weights; another is another model.")
@click.option("--computed-with", help="What computed the vectors, such as vllm-0.11.")
@click.option(
    "--model-card",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON of the same, and architecture, dtype, weights_hash, tokenizer_hash, license.",
)
@click.option(
    "--layers-are",
    type=click.Choice(("blocks", "hidden_states")),
    help="What number N is: the output of block N, or hidden_states[N] of transformers.",
)
@click.option("--site", type=click.Choice(SITES), help=f"Default: {SITES[0]}.")
@click.option("--pooling", help="How positions became one vector: last, mean, ...")
@click.option("--template", help="How prompts were rendered: raw or chat. Default: raw.")
@click.option("--prompts", "prompt_set", metavar="SET", help="Name of the set of the texts.")
@click.option("--positive", multiple=True, help="Label of the positive class; repeatable.")
@click.option("--skip-normed", is_flag=True, help="Leave out hidden_states behind the final norm.")
@root_option
@format_option
def import_activations_command(
    file: Path,
    name: str | None,
    model_card: Path | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Read vectors that vLLM, TransformerLens, nnsight or others computed: FILE, and its index.

    FILE is .npz or .safetensors with an array [prompt, d_model] for each layer (layer_12,
    blocks.12.hook_resid_post) and an index beside it with a row for each prompt: text or prompt_id,
    and label, pair_id, category, ... as they are known. Or it is .parquet, .arrow or a folder of HF
    datasets with a row for each prompt and layer, and columns layer and vector. What
    `axes activations export` wrote needs no options. Then fit, study, score and SQL as ever.

    \b
    axes activations import vectors.npz --model mine --layer-count 32 --layers-are hidden_states \\
      --skip-normed --pooling last --prompts mine --positive toxic
    axes fit mine --prompts mine --pooling last
    """
    from axes.ingest.external_activations import import_activations, read_description
    from axes.ingest.requests import ExternalActivationRequest
    from axes.warehouse.render import show_record

    flags = {"name": name, **{key: options.pop(key) for key in _OF_MODEL}}
    said = {} if model_card is None else read_description(model_card)
    said |= {key: value for key, value in flags.items() if value is not None}
    request = ExternalActivationRequest(file=file, model=said, **options)
    show_record(import_activations(root, request), output_format)


activations.add_command(import_activations_command, "import")
