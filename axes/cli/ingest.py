"""`axes ingest`: parse, call one function, print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from axes.cli.ingest_options import loading_options, model_spec
from axes.cli.names import PROMPT_SET
from axes.cli.options import format_option, is_typed, root_option
from axes.warehouse.sites import SITES

_TEMPLATES = ("raw", "chat")


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
    from axes.ingest.activations import ingest_activations, plan_activations
    from axes.ingest.forward.activation_keys import Selection
    from axes.ingest.forward.pooling import find_pooling
    from axes.ingest.forward.templates import Template
    from axes.ingest.prompts import import_ready_sets
    from axes.ingest.sharding import Shard
    from axes.warehouse.render import show_record

    spec = model_spec(model, options)
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
    show_record(summary, output_format)


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
    default=0.8,
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
    "--top-tokens", type=click.IntRange(min=0), default=0, help="Keep so many likeliest tokens."
)
@click.option("--limit", type=click.IntRange(min=1), help="First prompts (or completions) only.")
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
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Completions of each prompt.",
)
@click.option("--stop", "stop_strings", multiple=True, help="String that ends one; repeatable.")
@click.option(
    "--end-token", "end_tokens", multiple=True, help="Token that ends one too; repeatable."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option(
    "--token-budget",
    type=click.IntRange(min=1),
    default=1024,
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
        summary = ingest_traces(root, spec, prompt_set, **options)
    else:
        assert completions is not None
        _take_out(context, options, _OF_GENERATION, "does not go with --completions")
        summary = ingest_completions(root, spec, completions, **options)
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
