"""`axes study`, `axes fit`, `axes export` and `axes report`: parse, call one function, print."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warehouse.options import format_option, memory_limit_option, root_option
from warehouse.sites import SITES

if TYPE_CHECKING:
    from analysis.definition import StudyDefinition


def _space_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which of a model's stored activations are read."""
    for option in (
        click.option(
            "--template",
            default="raw",
            show_default=True,
            help="As stored: raw, chat, chat+system:HASH.",
        ),
        click.option(
            "--pooling", default="last5_mean", show_default=True, help="As stored: last, mean, ..."
        ),
        click.option("--site", type=click.Choice(SITES), default=SITES[0], show_default=True),
    ):
        command = option(command)
    return command


def _method_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How directions, alignments and shared axes are fitted: fields of `StudyDefinition`."""
    for option in (
        click.option(
            "--alignment-shuffles",
            type=click.IntRange(min=0),
            default=20,
            show_default=True,
            help="Refits on shuffled pairs, the null of R2; none with 0.",
        ),
        click.option(
            "--scale/--no-scale",
            "is_scaled",
            default=True,
            show_default=True,
            help="Whether procrustes may stretch.",
        ),
        click.option(
            "--hidden-width", type=click.IntRange(min=1), help="A hidden layer, for gradient."
        ),
        click.option(
            "--rank",
            type=click.IntRange(min=1),
            help="Of reduced_rank and cca (default: chosen), gradient (default: full).",
        ),
        click.option(
            "--lambda-policy",
            type=click.Choice(("held_out", "gcv")),
            default="held_out",
            show_default=True,
            help="What chooses lambda: held-out rows or generalised cross-validation.",
        ),
        click.option(
            "--ridge-lambda",
            type=click.FloatRange(min=0.0, min_open=True),
            help="Default: chosen per model on alignment rows.",
        ),
        click.option(
            "--alignment",
            type=click.Choice(("ridge", "procrustes", "reduced_rank", "cca", "gradient")),
            default="ridge",
            show_default=True,
            help="The map from each model into the reference.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--group", help="Models of this group of the registry, with its reference.")
@click.option("--model", "models", multiple=True, help="A model; repeatable, instead of --group.")
@click.option("--reference", help="The model whose space is aligned into.")
@click.option("--prompts", required=True, help="Labelled set that the directions are fitted on.")
@click.option("--align", required=True, help="Unlabelled set that the alignments are fitted on.")
@click.option("--evaluate", multiple=True, help="Another labelled set to judge on; repeatable.")
@click.option("--align-rows", type=click.IntRange(min=10), default=3000, show_default=True)
@click.option(
    "--layer-fraction",
    type=click.FloatRange(0.0, 1.0),
    default=0.8,
    show_default=True,
    help="Layer round(fraction * (layer_count - 1)) of each model.",
)
@_method_options
@_space_options
@click.option("--device", help="Device of the ingest, where rows are missing.")
@click.option("--dtype", help="dtype of the ingest, where rows are missing.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--allow-missing", is_flag=True, help="Go on where rows are missing, and say so.")
@click.option("--report", type=click.Path(path_type=Path), help="Also write the report here.")
@click.option("--no-ingest", is_flag=True, help="Fail where rows are missing; run no model.")
@memory_limit_option
@root_option
@format_option
def study(
    group: str | None,
    models: tuple[str, ...],
    reference: str | None,
    prompts: str,
    align: str,
    evaluate: tuple[str, ...],
    align_rows: int,
    layer_fraction: float,
    site: str,
    pooling: str,
    template: str,
    device: str | None,
    dtype: str | None,
    seed: int,
    allow_missing: bool,
    report: Path | None,
    no_ingest: bool,
    memory_limit: int | None,
    root: Path,
    output_format: str,
    **methods: Any,
) -> None:
    """The whole chain: ingest what is missing, fit, align, project, evaluate; idempotent.

    Ready prompt sets (axes prompts list) are imported, models are run where activations are
    missing. `--format json` prints the documented keys; the other formats print the study table.

    \b
    axes study --group demo --prompts demo_safety --align demo_alignment
    axes study --model a --model b --reference b --prompts mine --align alpaca --format json
    """
    from analysis.definition import StudyDefinition
    from analysis.report import STUDY_TABLE, write_report
    from analysis.study import run_study, study_result
    from ingest.registry import group_members, known_as
    from warehouse.connection import connect, query
    from warehouse.render import show

    if (group is None) == (not models):
        raise click.UsageError("give --group, or --model for each model")
    if group is not None:
        models, group_reference = group_members(group)
        reference = reference or group_reference
    if reference is None:
        raise click.UsageError("give --reference with --model")
    origins = {known_as(model): model for model in models}
    definition = StudyDefinition(
        models=tuple(origins),
        reference=known_as(reference),
        prompts=prompts,
        align=align,
        evaluate=evaluate,
        align_rows=align_rows,
        layer_fraction=layer_fraction,
        **methods,
        site=site,
        pooling=pooling,
        template=template,
        seed=seed,
        allow_missing=allow_missing,
        label=group or known_as(reference).partition("@")[0],
    )
    if not no_ingest:
        _ingest_missing(root, definition, origins, device, dtype)
    study_id = run_study(root, definition, memory_limit=memory_limit)
    if output_format == "json":
        click.echo(json.dumps(study_result(root, study_id), indent=2))
    else:
        statement = STUDY_TABLE.replace("{study_id}", study_id)
        show(query(connect(root), statement), output_format)
        click.echo(f"study {study_id}", err=True)
    if report is not None:
        click.echo(f"report {write_report(root, report, study_id)}", err=True)


@click.command()
@click.argument("model")
@click.option("--prompts", required=True, help="Labelled prompt set.")
@click.option("--evaluate", multiple=True, help="Another labelled set to judge on; repeatable.")
@_space_options
@click.option("--allow-missing", is_flag=True, help="Go on where rows are missing.")
@memory_limit_option
@root_option
@format_option
def fit(
    model: str,
    prompts: str,
    evaluate: tuple[str, ...],
    site: str,
    pooling: str,
    template: str,
    allow_missing: bool,
    memory_limit: int | None,
    root: Path,
    output_format: str,
) -> None:
    """Fit MODEL's direction (difference in means) at every layer, and project the prompts on it.

    \b
    axes fit smollm2-135m --prompts demo_safety
    """
    from analysis.fitting import fit_native
    from analysis.matrices import find_space
    from ingest.registry import known_as
    from warehouse.connection import connect, query
    from warehouse.render import show
    from warehouse.runs import record_run

    connection = connect(root, memory_limit=memory_limit)
    space = find_space(connection, known_as(model), site=site, pooling=pooling, template=template)
    parameters = {"model": model, "prompts": prompts, "evaluate": evaluate}
    with record_run(root, "fit", parameters) as run:
        axes = fit_native(
            root, connection, run, space, prompts, evaluate, allow_missing=allow_missing
        )
    fitted = query(
        connection,
        "select axis_id, axis_name, layer, prompt_set, auroc, is_in_sample from v_auroc "
        "where list_contains(?, axis_id) order by layer, prompt_set",
        [[axis.axis_id for axis in axes]],
    )
    show(fitted, output_format)


@click.command()
@click.argument("axis")
@click.option(
    "--to", type=click.Choice(("safetensors", "json", "gguf")), required=True, help="File format."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: NAME.FORMAT.")
@root_option
def export(axis: str, to: str, output: Path | None, root: Path) -> None:
    """Write AXIS (an id, the start of one, or a name) with its card; print the path.

    \b
    axes sql "select axis_id, name from axes where kind = 'universal'"
    axes export universal/demo/18/demo_safety/lambda-held_out --to safetensors
    """
    from analysis.export import export_axis
    from warehouse.connection import connect

    target = output or Path(f"{axis.replace('/', '-')}.{to}")
    click.echo(export_axis(connect(root), axis, to, target))


@click.command("report")
@click.argument("study", required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("report.md"), show_default=True
)
@root_option
def report_command(study: str | None, output: Path, root: Path) -> None:
    """Write the tables of STUDY (the start of its id; default the last) as Markdown.

    \b
    axes report -o report.md
    """
    from analysis.report import write_report

    click.echo(write_report(root, output, study))


def _ingest_missing(
    root: Path,
    definition: StudyDefinition,
    origins: Mapping[str, str],
    device: str | None,
    dtype: str | None,
) -> None:
    """Import ready prompt sets that are absent, and run each model whose rows are incomplete.

    `origins` says how the user named each model.
    """
    from analysis.matrices import is_covered
    from ingest.activations import ingest_activations
    from ingest.pooling import find_pooling
    from ingest.prompts import import_ready_sets
    from ingest.registry import resolve
    from ingest.selection import Selection
    from ingest.templates import Template
    from warehouse.connection import connect
    from warehouse.layout import init_root

    init_root(root)
    limits: dict[str, int | None] = {definition.align: definition.align_rows}
    limits |= dict.fromkeys(definition.labelled_sets)
    import_ready_sets(root, limits)
    connection = connect(root)
    where = (definition.site, definition.pooling, definition.template)
    for model, origin in origins.items():
        if not is_covered(connection, model, limits, *where):
            selection = Selection(
                sites=(definition.site,),
                poolings=(find_pooling(definition.pooling),),
                template=Template(definition.template),
            )
            ingest_activations(
                root,
                resolve(origin),
                limits,
                selection,
                device=device,
                dtype=dtype,
                skip_unusable=definition.allow_missing,
            )
