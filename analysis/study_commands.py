"""`axes study`: run a study given by options or by a file; what is asked of studies is below it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from analysis.commands import study_options
from warehouse.options import format_option, memory_limit_option, root_option

if TYPE_CHECKING:
    from analysis.definition import StudyDefinition


class _StudyGroup(click.Group):
    """Whatever is not a subcommand is a study to run; `--claims` is the subcommand spelled so."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--claims" in args:
            args = ["claims", *(word for word in args if word != "--claims")]
        elif args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_StudyGroup)
def study() -> None:
    """The whole chain: ingest what is missing, fit, align, project, evaluate; idempotent.

    A study is given by a TOML file, by the name of one that comes with the package (demo,
    original), or by options; `axes study run --help` lists these, and `run` may be left out.

    \b
    axes study demo
    axes study mine.toml --seed 1
    axes study --group demo --prompts demo_safety --align demo_alignment
    """


@study.command()
@click.argument("file", required=False)
@study_options
@click.option("--device", help="Device of the ingest, where rows are missing.")
@click.option("--dtype", help="dtype of the ingest, where rows are missing.")
@click.option("--report", type=click.Path(path_type=Path), help="Also write the report here.")
@click.option("--no-ingest", is_flag=True, help="Fail where rows are missing; run no model.")
@click.option(
    "--sensitivity", is_flag=True, help="Also measure how far the figures move with each choice."
)
@memory_limit_option
@root_option
@format_option
def run(
    file: str | None,
    device: str | None,
    dtype: str | None,
    report: Path | None,
    no_ingest: bool,
    sensitivity: bool,
    memory_limit: int | None,
    root: Path,
    output_format: str,
    **_options: Any,
) -> None:
    """Run a study: of FILE (a path, or demo or original), or of the options.

    With FILE, options that are given go before its keys. Ready prompt sets (axes prompts list) are
    imported, models are run where activations are missing, and only what depends on what changed
    is computed. `--format json` prints the documented keys; the other formats print the study
    table.

    \b
    axes study demo
    axes study --group demo --prompts demo_safety --align demo_alignment
    axes study --model a --model b --reference b --prompts mine --align alpaca --format json
    """
    from analysis.report import print_study, write_report
    from analysis.sensitivity import measure_sensitivity
    from analysis.study import run_study, study_result

    results = []
    for planned in _planned(file):
        if not no_ingest:
            _ingest_missing(root, planned.definition, planned.origins, device, dtype)
        study_id = run_study(
            root, planned.definition, published=planned.published, memory_limit=memory_limit
        )
        if sensitivity:
            measure_sensitivity(root, study_id, planned.definition, memory_limit=memory_limit)
        if output_format == "json":
            results.append(study_result(root, study_id))
        else:
            print_study(root, study_id, output_format)
        if report is not None:
            click.echo(f"report {write_report(root, report, study_id)}", err=True)
    if output_format == "json":
        click.echo(json.dumps(results if len(results) > 1 else results[0], indent=2))


@study.command("sensitivity")
@click.argument("study_name", metavar="[STUDY]", required=False)
@memory_limit_option
@root_option
@format_option
def sensitivity_command(
    study_name: str | None, memory_limit: int | None, root: Path, output_format: str
) -> None:
    """How far the figures of STUDY move with what was chosen before: one choice at a time.

    STUDY is the start of an id or a study file, by default the last. Every model in turn as the
    reference, lambda over six decades, the depth, the number of alignment rows, and the prompts
    that directions are fitted on.

    \b
    axes study sensitivity demo
    axes study sensitivity 689eb4 --format csv
    """
    from analysis.report import print_sensitivity
    from analysis.sensitivity import measure_sensitivity
    from analysis.study import read_definition
    from warehouse.connection import connect

    for study_id in _find_studies(root, study_name):
        definition = read_definition(connect(root), study_id)
        measure_sensitivity(root, study_id, definition, memory_limit=memory_limit)
        print_sensitivity(root, study_id, output_format)


@study.command()
@click.argument("study_name", metavar="[STUDY]", required=False)
@root_option
@format_option
def claims(study_name: str | None, root: Path, output_format: str) -> None:
    """The source study's claims one by one, as the rows of STUDY decide them.

    STUDY is the start of an id or a study file, by default the last. Each claim is supported, not
    supported or undecided, with estimate, interval and null, and below it the models and the SQL
    behind them; docs/methods.md states the rules. `axes study --claims` is the same.

    \b
    axes study claims demo
    axes study --claims --format json
    """
    from analysis.claims import claim_tables, verdicts
    from warehouse.connection import connect
    from warehouse.render import show

    connection = connect(root)
    for study_id in _find_studies(root, study_name):
        found = verdicts(connection, study_id)
        show(found.table, output_format)
        if output_format not in ("table", "markdown"):
            continue
        for claim in claim_tables(connection, study_id):
            click.echo(f"\n{claim.title}\n{claim.statement}")
            show(claim.table, output_format)


