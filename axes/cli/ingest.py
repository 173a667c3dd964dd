"""`axes ingest`: run models and store pooled activations or generation traces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from axes.cli.options import (
    AXIS,
    POOLING,
    PROMPT_SET,
    Numbers,
    Options,
    format_option,
    is_typed,
    layer_fraction_option,
    layers_option,
    limit_option,
    loading_options,
    model_spec,
    prompts_option,
    read_system,
    rendering_options,
    root_option,
    sampling_options,
    together,
)
from axes.ingest.forward.pooling import POOLINGS
from axes.ingest.requests import ActivationRequest, CompletionRequest, TraceRequest
from axes.warehouse.names import SITES
from axes.warehouse.render import show_record

_token_budget_option = click.option(
    "--token-budget",
    type=click.IntRange(min=1),
    default=ActivationRequest.token_budget,
    help="Max tokens in one batch, padding included.",
)
_job_options = together(loading_options, rendering_options())


@click.group()
def ingest() -> None:
    """Run models and store pooled activations or generation traces.

    \b
    axes ingest activations smollm2-135m --prompts demo_safety
    axes ingest traces smollm2-135m --prompts demo_safety --limit 48
    """


@ingest.command("activations")
@_job_options
@click.option(
    "--prompts",
    "prompt_sets",
    type=PROMPT_SET,
    multiple=True,
    required=True,
    help="Prompt set; repeatable.",
)
@layers_option
@click.option(
    "--site",
    "sites",
    type=click.Choice(SITES),
    multiple=True,
    default=ActivationRequest.sites,
    help="Repeatable.",
)
@click.option(
    "--pooling",
    "poolings",
    type=POOLING,
    multiple=True,
    default=ActivationRequest.poolings,
    help=f"Repeatable: {', '.join(POOLINGS)}, or a Python file that defines POOLING.",
)
@click.option(
    "--keep-tokens",
    "token_layers",
    type=Numbers(),
    help="Also store the vector of every token at these layers.",
)
@limit_option
@click.option("--shard", metavar="I/N", help="Run only this part of the prompts, such as 3/8.")
@_token_budget_option
@click.option(
    "--share-prefix/--no-share-prefix",
    "shares_prefix",
    default=ActivationRequest.shares_prefix,
    help="Compute the tokens that all prompts start with only once.",
)
@click.option("--dry-run", is_flag=True, help="Time one batch, and print what a run would do.")
@root_option
@format_option
def activations_command(
    model: str,
    prompt_sets: tuple[str, ...],
    limit: int | None,
    layers: tuple[int, ...] | None,
    token_layers: tuple[int, ...] | None,
    sites: tuple[str, ...],
    poolings: tuple[str, ...],
    system_file: Path | None,
    dry_run: bool,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Store the pooled activations of every block of MODEL for the prompts of one or more sets.

    MODEL is a registry name (axes list models), a hub id, a folder or a .gguf file. Stored rows are
    never recomputed.

    \b
    axes ingest activations qwen2.5-7b --prompts safety_600 --prompts alpaca --device cuda
    axes ingest activations my-run --source ./checkpoint --prompts safety_600 --dry-run
    axes ingest activations qwen2.5-7b --prompts alpaca --template chat --system system.txt \\
      --pooling last5_mean --pooling instruction_last --site resid_post --site mlp_out
    """
    from axes.ingest.activations import ingest_activations, plan_activations
    from axes.ingest.prompts import import_ready_sets

    spec = model_spec(model, options)
    request = ActivationRequest(
        prompt_sets=dict.fromkeys(prompt_sets, limit),
        layers=None if layers is None else tuple(sorted(layers)),
        token_layers=tuple(sorted(token_layers or ())),
        sites=tuple(dict.fromkeys(sites)),
        poolings=tuple(dict.fromkeys(poolings)),
        system=read_system(system_file),
        **options,
    )
    import_ready_sets(root, prompt_sets)
    work = plan_activations if dry_run else ingest_activations
    show_record(work(root, spec, request), output_format)


@ingest.command("traces")
@_job_options
@prompts_option("Prompt set to complete.", name="prompt_set")
@click.option(
    "--completions",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Trace these completions instead of generating: .parquet, .csv or .jsonl with prompt or "
    "prompt_id, completion or token_ids, and optionally source.",
)
@click.option(
    "--layers",
    type=Numbers(),
    help="Comma list of the blocks to store vectors or projections of; overrides --layer-fraction.",
)
@layer_fraction_option
@click.option(
    "--axis",
    "axes",
    type=AXIS,
    multiple=True,
    help="Store projections on this axis (name or id) and no vectors; repeatable.",
)
@click.option("--prompt-tokens", is_flag=True, help="Store the prompt's tokens too, as step < 0.")
@click.option(
    "--top-tokens",
    type=click.IntRange(min=0),
    default=TraceRequest.top_tokens,
    help="Store this many of the most likely tokens at each step.",
)
@limit_option
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=TraceRequest.max_new_tokens,
    help="Max tokens of a completion.",
)
@sampling_options
@click.option(
    "--top-p",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=TraceRequest.top_p,
    help="Sample from the most likely tokens with this total probability.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=TraceRequest.samples,
    help="Completions of each prompt.",
)
@click.option(
    "--stop", "stop_strings", multiple=True, help="String that ends a completion; repeatable."
)
@click.option(
    "--end-token", "end_tokens", multiple=True, help="Extra token that ends one; repeatable."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=TraceRequest.batch_size,
    help="Completions generated together.",
)
@_token_budget_option
@root_option
@format_option
@click.pass_context
def traces_command(
    context: click.Context,
    model: str,
    prompt_set: str | None,
    completions: Path | None,
    layers: tuple[int, ...] | None,
    system_file: Path | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Complete the prompts of a set with MODEL and store one row per token and layer.

    With --completions, the texts come from a file (any model or service) and one forward pass
    reads each.

    \b
    axes ingest traces qwen2.5-7b --prompts safety_600 --layers 12,22 --max-new-tokens 128
    axes ingest traces qwen2.5-7b --prompts safety_600 --temperature 0.7 --top-p 0.9 --samples 4 \\
      --axis universal/demo/18/demo_safety/lambda-held_out --prompt-tokens --stop "User:"
    axes ingest traces qwen2.5-7b --completions answers.jsonl --template chat
    """
    from axes.ingest.generation.completions import ingest_completions
    from axes.ingest.generation.traces import ingest_traces
    from axes.ingest.prompts import import_ready_sets

    if (prompt_set is None) == (completions is None):
        raise click.UsageError("give --prompts, or --completions with a file")
    spec = model_spec(model, options)
    options["layers"] = None if layers is None else tuple(sorted(layers))
    options["system"] = read_system(system_file)
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


def _take_out(context: click.Context, options: Options, names: Sequence[str], reason: str) -> None:
    """Drop the options of the other kind of job; raises `UsageError` for one that was typed."""
    for name in names:
        del options[name]
        if is_typed(name):
            written = next(p for p in context.command.params if p.name == name).opts[0]
            raise click.UsageError(f"{written} {reason}")
