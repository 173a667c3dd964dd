"""`axes ingest`: run models and store pooled activations or generation traces; `axes plan`."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

import click

from axes.cli.options import (
    EXISTING_FILE,
    MODEL,
    Numbers,
    Options,
    engine_option,
    format_option,
    is_typed,
    limit_option,
    loading_options,
    model_spec,
    prints,
    prompt_sets_option,
    prompts_option,
    read_system,
    request_options,
    root_option,
    system_option,
)
from axes.ingest.requests import (
    LOCAL,
    ActivationRequest,
    CompletionRequest,
    Placement,
    PlanRequest,
    TraceRequest,
)
from axes.warehouse.render import show_rows
from axes.warehouse.settings import options_of


@click.group()
def ingest() -> None:
    """Run models and store pooled activations or generation traces.

    \b
    axes ingest activations smollm2-135m --prompts demo_safety
    axes ingest traces smollm2-135m --prompts demo_safety --limit 48
    """


@ingest.command("activations")
@loading_options
@prompt_sets_option("Prompt set; repeatable.", required=True)
@limit_option
@system_option
@request_options(ActivationRequest)
@request_options(Placement)
@engine_option
@click.option("--dry-run", is_flag=True, help="Time one batch, and print what a run would do.")
@root_option
@prints
def activations_command(
    model: str,
    prompt_sets: tuple[str, ...],
    limit: int | None,
    system_file: Path | None,
    dry_run: bool,
    root: Path,
    **options: Any,
) -> object:
    """Store the pooled activations of every block of MODEL for the prompts of one or more sets.

    MODEL is a registry name (axes list models), a hub id, a folder or a .gguf file. Stored rows are
    never recomputed. With --axis, projections are stored and no vectors.

    \b
    axes ingest activations qwen2.5-7b --prompts safety_600 --prompts alpaca --device cuda
    axes ingest activations my-run --source ./checkpoint --prompts safety_600 --dry-run
    axes ingest activations qwen2.5-7b --prompts alpaca --template chat --system system.txt \\
      --pooling last5_mean --pooling instruction_last --site resid_post --site mlp_out
    axes ingest activations qwen2.5-7b --prompts alpaca --axis universal
    """
    from axes.ingest.activations import ingest_activations, plan_activations
    from axes.ingest.prompts import import_ready_sets

    spec, placement = model_spec(model, options, root), _placement(options)
    request = ActivationRequest(
        prompt_sets=dict.fromkeys(prompt_sets, limit),
        system=read_system(system_file),
        **options,
    )
    import_ready_sets(root, prompt_sets)
    if dry_run and placement != LOCAL:
        raise click.UsageError("--dry-run runs a batch in this process: leave --on ray out")
    if dry_run:
        return plan_activations(root, spec, request)
    return ingest_activations(root, spec, request, placement)


@ingest.command("traces")
@loading_options
@prompts_option("Prompt set to complete.", name="prompt_set")
@click.option(
    "--completions",
    type=EXISTING_FILE,
    help="Trace these completions instead of generating: .parquet, .csv or .jsonl with prompt or "
    "prompt_id, completion or token_ids, and optionally source.",
)
@system_option
@request_options(TraceRequest)
@request_options(CompletionRequest, "token_budget")
@request_options(Placement)
@root_option
@prints
@click.pass_context
def traces_command(
    context: click.Context,
    model: str,
    prompt_set: str | None,
    completions: Path | None,
    system_file: Path | None,
    root: Path,
    **options: Any,
) -> object:
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
    spec, placement = model_spec(model, options, root), _placement(options)
    options["system"] = read_system(system_file)
    generating, reading = options_of(TraceRequest).keys(), options_of(CompletionRequest).keys()
    if prompt_set is not None:
        _take_out(context, options, reading - generating, "needs --completions")
        import_ready_sets(root, [prompt_set])
        request = TraceRequest(prompt_set=prompt_set, **options)
        return ingest_traces(root, spec, request, placement)
    assert completions is not None
    if placement != LOCAL:
        raise click.UsageError("--on ray does not go with --completions")
    _take_out(context, options, generating - reading, "does not go with --completions")
    return ingest_completions(root, spec, CompletionRequest(completions=completions, **options))


def _placement(options: Options) -> Placement:
    """Where the model runs; its options are removed from `options`."""
    return Placement(**{name: options.pop(name) for name in options_of(Placement)})


class _Layers(Numbers):
    """Layers as a comma list, or `all`, which is None."""

    name = "layers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...] | None:
        return None if value == "all" else super().convert(value, param, ctx)


@click.command()
@click.argument("model", type=MODEL, nargs=-1, required=True)
@prompt_sets_option("Prompt set whose prompts are counted; repeatable.")
@click.option("--layers", type=_Layers(), help="Comma list such as 0,12,23, or all, the default.")
@request_options(PlanRequest)
@root_option
@format_option
def plan(model: tuple[str, ...], root: Path, output_format: str, **options: Any) -> None:
    """Bytes, files, requests, time and money to store the activations of MODEL; runs no model.

    Only configurations are read. Bytes per row and the speed are measured ones where the warehouse
    has files and a finished job of the model; columns bytes_from and seconds_from of --format json
    say so. Money is in the currency of the rates, storage for a month.

    \b
    axes plan smollm2-135m --prompts demo_safety
    axes plan qwen2.5-7b --prompt-count 1000000 --tokens 20 --layers all --teraflops 989 \\
      --efficiency 0.4 --rate 3 --storage-rate 23
    """
    from axes.ingest.cost import in_words
    from axes.ingest.model_estimate import plan_models

    request = PlanRequest(**options)
    if bool(request.prompt_sets) == (request.prompt_count is not None):
        raise click.UsageError("give --prompts SET or --prompt-count N")
    costs = plan_models(root, model, request)
    show_rows(in_words(costs) if output_format == "table" else costs, output_format)


def _take_out(context: click.Context, options: Options, names: Set[str], reason: str) -> None:
    """Drop the options of the other kind of job; raises `UsageError` for one that was typed."""
    for name in sorted(names):
        del options[name]
        if is_typed(name):
            written = next(p for p in context.command.params if p.name == name).opts[0]
            raise click.UsageError(f"{written} {reason}")
