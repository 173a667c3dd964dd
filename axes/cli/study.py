"""What concerns a study: `axes study` runs, compares and varies one; report and diagnosis of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from axes.analysis.study.definition import (
    OPTIONS,
    StudyDefinition,
    find_study_file,
    packaged_studies,
)
from axes.cli.options import (
    ABOVE_ZERO,
    FILE,
    GROUP,
    MODEL,
    STUDY,
    Command,
    device_option,
    dtype_option,
    format_option,
    is_typed,
    memory_limit_option,
    request_options,
    root_option,
    show_query,
    with_warehouse,
)
from axes.warehouse.render import echo, echo_id, show, show_rows

if TYPE_CHECKING:
    from axes.study_plan import PlannedStudy
    from axes.warehouse.handle import Warehouse


def study_options(*names: str) -> Callable[[Command], Command]:
    """Options of a study, those of these names or all; a study file may have them instead."""
    return request_options(StudyDefinition, *names, is_required=False)


space_options = study_options("site", "pooling", "template")


class _StudyGroup(click.Group):
    """Whatever is not a subcommand is a study to run; `--claims` is the subcommand spelled so."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--claims" in args:
            args = ["claims", *(word for word in args if word != "--claims")]
        elif args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What `run` takes too, since that word may be left out."""
        context = click.Context(run, info_name="run", parent=ctx)
        names = [*super().shell_complete(ctx, incomplete), *run.shell_complete(context, incomplete)]
        if not incomplete.startswith("-"):
            names += _StudyFile().shell_complete(context, run.params[0], incomplete)
        return names


class _StudyFile(click.types.StringParamType):
    """A study of the package or a file, completed by the shell; stored ids where `ids`."""

    def __init__(self, *, ids: bool = False) -> None:
        self._ids = ids

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        packaged = [CompletionItem(n) for n in packaged_studies() if n.startswith(incomplete)]
        stored = STUDY.shell_complete(ctx, param, incomplete) if self._ids else []
        return [*packaged, *stored, CompletionItem(incomplete, type="file")]


_STUDY = _StudyFile(ids=True)


def _split(
    _context: click.Context, _param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    """The names of a list with commas, each once."""
    if value is None:
        return None
    return tuple(dict.fromkeys(filter(None, map(str.strip, value.split(",")))))


@click.group(cls=_StudyGroup)
def study() -> None:
    """The whole chain: ingest missing rows, fit, align, project, evaluate; idempotent.

    A study is a TOML file, the name of a packaged one (demo, original), or a set of options:
    `axes study run --help` lists them. The word `run` may be left out.

    \b
    axes study demo
    axes study mine.toml --seed 1
    axes study --group demo --prompts demo_safety --align demo_alignment
    """


@study.command()
@click.argument("file", type=_StudyFile(), required=False)
@click.option("--group", type=GROUP, help="Models of this group of the registry.")
@click.option(
    "--concepts",
    callback=_split,
    help="Labelled sets, with commas, in place of --prompts: a study of each, then k-way.",
)
@study_options()
@device_option
@dtype_option
@click.option("--report", type=FILE, help="Also write the report to this file.")
@click.option("--no-ingest", is_flag=True, help="Run no model; fail where activations are missing.")
@click.option(
    "--sensitivity",
    is_flag=True,
    help="Also run the sensitivity analysis (axes study sensitivity).",
)
@click.option(
    "--estimate",
    "is_estimate",
    is_flag=True,
    help="Print what each model needs, and which ones the hub refuses; run none.",
)
@click.option(
    "--power",
    "is_power",
    is_flag=True,
    help="Print the smallest effects that the labelled prompts can show; run no model.",
)
@click.option(
    "--teraflops",
    type=ABOVE_ZERO,
    help="Speed that --estimate assumes, in 10^12 operations per second. Default: 1.",
)
@memory_limit_option
@root_option
@format_option
def run(
    file: str | None,
    report: Path | None,
    is_estimate: bool,
    is_power: bool,
    teraflops: float | None,
    root: Path,
    output_format: str,
    **options: Any,
) -> None:
    """Run a study: that of FILE (a path, demo or original), or that of the options.

    Options override the keys of FILE. Built-in prompt sets (axes list prompt-sets) are imported,
    models run only where activations are missing, and stored results are not recomputed. The hub
    is asked for all models before the first one runs. `--format json` prints the documented keys;
    the other formats print the study table. Of a FILE with several studies, each has its own
    report: `report.html` becomes `report-GROUP.html`. With --concepts, which of the concepts
    differs within a pair is predicted too, out of fold and by the axes of the other models.
    Several poolings or templates, with commas: a study for each, last the directions' angles.

    \b
    axes study demo
    axes study original --estimate --teraflops 100
    axes study demo --power
    axes study --group demo --prompts demo_safety --align demo_alignment
    axes study --model a --model b --reference b --prompts mine --align alpaca --format json
    axes study --group demo --align demo_alignment --concepts concept_tense,concept_certainty
    axes study --group demo --align demo_alignment --prompts demo_safety --pooling last,mean
    """
    from axes.analysis.report.report import write_report
    from axes.analysis.study.run import study_result
    from axes.study_plan import direction_angles, report_file, run_concepts, run_planned
    from axes.warehouse.handle import Warehouse

    names = ("no_ingest", "sensitivity", "device", "dtype", "memory_limit")
    run_options = {name: options[name] for name in names}
    studies, results, study_ids = _planned(file), [], []
    if is_power:
        from axes.study_estimate import study_power

        show_rows(study_power(root, studies), output_format)
        return
    if is_estimate or teraflops is not None:
        _print_estimate(root, studies, is_estimate, teraflops, output_format)
        return
    for planned, study_id in zip(studies, run_planned(root, studies, **run_options), strict=True):
        study_ids.append(study_id)
        if output_format == "json":
            results.append(study_result(root, study_id))
        else:
            _print_study(Warehouse.open(root), study_id, output_format)
        if report is not None:
            output = report_file(report, planned, studies, study_id)
            echo(f"report {write_report(root, output, study_id)}", err=True)
    concepts = run_concepts(root, studies, study_ids, memory_limit=options["memory_limit"])
    results += _print_concepts(root, concepts, output_format)
    results += _print_angles(direction_angles(root, studies, study_ids), output_format)
    if output_format == "json":
        echo(json.dumps(results if len(results) > 1 else results[0], indent=2))


def _print_concepts(
    root: Path, concept_ids: Iterable[str], output_format: str
) -> list[dict[str, object]]:
    """Print k-way evaluations, for a terminal all of their tables; as JSON return them instead."""
    from axes.analysis.report.concept_tables import concept_tables
    from axes.warehouse.handle import Warehouse

    results: list[dict[str, object]] = []
    for concept_id in concept_ids:
        tables = concept_tables(Warehouse.open(root), concept_id)
        if output_format == "json":
            named = {section.name: table.to_pylist() for section, table in tables.items()}
            results.append({"study_id": concept_id, **named})
            continue
        for section, table in tables.items():
            if output_format in ("table", "markdown"):
                echo(f"\n{section.title}")
                show(table, output_format)
            elif section.name == "concepts":
                show(table, output_format)
        echo_id("concepts", concept_id)
    return results


def _print_angles(angles: list[dict[str, object]], output_format: str) -> list[dict[str, object]]:
    """Print angles between directions, if there are any; as JSON return them instead."""
    if angles and output_format != "json":
        show_rows(angles, output_format)
    return [{"direction_angles": angles}] if angles else []


def _print_estimate(
    root: Path,
    studies: list[PlannedStudy],
    is_estimate: bool,
    teraflops: float | None,
    output_format: str,
) -> None:
    """Print what the studies' models need, and on stderr which ones the hub refuses."""
    if not is_estimate:
        raise click.UsageError("--teraflops needs --estimate")
    from axes.study_estimate import TERAFLOPS, estimate_studies, in_words

    needs, refusals = estimate_studies(root, studies, teraflops=teraflops or TERAFLOPS)
    if needs:
        show_rows(in_words(needs) if output_format == "table" else needs, output_format)
    for refusal in refusals:
        echo(f"warning: {refusal}", err=True)


