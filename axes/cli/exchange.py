"""Exchange with other tools: `axes export`, `import`, `push`, `log` and `activations`."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from axes.analysis.exchange.formats import FORMATS, ImportRequest
from axes.cli.options import (
    AXIS,
    COUNT,
    EXISTING_FILE,
    FILE,
    STUDY,
    layers_option,
    limit_option,
    memory_limit_option,
    model_argument,
    prints,
    prompts_option,
    request_options,
    root_option,
    with_warehouse,
)
from axes.cli.study import space_options
from axes.ingest.models.registry import known_as
from axes.ingest.requests import ExternalActivationRequest
from axes.warehouse.render import echo

if TYPE_CHECKING:
    from axes.warehouse.handle import Warehouse

_ACTIVATION_FORMATS = ("safetensors", "npz", "parquet", "arrow", "datasets")
_public_option = click.option(
    "--public",
    "is_public",
    is_flag=True,
    help="Make a new repository public. Default: private; an existing one stays as it is.",
)
_MODEL_OPTIONS = ("name", "layer_count", "d_model", "revision", "computed_with")


@click.command()
@click.argument("axes", metavar="AXIS...", type=AXIS, nargs=-1, required=True)
@click.option("--to", type=click.Choice(tuple(FORMATS)), required=True, help="File format.")
@click.option(
    "-o", "--output", type=FILE, help="File to write. Default: the axis's name, in this folder."
)
@click.option(
    "--all-layers", is_flag=True, help="Write the same direction of every layer to one file."
)
@click.option(
    "--raw-norm",
    "is_raw",
    is_flag=True,
    help="Write vectors with their fitted norm, for tools that scale strengths by it.",
)
@with_warehouse
def export(
    axes: tuple[str, ...], to: str, output: Path | None, warehouse: Warehouse, **options: bool
) -> None:
    """Write AXIS (a name, an id, or the start of one) with its card; print the path.

    Several axes of one model, or --all-layers, are written to one file. Layers are numbered as the
    format's readers count them; docs/formats.md lists the formats and what each loses.

    \b
    axes export universal/demo/18/demo_safety/lambda-held_out --to safetensors
    axes export native/smollm2-135m/23/demo_safety --all-layers --to repeng
    """
    from axes.analysis.exchange.export_axes import export_axes

    stem = axes[0].replace("/", "-") + ("-all" if options["all_layers"] else "")
    target = output or Path(stem + FORMATS[to].suffix)
    exported = export_axes(warehouse, axes, to, target, **options)
    for remark in exported.remarks:
        echo(f"left out: {remark}", err=True)
    echo(f"read it with: {exported.usage}", err=True)
    echo(exported.path)


@click.command()
@click.argument("axes", metavar="AXIS...", type=AXIS, nargs=-1, required=True)
@click.argument("repository")
@click.option("--all-layers", is_flag=True, help="Push the same direction of every layer.")
@_public_option
@with_warehouse
@prints
def push(
    axes: tuple[str, ...], repository: str, all_layers: bool, is_public: bool, warehouse: Warehouse
) -> object:
    """Upload AXIS (or several of one model) with its card to REPOSITORY of the Hugging Face hub.

    Makes the repository where there is none, and overwrites only what a push made. Needs a token
    that may write (HF_TOKEN). `axes import hf:OWNER/NAME` reads it.

    \b
    axes push universal/demo/18/demo_safety/lambda-held_out OWNER/NAME
    axes push native/smollm2-135m/23/demo_safety OWNER/NAME --all-layers --public
    """
    from axes.analysis.exchange.export_axes import export_axes
    from axes.ingest.models.hub import push as push_folder

    with TemporaryDirectory() as name:
        folder = Path(name, "axes")
        export_axes(warehouse, axes, "hub", folder, all_layers=all_layers)
        return push_folder(folder, repository, "model", "card.json", is_public=is_public)


def _folder_of_sae(_context: click.Context, _param: click.Parameter, source: Path) -> Path:
    """The folder of `sae:FOLDER`, another source as it is."""
    if not str(source).startswith("sae:"):
        return source
    from axes.analysis.exchange.formats.sae import sae_folder

    return sae_folder(str(source))


@click.command("import")
@click.argument("file", type=FILE, callback=_folder_of_sae)
@request_options(ImportRequest)
@with_warehouse
@prints
def import_(file: Path, model: str | None, warehouse: Warehouse, **options: Any) -> object:
    """Register the directions of FILE (or a folder) as axes of kind imported; idempotent.

    Reads the formats of `axes export`, any safetensors, npz, npy, JSON or .pt file of directions,
    and of sae:FOLDER, a sparse autoencoder of SAELens, the decoder rows of --features. No code in a
    file is run: a .pt with more than tensors is refused. Assumptions are printed on stderr. See
    docs/formats.md. hf:OWNER/NAME[@REVISION] is what `axes push` uploaded. Of a folder (or a
    repository) of folders that `--to hub` wrote, all axes are read whose models are stored.

    \b
    axes import refusal.gguf --model smollm2-135m
    axes import vector.pt --model smollm2-135m --layer 15 --name sycophancy
    axes import sae:FOLDER --model smollm2-135m --features 12,40-50
    axes score imported/smollm2-135m/15/sycophancy
    """
    from axes.analysis.exchange.import_axes import import_axes, import_registry, is_registry

    if str(file).startswith("hf:"):
        from axes.ingest.models.download import fetch_pushed

        options["name"] = options["name"] or file.name.partition("@")[0]
        wanted = ("README.md", "*card.json", "*direction.safetensors")
        file = fetch_pushed(str(file), "model", *wanted)
    request = ImportRequest(model=None if model is None else known_as(model), **options)
    imported = (import_registry if is_registry(file) else import_axes)(warehouse, file, request)
    echo(f"format {imported.format}", err=True)
    for remark in imported.remarks:
        echo(remark, err=True)
    return list(imported.axes)


@click.command()
@click.option("--to", type=click.Choice(("wandb", "mlflow")), required=True, help="Tracker.")
@click.option("--project", default="safety-axes", help="Project of wandb, or experiment of MLflow.")
@click.option("--study", type=STUDY, help="Start of an id. Default: all studies, and all jobs.")
@click.option(
    "--online",
    "is_online",
    is_flag=True,
    help="Send to a server, as wandb and MLflow are configured. Default: files on this machine.",
)
@with_warehouse
@prints
def log(to: str, warehouse: Warehouse, **options: Any) -> object:
    """Send studies and jobs to Weights & Biases or MLflow as runs, each once, without texts.

    A run is a study (claims, baselines), one of its models (AUROC with its interval, cosines, R2;
    the layer is the step) or a job. Files go to ./wandb or ./mlruns; `wandb sync` uploads them.

    \b
    axes log --to wandb
    axes log --to mlflow --project refusal --study 469702
    """
    from axes.analysis.exchange.trackers import send

    return send(warehouse, to, **options)


@click.group()
def activations() -> None:
    """Export activations to files for other tools, and import activations that they computed.

    \b
    axes activations export smollm2-135m --prompts demo_safety --to npz
    axes activations import vectors.npz --model mine --layer-count 30 --layers-are blocks \\
      --pooling last --prompts mine
    """


@activations.command("export")
@model_argument
@prompts_option("Prompt set.", required=True)
@layers_option
@click.option("--to", type=click.Choice(_ACTIVATION_FORMATS), required=True, help="File format.")
@limit_option
@click.option("-o", "--output", type=FILE, help="Default: MODEL-SET.FORMAT.")
@space_options
@memory_limit_option
@with_warehouse
@prints
def export_activations_command(
    model: str, prompts: str, to: str, output: Path | None, warehouse: Warehouse, **options: Any
) -> object:
    """Write MODEL's activations of a prompt set, with prompts and labels, to a file or folder.

    safetensors and npz hold an array [prompt, d_model] named layer.N for each block N;
    NAME.index.parquet next to them describes their rows. parquet, arrow and datasets (a folder for
    datasets.load_from_disk) hold a row for each prompt and layer. Each file has a card with model,
    layers, site, pooling and template.

    \b
    axes activations export smollm2-135m --prompts demo_safety --to npz -o vectors.npz
    axes activations export smollm2-135m --prompts demo_safety --layers 12,23 --to datasets
    """
    from axes.analysis.activations import find_space
    from axes.analysis.exchange.export_activations import export_activations

    name = known_as(model)
    target = output or Path(f"{name.replace('/', '-')}-{prompts}.{to}")
    chosen = {key: options.pop(key) for key in ("layers", "limit")}
    space = find_space(warehouse, name, **options)
    return export_activations(warehouse, space, prompts, to, target, **chosen)


@activations.command("push")
@model_argument
@click.argument("repository")
@prompts_option("Prompt set.", required=True)
@layers_option
@limit_option
@space_options
@_public_option
@with_warehouse
@prints
def push_activations_command(
    model: str, repository: str, prompts: str, is_public: bool, warehouse: Warehouse, **options: Any
) -> object:
    """Upload MODEL's activations of a prompt set to REPOSITORY, a data set with a card.

    The Parquet file holds texts and labels of the prompts too. A repository is made and overwritten
    as by `axes push`.

    \b
    axes activations push smollm2-135m OWNER/NAME --prompts demo_safety --layers 12,23
    """
    from axes.analysis.activations import find_space
    from axes.analysis.exchange.export_activations import DATA_FILE, export_dataset
    from axes.ingest.models.hub import push as push_folder

    chosen = {key: options.pop(key) for key in ("layers", "limit")}
    space = find_space(warehouse, known_as(model), **options)
    with TemporaryDirectory() as name:
        export_dataset(warehouse, space, prompts, Path(name), **chosen)
        return push_folder(Path(name), repository, "dataset", DATA_FILE, is_public=is_public)


@activations.command("import")
@click.argument("file", type=FILE)
@click.option(
    "--index",
    type=EXISTING_FILE,
    help="What the rows of npz or safetensors are: .parquet, .csv, .jsonl, or a .txt of prompts. "
    "Default: NAME.index.parquet (.csv, ...) next to FILE.",
)
@click.option("--model", "name", help="Name of the model in the warehouse.")
@click.option("--layer-count", type=COUNT, help="Number of blocks of the model.")
@click.option("--d-model", type=COUNT, help="Width. Default: that of the vectors.")
@click.option(
    "--revision", help="Commit or version of the weights; each revision is a different model."
)
@click.option("--computed-with", help="Software that computed the vectors, such as vllm-0.11.")
@click.option(
    "--model-card",
    type=EXISTING_FILE,
    help="JSON with the same keys, and architecture, dtype, weights_hash, tokenizer_hash, license.",
)
@request_options(ExternalActivationRequest)
@root_option
@prints
def import_activations_command(
    file: Path, model_card: Path | None, root: Path, **options: Any
) -> object:
    """Import activations from FILE that vLLM, TransformerLens, nnsight or others computed.

    FILE is .npz or .safetensors with an array [prompt, d_model] for each layer (layer_12,
    blocks.12.hook_resid_post) and an index next to it with a row for each prompt: text or
    prompt_id, and optionally label, pair_id, category, ... Or FILE is .parquet, .arrow or a folder
    of HF datasets with a row for each prompt and layer, and columns layer and vector. Files from
    `axes activations export` need no options, nor does hf:OWNER/NAME[@REVISION], to which
    `axes activations push` uploaded one. Or FILE is a folder that extract_hidden_states of
    vLLM, or vLLM-Lens, left: --pooling then pools its vectors of all tokens.

    \b
    axes activations import vectors.npz --model mine --layer-count 32 --layers-are hidden_states \\
      --skip-normed --pooling last --prompts mine --positive toxic
    axes activations import states --model mine --layer-count 32 --layer-ids 8,16,24 \\
      --pooling last5_mean --prompts mine --positive toxic
    axes fit mine --prompts mine --pooling last
    """
    from axes.analysis.exchange.export_activations import DATA_FILE
    from axes.ingest.external.activations import import_activations, read_description
    from axes.ingest.models.download import fetch_pushed

    if str(file).startswith("hf:"):
        file = fetch_pushed(str(file), "dataset", "README.md", DATA_FILE) / DATA_FILE
    elif not file.exists():
        raise click.UsageError(f"{file} does not exist")
    flags = {key: options.pop(key) for key in _MODEL_OPTIONS}
    description = {} if model_card is None else read_description(model_card)
    description |= {key: value for key, value in flags.items() if value is not None}
    request = ExternalActivationRequest(file=file, model=description, **options)
    return import_activations(root, request)
