"""What commands can name: `axes list` for every kind, `axes models` and `axes prompts`.

One command lists all kinds of names, since a user who looks for one should not have to know which
command or table it belongs to; adding a kind is one entry of `_STATEMENTS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axes.cli.options import (
    ABOVE_ZERO,
    COUNT,
    MODEL,
    PROMPT_SET,
    engine_option,
    format_option,
    loading_options,
    model_argument,
    model_spec,
    prints,
    read_system,
    request_options,
    root_option,
    source_option,
    stored_names,
    system_option,
)
from axes.ingest.requests import ModelRequest, PromptRequest
from axes.warehouse.render import echo, show, show_record, show_rows
from axes.warehouse.settings import options_of

if TYPE_CHECKING:
    from axes.ingest.models.registry import ModelSpec

# What `axes list NOUN` prints. The first column is what other commands take as the name.
_STATEMENTS = {
    "axes": """
        select
            if(axes.kind = 'subspace', axes.parameters ->> '$.subspace', axes.name) as name,
            if(axes.kind = 'subspace', axes.parameters ->> '$.subspace_id', axes.axis_id)
                as axis_id,
            axes.kind, axes.method, axes.space_model as model, axes.layer, axes.prompt_set
        from axes left join runs using (run_id)
        where axes.kind != 'subspace' or axes.parameters ->> '$.component' = '1'
        order by axes.kind != 'universal', axes.kind, runs.started_at desc, 1, 2
    """,
    "studies": "from v_studies order by started_at desc, study_id",
    "models": "",
    "prompt-sets": "from v_prompt_sets order by prompt_set",
    "poolings": """
        select
            pooling, site, template, string_agg(distinct model, ', ' order by model) as models,
            count(distinct prompt_id) as prompt_count
        from v_stored group by all order by all
    """,
    "labelers": """
        select
            labeler, count(distinct prompt_id) filter (generation_id is null) as prompt_count,
            count(distinct generation_id) as completion_count
        from labels group by labeler order by labeler
    """,
    "calibrations": """
        select
            calibrations.method, axes.name as axis, calibrations.model, calibrations.prompt_set,
            calibrations.target, calibrations.threshold, calibrations.calibration_id
        from calibrations left join axes using (axis_id)
        order by all
    """,
    "scorings": """
        select
            scoring_id, string_agg(distinct model, ', ' order by model) as models,
            count(distinct prompt_id) as prompt_count
        from scored_answers group by scoring_id order by scoring_id
    """,
}


@click.command("list")
@click.argument("noun", type=click.Choice(tuple(_STATEMENTS)))
@click.argument("text", required=False)
@root_option
@format_option
def list_(noun: str, text: str | None, root: Path, output_format: str) -> None:
    """List the names that other commands take: of axes, studies, models, prompt sets, ...

    With TEXT, only the rows that contain it. `models` lists the registry and the warehouse,
    `prompt-sets` those imported (those ready to import are named on stderr).

    \b
    axes list axes universal
    axes list studies
    axes list poolings --format json
    """
    import pyarrow as pa

    from axes.warehouse.handle import Warehouse

    if noun == "models":
        table = pa.Table.from_pylist(_models(root))
    else:
        table = Warehouse.open(root).query(_STATEMENTS[noun])
    if text is not None:
        lines = (" ".join(map(str, row.values())) for row in table.to_pylist())
        table = table.filter(pa.array([text in line for line in lines], pa.bool_()))
    show(table, output_format)
    if noun == "prompt-sets":
        from axes.ingest.prompt_sources import ready_sets

        echo(f"ready to import by name: {', '.join(ready_sets())}", err=True)


def _models(root: Path) -> list[dict[str, object]]:
    """Models of the registry, then others with rows in the warehouse, which need not exist."""
    from axes.ingest.models.registry import registry
    from axes.warehouse.settings import cache_folder

    echo(f"cache: {cache_folder()}", err=True)
    stored, specs = stored_names(root, "activations", "model"), registry()
    return [_model_row(n, specs.get(n), n in stored) for n in dict.fromkeys([*specs, *stored])]


def _model_row(name: str, spec: ModelSpec | None, is_stored: bool) -> dict[str, object]:
    source = None if spec is None else spec.source
    if spec is not None and spec.wheels:
        source = f"pypi: {spec.wheels[0]}" + (" ..." if spec.wheels[1:] else "")
    return {
        "model": name,
        "group": spec and spec.group,
        "reference": spec is not None and spec.is_reference,
        "is_chat": spec and spec.is_chat,
        "base": spec and spec.base,
        "is_gated": spec and spec.is_gated,
        "is_stored": is_stored,
        "source": source,
        "license": spec and spec.license,
    }


@click.group()
def models() -> None:
    """Show, fetch and check models; `axes list models` lists them.

    \b
    axes models show smollm2-135m
    axes models fetch smollm2-135m
    """


@models.command("show")
@model_argument
@source_option
@click.option(
    "--estimate",
    "is_estimate",
    is_flag=True,
    help="Estimate memory, storage and time without downloading the model.",
)
@click.option(
    "--tokens-per-second",
    type=ABOVE_ZERO,
    help="Speed to assume. Default: 1000.",
)
@click.option(
    "--tokens-per-prompt",
    type=ABOVE_ZERO,
    help="Prompt length to assume. Default: 20, as in the built-in sets.",
)
@format_option
def models_show(
    model: str,
    source: str | None,
    is_estimate: bool,
    output_format: str,
    **assumed: float | None,
) -> None:
    """Show the registry's entry of MODEL, or with --estimate what the model needs.

    The estimate reads only the configuration and the file sizes from the hub. It prints the size of
    the download, memory by dtype, and rows, bytes and time for 1,000 prompts.

    \b
    axes models show qwen2.5-7b
    axes models show qwen2.5-7b --estimate --tokens-per-second 5000
    """
    from axes.ingest.models.registry import resolve

    spec = resolve(model, source)
    assumptions = {name: value for name, value in assumed.items() if value is not None}
    if not is_estimate:
        if assumptions:
            raise click.UsageError("--tokens-per-second and --tokens-per-prompt need --estimate")
        show_record(spec, output_format)
        return
    from axes.ingest.model_estimate import estimate_needs, in_words

    estimate = estimate_needs(spec, **assumptions)
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
        echo(fetch(resolve(name)))


@models.command("doctor")
@loading_options
@system_option
@request_options(ModelRequest, "template_options", "assistant_prefill")
@engine_option
@format_option
def models_doctor(
    model: str,
    system_file: Path | None,
    device: str | None,
    dtype: str | None,
    output_format: str,
    **options: Any,
) -> None:
    """Check on ten prompts that the activations to store are those that MODEL computes.

    Shows a prompt in the chat template, with the options given, and which of them it ignores. With
    --engine vllm, compares that engine with transformers. Exit code 1 where a check fails.

    \b
    axes models doctor smollm2-135m
    axes models doctor qwen3-0.6b-instruct --template-option enable_thinking=false
    axes models doctor my-run --source ./checkpoint --dtype bfloat16
    """
    from axes.cli.system import print_findings
    from axes.ingest.model_doctor import examine

    spec = model_spec(model, options)
    system = read_system(system_file)
    template = ModelRequest(template="chat", system=system, **options).rendering
    requested = None if template.name == "chat" else template
    findings = examine(spec, device=device, dtype=dtype, template=requested)
    print_findings(findings, output_format)


@click.group()
def prompts() -> None:
    """Import prompt sets; `axes list prompt-sets` lists them.

    \b
    axes prompts import demo_safety
    axes prompts import mine prompts.csv --positive toxic
    """


@prompts.command("import")
@click.argument("prompt_set", type=PROMPT_SET, metavar="SET")
@click.argument("source", required=False)
@click.option(
    "--positive-file", help="File of the positive class; with --negative-file, instead of SOURCE."
)
@click.option(
    "--negative-file", help="File of the negative class; line i of both files is a matched pair."
)
@click.option("--unpaired", is_flag=True, help="Lines of the two files are not matched pairs.")
@click.option(
    "--text-column",
    help="Column of the text. Default: text, prompt, or messages (what the user says first).",
)
@click.option("--label-column", help="Column of the label. Default: label.")
@click.option("--category-column", help="Column of the category. Default: category.")
@click.option("--license", help="Licence of the text, if the source has no column for it.")
@click.option("--split", help="Split of a hub data set. Default: train.")
@click.option("--per-label", type=COUNT, help="Use only the first rows of each class.")
@request_options(PromptRequest)
@root_option
@prints
def prompts_import(
    prompt_set: str, source: str | None, unpaired: bool, root: Path, **options: Any
) -> object:
    """Import SET from SOURCE: a .parquet, .csv, .tsv, .jsonl, .json or .txt file (a prompt a
    line), or hf:OWNER/NAME[:CONFIG][@REV].

    A concept can also be two files, one for each class. The built-in sets demo_safety,
    demo_formality, demo_alignment, prompt_safety, alpaca and concept_NAME (formality, sentiment,
    certainty, tense, concreteness, politeness) need no SOURCE. Text is normalised and deduplicated;
    the order of the source is kept.

    \b
    axes prompts import safety_600 safety_600.parquet
    axes prompts import formality --positive-file formal.txt --negative-file informal.txt
    axes prompts import alpaca hf:tatsu-lab/alpaca --text-column instruction
    """
    from axes.ingest.prompt_sources import prompt_source
    from axes.ingest.prompts import import_prompts

    positive_file, negative_file = options["positive_file"], options["negative_file"]
    if (positive_file is None) != (negative_file is None):
        raise click.UsageError("--positive-file and --negative-file go together")
    if positive_file is not None and source is not None:
        raise click.UsageError("give SOURCE, or two files, not both")
    if unpaired and positive_file is None:
        raise click.UsageError("--unpaired needs --positive-file and --negative-file")
    request = PromptRequest(**{name: options.pop(name) for name in options_of(PromptRequest)})
    columns = {name: options.pop(f"{name}_column") for name in ("text", "label", "category")}
    origin = prompt_source(
        prompt_set,
        source,
        is_paired=not unpaired,
        columns={name: column for name, column in columns.items() if column is not None},
        **options,
    )
    return import_prompts(root, prompt_set, origin, request)