@study.command("sensitivity")
@click.argument("study_name", metavar="[STUDY]", type=_STUDY, required=False)
@memory_limit_option
@root_option
@format_option
def sensitivity_command(
    study_name: str | None, memory_limit: int | None, root: Path, output_format: str
) -> None:
    """Sensitivity analysis: change one setting of STUDY at a time and compare the results.

    STUDY is the start of an id or a study file; default: the last study. The settings are the
    reference (every model in turn), lambda over six decades, the layer, the number of alignment
    rows, and the prompts that directions are fitted on.

    \b
    axes study sensitivity demo
    axes study sensitivity 689eb4 --format csv
    """
    from axes.analysis.study.robustness.sensitivity import measure_sensitivity
    from axes.analysis.study.run import read_definition
    from axes.warehouse.handle import Warehouse

    warehouse = Warehouse.open(root)
    for study_id in _find_studies(warehouse, study_name):
        definition = read_definition(warehouse.connection, study_id)
        measure_sensitivity(root, study_id, definition, memory_limit=memory_limit)
        _print_sensitivity(warehouse, study_id, output_format)


@study.command()
@click.argument("study_name", metavar="[STUDY]", type=_STUDY, required=False)
@with_warehouse
@format_option
def claims(study_name: str | None, warehouse: Warehouse, output_format: str) -> None:
    """Check each claim of the source study against the rows of STUDY.

    STUDY is the start of an id or a study file; default: the last study. Each claim is supported,
    not supported or undecided, with estimate, interval and null, followed by the models and the
    SQL behind it. docs/claims.md states the rules. `axes study --claims` does the same.

    \b
    axes study claims demo
    axes study --claims --format json
    """
    from axes.analysis.study.claims import claim_tables, verdicts

    for study_id in _find_studies(warehouse, study_name):
        found = verdicts(warehouse.connection, study_id)
        show(found.table, output_format, sql=found.statement)
        echo_id("study", study_id)
        if output_format not in ("table", "markdown"):
            continue
        for claim in claim_tables(warehouse.connection, study_id):
            echo(f"\n{claim.title}\n{claim.statement}")
            show(claim.table, output_format)