@study.command()
@click.argument("first")
@click.argument("second")
@root_option
@format_option
def diff(first: str, second: str, root: Path, output_format: str) -> None:
    """What differs between two studies: their definitions, and every headline figure.

    FIRST and SECOND are starts of ids or files of one study. The difference is second minus first;
    its interval is paired where both judged the same prompts.

    \b
    axes study diff 689eb4 88ebb7
    axes study diff demo mine.toml --format csv
    """
    from analysis.study_diff import definition_differences, figure_differences
    from warehouse.connection import connect
    from warehouse.render import show_rows

    named = {name: _find_studies(root, name) for name in (first, second)}
    for name, found in named.items():
        if len(found) > 1:
            raise click.UsageError(f"{name} holds {len(found)} studies: give the id of one")
    connection = connect(root)
    a, b = (named[name][0] for name in (first, second))
    if output_format in ("table", "markdown"):
        changed = definition_differences(connection, a, b)
        if changed:
            show_rows(changed, output_format)
        click.echo("" if changed else "one definition, other rows or another version of the code\n")
    show_rows(figure_differences(connection, a, b), output_format)


def _find_studies(root: Path, name: str | None) -> list[str]:
    """The studies of a file, or the one whose id starts so, or the last."""
    from analysis.section import latest_study
    from analysis.study import find_study
    from analysis.study_file import find_study_file
    from warehouse.connection import connect

    connection = connect(root)
    if name is None or find_study_file(name) is None:
        return [latest_study(connection, name)]
    return [find_study(connection, planned.definition) for planned in _planned(name)]


@dataclass(frozen=True)
class _Planned:
    """A study to run: `origins` says how the user named each model."""

    definition: StudyDefinition
    origins: dict[str, str]
    published: dict[str, dict[str, float]]


def _planned(name: str | None) -> list[_Planned]:
    """The studies of a file, with the options that were given in the place of its keys."""
    from analysis.study_file import StudyFile, find_study_file, read_study_file

    given = _given_options(are_defaults_taken=name is None)
    if name is None:
        file = StudyFile(Path(), ({},), {})
    else:
        path = find_study_file(name)
        if path is None:
            raise click.UsageError(f"no study file {name}: give the path of one, demo or original")
        file = read_study_file(path)
    of_models = {"group", "models", "reference"}
    planned = []
    for settings in file.studies:
        if of_models & given.keys():
            settings = {key: value for key, value in settings.items() if key not in of_models}
        planned.append(_plan({**settings, **given}, file.published))
    return list({one.definition: one for one in planned}.values())


def _given_options(*, are_defaults_taken: bool) -> dict[str, Any]:
    """The options that say what the study is, by field of `StudyDefinition` or `group`."""
    from analysis.study_file import option_names

    context = click.get_current_context()
    named = {name: context.params[name] for name in option_names() if name in context.params}
    return {
        name: value
        for name, value in named.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
        or (are_defaults_taken and value not in (None, ()))
    }


def _plan(settings: dict[str, Any], published: Mapping[str, dict[str, float]]) -> _Planned:
    from analysis.definition import StudyDefinition
    from ingest.registry import group_members, known_as

    group, models = settings.pop("group", None), settings.pop("models", ())
    reference = settings.pop("reference", None)
    for name in ("prompts", "align"):
        if name not in settings:
            raise click.UsageError(f"give --{name}, or a study file")
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
        label=group or known_as(reference).partition("@")[0],
        **settings,
    )
    return _Planned(definition, origins, _published(definition, published))


def _published(
    definition: StudyDefinition, published: Mapping[str, dict[str, float]]
) -> dict[str, dict[str, float]]:
    """The published figures of the study's models; those of `*` are of each."""
    from analysis.study_file import EVERY_MODEL

    figures = {
        name.partition("@")[0]: {**published.get(EVERY_MODEL, {}), **published.get(name, {})}
        for name in definition.models
    }
    return {name: of_model for name, of_model in figures.items() if of_model}


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
    from warehouse.imports import is_imported
    from warehouse.layout import init_root

    init_root(root)
    limits: dict[str, int | None] = {definition.align: definition.align_rows}
    limits |= dict.fromkeys(definition.labelled_sets)
    import_ready_sets(root, limits)
    connection = connect(root)
    where = (definition.site, definition.pooling, definition.template)
    for model, origin in origins.items():
        if not is_imported(connection, model) and not is_covered(connection, model, limits, *where):
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