@study.command()
@click.argument("first", type=_STUDY)
@click.argument("second", type=_STUDY)
@with_warehouse
@format_option
def diff(first: str, second: str, warehouse: Warehouse, output_format: str) -> None:
    """Compare two studies: their definitions, and every headline metric.

    FIRST and SECOND are starts of ids, or files with one study each. The difference is second minus
    first; its interval is paired where both were evaluated on the same prompts.

    \b
    axes study diff 689eb4 88ebb7
    axes study diff demo mine.toml --format csv
    """
    from axes.analysis.study.claims import definition_differences, metric_differences

    study_ids = []
    for name in (first, second):
        named = _find_studies(warehouse, name)
        if len(named) > 1:
            raise click.UsageError(f"{name} defines {len(named)} studies: give the id of one")
        study_ids += named
    if output_format in ("table", "markdown"):
        changed = definition_differences(warehouse.connection, *study_ids)
        if changed:
            show_rows(changed, output_format)
        echo("" if changed else "same definition; the rows or the version of the code differ\n")
    show_rows(metric_differences(warehouse, *study_ids), output_format)


def _find_studies(warehouse: Warehouse, name: str | None) -> list[str]:
    """The ids of the studies of a file, or of the one whose id starts so, or of the last."""
    from axes.analysis.report.section import latest_study
    from axes.analysis.study.run import find_study

    if name is None or find_study_file(name) is None:
        return [latest_study(warehouse.connection, name)]
    return [find_study(warehouse, planned.definition) for planned in _planned(name)]


def _planned(name: str | None) -> list[PlannedStudy]:
    """The studies of a file, with the options that were typed in the place of its keys."""
    from axes.study_plan import plan_studies
    from axes.warehouse.errors import DefinitionError

    try:
        options = _study_settings(are_defaults_taken=name is None)
        return plan_studies(name, options, hints=study.commands)
    except DefinitionError as error:
        if name is None or find_study_file(name) is None:  # Then what was typed is wrong.
            raise click.UsageError(str(error)) from error
        raise


def _study_settings(*, are_defaults_taken: bool) -> dict[str, Any]:
    """The options that say what the study is, by field of `StudyDefinition` or `group`."""
    context = click.get_current_context()
    named = {name: context.params[name] for name in OPTIONS if name in context.params}
    return {
        name: value
        for name, value in named.items()
        if is_typed(name) or (are_defaults_taken and value not in (None, ()))
    }


@click.command()
@click.argument("study_id", metavar="[STUDY]", type=STUDY, required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="File to write: a page (.html) or Markdown (.md).",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write every chart as SVG and PNG, its rows as CSV and its SQL to this folder.",
)
@root_option
def report(study_id: str | None, output: Path, figures: Path | None, root: Path) -> None:
    """Write all results of STUDY (the start of its id; default: the last study) as one file.

    The page opens from disk and needs no network: sortable tables, charts, and the SQL behind each.
    A result that is not computed yet is named with the command that computes it.

    \b
    axes report
    axes report 31011258 -o study.html --figures figures
    axes report -o report.md
    """
    from axes.analysis.report.report import write_report

    echo(write_report(root, output, study_id, figures=figures))


_CHECKS = """
select model, prompt_set, check_name, is_fault, verdict, figures
from diagnostics
where study_id = $study_id
order by model, prompt_set, place
"""


@click.command()
@click.argument("study_id", metavar="[STUDY]", type=STUDY, required=False)
@click.option("--model", type=MODEL, help="Only this model; without STUDY, of its last study.")
@click.option("--checks", is_flag=True, help="Print every check with its numbers.")
@memory_limit_option
@root_option
@format_option
def diagnose(
    study_id: str | None,
    model: str | None,
    checks: bool,
    memory_limit: int | None,
    root: Path,
    output_format: str,
) -> None:
    """Explain why the universal axis of a study ranks prompts as it does, model by model.

    STUDY is the start of a study's id; default: the last study. Most useful where the cosine is
    high and the AUROC is not. Checks class means and within-class standard deviations along the
    axis, rows that dominate the means, massive dimensions, the alignment on labelled text, lambda,
    the intercept, swapped labels and words. docs/methods.md says which of these can be the cause.

    \b
    axes diagnose
    axes diagnose --model gemma3-270m --checks
    """
    from axes.analysis.report import tables
    from axes.analysis.study.diagnosis.diagnose import diagnose_study, find_diagnosed
    from axes.warehouse.handle import Warehouse

    warehouse = Warehouse.open(root)
    study_id, _ = find_diagnosed(warehouse.connection, study_id or model)
    diagnose_study(root, study_id, memory_limit=memory_limit)
    sql = _CHECKS if checks else tables.DIAGNOSES.sql
    parameters = {"study_id": study_id}
    if model is not None:
        sql, parameters["model"] = f"from ({sql}) where model = $model", model
    show_query(warehouse, sql, parameters, output_format)
    echo_id("study", study_id)


def _print_study(warehouse: Warehouse, study_id: str, output_format: str) -> None:
    """Print the study table; for a terminal also published values and claims. Warns on stderr."""
    from axes.analysis.report import tables
    from axes.analysis.report.report import warnings_in_short
    from axes.analysis.study.claims import verdicts

    parameters = {"study_id": study_id}
    show(warehouse.query(tables.STUDY.sql, parameters), output_format)
    if output_format in ("table", "markdown"):
        published = warehouse.query(tables.PUBLISHED.sql, parameters)
        for table in (published, verdicts(warehouse.connection, study_id).table):
            if table.num_rows:
                echo()
                show(table, output_format)
    for warning in warnings_in_short(warehouse.connection, study_id):
        echo(f"warning: {warning}", err=True)
    echo(f"study {study_id}", err=True)
    same = "(select prompts from v_studies where study_id = $study_id)"
    (count,) = warehouse.column(
        f"select count(*) from v_studies where prompts = {same}", parameters
    )
    if count > 1:
        text = "studies of these prompts are stored: name one, as in `study_id = latest_study()`"
        echo(f"{count} {text}", err=True)


def _print_sensitivity(warehouse: Warehouse, study_id: str, output_format: str) -> None:
    """Print how much the metrics of a study change with each setting; warns on stderr."""
    from axes.analysis.report import tables
    from axes.analysis.report.report import sensitivity_warnings

    show_query(warehouse, tables.SENSITIVITY.sql, {"study_id": study_id}, output_format)
    echo_id("study", study_id)
    for warning in sensitivity_warnings(warehouse.connection, study_id):
        echo(f"warning: {warning}", err=True)
