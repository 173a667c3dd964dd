"""Python's functions: read a warehouse, and run what the commands run.

`root` is the warehouse's folder; default: `$AXES_ROOT`, else `root` of axes.toml, else `./lake`.
`device` and `dtype` have the same defaults as on the command line. An argument that takes several
names also takes one text. Errors that the caller can fix are `axes.AxesError`. Heavy libraries are
imported in the functions that need them.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import click

from axes.cli.main import cli
from axes.command_line import as_command
from axes.warehouse.errors import AxesError, DefinitionError
from axes.warehouse.names import did_you_mean, sql_literal
from axes.warehouse.settings import root_folder, setting

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from axes.ingest.jobs import IngestSummary
    from axes.ingest.prompts import ImportSummary
    from axes.results import Axis, Result, Study

Folder = str | Path
Names = str | Sequence[str]


def connect(root: Folder | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with every table, view and macro of a warehouse.

    Fetch results with DuckDB's methods: `.to_arrow_table()`, `.pl()`, `.df()`, `.fetchall()`.
    Raises `AxesError` where `root` is not a warehouse.
    """
    from axes.warehouse.connection import connect_unlocked

    return connect_unlocked(root_folder(root), is_commented=True)


def scan(table: str, root: Folder | None = None) -> pl.LazyFrame:
    """A polars LazyFrame over one table (`axes.scan("activations")`), partitions typed as text.

    Raises `AxesError` for an unknown table or root.
    """
    from axes.warehouse.connection import scan as scan_table

    return scan_table(table, root_folder(root))


def read_study(study_id: str | None = None, *, root: Folder | None = None) -> Study:
    """Results of a stored study (the start of its id; default: the last). Raises `AxesError`."""
    from axes.analysis.report.report import latest_study, sensitivity_warnings
    from axes.analysis.study.run import study_result
    from axes.results import Study
    from axes.warehouse.connection import connect as open_root
    from axes.warehouse.connection import query, rows

    folder = root_folder(root)
    connection = open_root(folder)
    study_id = latest_study(connection, study_id)
    sql = (
        f"select * exclude (study_id) from v_study where study_id = {sql_literal(study_id)} "
        "order by prompt_set, model"
    )
    warnings = rows(
        connection,
        "select text from v_study_warnings where study_id = ? order by warning, prompt_set, model",
        [study_id],
    )
    texts = [row["text"] for row in warnings] + sensitivity_warnings(connection, study_id)
    figures = study_result(folder, study_id)
    title = f"study {study_id[:8]} of {figures['definition']['label']}"
    return Study(
        title, query(connection, sql), sql, study_id, tuple(dict.fromkeys(texts)), figures=figures
    )


def load_axis(axis: str, *, root: Folder | None = None) -> Axis:
    """The vector and card of an axis (a name, an id, or the start of one). Raises `AxisError`.

    axes.load_axis("universal/demo/18/demo_safety/lambda-held_out").project(x)   # [n, d] -> [n]
    """
    from axes.analysis.exchange.card import axis_card
    from axes.results import Axis
    from axes.warehouse.axes import find_axis
    from axes.warehouse.handle import Warehouse

    warehouse = Warehouse.open(root_folder(root))
    found = find_axis(warehouse, axis)
    vector = found.vector.astype("float32")
    vector.flags.writeable = False
    return Axis(vector, axis_card(warehouse, found))


def export(axis: str, output: Folder, *, to: str | None = None, root: Folder | None = None) -> Path:
    """Write an axis with its card to a file; return the path.

    `to` is a format of `axes export`; default: the file's suffix. Raises `AxisError`.
    """
    from axes.analysis.exchange.export_axes import export_axes
    from axes.analysis.exchange.formats import FORMATS
    from axes.warehouse.errors import AxisError
    from axes.warehouse.handle import Warehouse

    chosen = to or Path(output).suffix.lstrip(".")
    if chosen not in FORMATS:
        raise AxisError(
            f"no format {chosen or output}{did_you_mean(chosen, FORMATS)}: "
            f"give to=, one of {', '.join(FORMATS)}"
        )
    return export_axes(Warehouse.open(root_folder(root)), [axis], chosen, Path(output)).path


def report(output: Folder, study_id: str | None = None, *, root: Folder | None = None) -> Path:
    """Write the report of a study (the start of its id; default: the last); return the path."""
    from axes.analysis.report.report import write_report

    return write_report(root_folder(root), Path(output), study_id)


@as_command(cli, "prompts import")
def import_prompts(
    prompt_set: str,
    source: Folder | Sequence[Any] | pl.DataFrame | None = None,
    *,
    root: Folder | None = None,
    positive: Names = (),
    columns: Mapping[str, str] | None = None,
    license: str | None = None,
    split: str | None = None,
    per_label: int | None = None,
    **options: Any,
) -> ImportSummary:
    """Import a prompt set from a .parquet, .csv or .jsonl file or `hf:OWNER/NAME`; idempotent.

    `source` may also be rows: a list of texts or of dicts, a polars or pandas DataFrame. A built-in
    set (`demo_safety`, ...) needs no source. `columns` maps text, label and category to
    the source's columns; `positive` names the labels of the positive class; `options` are those of
    `axes.ingest.requests.PromptRequest`: `labeler`, `limit`, `replace_set`, ... Creates the
    warehouse if it does not exist. Raises `PromptError` or `LabelError`.
    """
    from axes.ingest.prompt_sources import prompt_source
    from axes.ingest.prompts import import_prompts as import_into
    from axes.ingest.requests import PromptRequest

    with tempfile.TemporaryDirectory() as folder:
        if source is not None and not isinstance(source, str | Path):
            source = _rows_file(source, Path(folder))
        origin = prompt_source(
            prompt_set,
            None if source is None else str(source),
            columns=dict(columns or {}),
            license=license,
            split=split,
            per_label=per_label,
        )
        request = PromptRequest(positive=_several(positive), **_as_lists(PromptRequest, options))
        return import_into(root_folder(root), prompt_set, origin, request)


def _rows_file(rows: Any, folder: Path) -> Path:
    import polars as pl

    is_texts = isinstance(rows, Sequence) and all(isinstance(row, str) for row in rows)
    pl.DataFrame({"text": rows} if is_texts else rows).write_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


@as_command(cli, "ingest activations", prompts="prompt_sets", system="system_file")
def ingest_activations(
    model: str,
    prompts: Names,
    *,
    root: Folder | None = None,
    layers: Sequence[int] | None = None,
    sites: Names = ("resid_post",),
    poolings: Names = ("last5_mean",),
    limit: int | None = None,
    source: str | None = None,
    adapter: str | None = None,
    quantization: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> IngestSummary:
    """Run a model on prompt sets and store pooled activations; stored rows are not recomputed.

    `model` is a registry name, a hub id, a folder or a .gguf file; `layers` are zero-based blocks
    (default: every block); `limit` uses the first prompts of each set; `options` are those of
    `axes.ingest.requests.ActivationRequest`: `template`, `system`, `token_layers`, `shard` (such as
    "3/8"), `token_budget` (max tokens in one batch, padding included), ... Built-in prompt sets are
    imported. Raises `ModelError`, `PromptError`, `LayerError` or `NonFiniteError`.
    """
    from axes.ingest.activations import ingest_activations
    from axes.ingest.models.registry import resolve
    from axes.ingest.prompts import import_ready_sets
    from axes.ingest.requests import ActivationRequest

    spec = resolve(model, source, adapter=adapter, quantization=quantization)
    folder, prompt_sets = root_folder(root), _several(prompts)
    request = ActivationRequest(
        prompt_sets=dict.fromkeys(prompt_sets, limit),
        layers=layers,
        sites=_several(sites),
        poolings=_several(poolings),
        device=device or setting("device"),
        dtype=dtype or setting("dtype"),
        **_as_lists(ActivationRequest, options),
    )
    import_ready_sets(folder, prompt_sets)
    return ingest_activations(folder, spec, request)


@as_command(cli, "ingest traces", prompts="prompt_set", system="system_file")
def ingest_traces(
    model: str,
    prompts: str,
    *,
    root: Folder | None = None,
    layers: Sequence[int] | None = None,
    axes: Names = (),
    source: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> IngestSummary:
    """Complete the prompts of a set with a model and store a row for each token and layer.

    Stores vectors at `layers` (default: one layer at 0.8 of the depth), or projections on `axes`
    (names or ids) instead. `options` are those of `axes.ingest.requests.TraceRequest`: `limit`,
    `template`, `max_new_tokens`, `temperature` (0 is greedy), `top_p`, `samples`, `seed`, ...
    Stored completions are not generated again. Raises as `ingest_activations` does, and `AxisError`
    for an axis of another model.
    """
    from axes.ingest.generation.traces import ingest_traces
    from axes.ingest.models.registry import resolve
    from axes.ingest.prompts import import_ready_sets
    from axes.ingest.requests import TraceRequest

    spec, folder = resolve(model, source), root_folder(root)
    request = TraceRequest(
        prompt_set=prompts,
        layers=layers,
        axes=_several(axes),
        device=device or setting("device"),
        dtype=dtype or setting("dtype"),
        **_as_lists(TraceRequest, options),
    )
    import_ready_sets(folder, [prompts])
    return ingest_traces(folder, spec, request)


@as_command(cli, "study run")
def study(
    file: Folder | None = None,
    *,
    root: Folder | None = None,
    ingests: bool = True,
    sensitivity: bool = False,
    memory_limit: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> Study:
    """Run a study and ingest its missing rows, or read its stored results: `axes.study("demo")`.

    `file` is a TOML file or a packaged study; `options` are its keys (`models`, `reference`,
    `group`, `prompts`, `align`, `evaluate`, `ridge_lambda`, `seed`, ...) and override the file's.
    Without `ingests`, missing rows raise `CoverageError`; `sensitivity` also runs the sensitivity
    analysis; `memory_limit` is in bytes. Raises `DefinitionError` for an unknown key, and for a
    file with several studies unless `options` choose one.
    """
    from axes.analysis.study.definition import OPTIONS, StudyDefinition
    from axes.study_plan import plan_studies, run_planned

    for name in options:
        if name not in OPTIONS:
            raise DefinitionError(
                f"unknown key {name}{did_you_mean(name, OPTIONS)}: keys are {', '.join(OPTIONS)}"
            )
    planned = plan_studies(file, _as_lists(StudyDefinition, options))
    if len(planned) > 1:
        labels = ", ".join(plan.definition.label for plan in planned)
        raise DefinitionError(
            f"{file} defines {len(planned)} studies ({labels}): choose one by its keys, such as "
            "group"
        )
    folder = root_folder(root)
    (study_id,) = run_planned(
        folder,
        planned,
        no_ingest=not ingests,
        sensitivity=sensitivity,
        memory_limit=memory_limit,
        device=device or setting("device"),
        dtype=dtype or setting("dtype"),
    )
    return read_study(study_id, root=folder)


@as_command(cli, "fit")
def fit(
    model: str,
    prompts: str,
    *,
    root: Folder | None = None,
    evaluate: Names = (),
    direction: str = "mean_diff",
    site: str = "resid_post",
    pooling: str = "last5_mean",
    template: str = "raw",
    allow_missing: bool = False,
    memory_limit: int | None = None,
) -> Result:
    """Fit a model's direction at every layer on a labelled set, and project the prompts on it.

    Returns a row for each layer and prompt set, with the id of the axis and its AUROC, which is in
    sample where `is_in_sample`. Raises `ModelError`, `PromptError`, `LabelError` or
    `CoverageError`.
    """
    from axes.analysis.activations import find_space
    from axes.analysis.study.fit import fit_native
    from axes.ingest.models.registry import known_as
    from axes.results import Result
    from axes.warehouse.handle import Warehouse

    evaluate = _several(evaluate)
    warehouse = Warehouse.open(root_folder(root), memory_limit=memory_limit)
    where = {"site": site, "pooling": pooling, "template": template}
    space = find_space(warehouse, known_as(model), **where)
    fitted_on = {"model": model, "prompts": prompts, "evaluate": evaluate, "direction": direction}
    with warehouse.run("fit", {**fitted_on, **where}) as run:
        fitted = fit_native(
            warehouse, run, space, prompts, evaluate, method=direction, allow_missing=allow_missing
        )
    sql = (
        "select axis_id, axis_name, layer, prompt_set, auroc, is_in_sample from v_auroc "
        f"where axis_id in ({', '.join(sql_literal(axis.axis_id) for axis in fitted)}) "
        "order by layer, prompt_set"
    )
    return Result(f"{model}: directions fitted on {prompts}", warehouse.query(sql), sql)


@as_command(cli, "score", prompts="prompt_sets")
def score(
    axis: str,
    *,
    root: Folder | None = None,
    models: Names = (),
    prompts: Names = (),
    alignment: str | None = None,
    memory_limit: int | None = None,
) -> Result:
    """Project stored activations on an axis (a name, an id, or the start of one); idempotent.

    Models in another space are projected through their alignment into the axis's space. Returns a
    row for each model with the number of new projections; the projections are in `v_projections`.
    Raises `AxisError`, `ModelError` or `PromptError`.
    """
    from dataclasses import asdict

    import pyarrow as pa

    from axes.analysis.projections import score as score_axis
    from axes.results import Result
    from axes.warehouse.axes import AXIS_TABLES, find_axis
    from axes.warehouse.handle import Warehouse

    folder = root_folder(root)
    axis_id = find_axis(Warehouse.open_tables(folder, *AXIS_TABLES), axis).axis_id
    done = score_axis(
        folder,
        axis_id,
        models=_several(models),
        prompt_sets=_several(prompts),
        alignment=alignment,
        memory_limit=memory_limit,
    )
    where = f"axis_id = {sql_literal(axis_id)}"
    sql = f"select * from v_projections where {where} order by model, prompt_id"
    return Result(f"projected on {axis}", pa.Table.from_pylist([asdict(row) for row in done]), sql)


def run(command: str, *words: str, root: Folder | None = None, **options: Any) -> pl.DataFrame:
    """The rows that any command prints, such as `axes.run("evaluate", "m", prompts="mine")`.

    `command` and `words` are as typed (`label refusals`, `list axes`); `options` are its options,
    a list repeats one. Raises `AxesError` with the command's message.
    """
    import polars as pl

    typed = [*command.split(), *words, "--format", "json", "--root", str(root_folder(root))]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        for each in [value] if isinstance(value, str) or not isinstance(value, Sequence) else value:
            typed += [option] if each is True else [option, str(each)]
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())) as printed:
        try:
            cli.main(typed, prog_name="axes", standalone_mode=False)
        except click.ClickException as error:
            raise AxesError(error.format_message()) from error
    return pl.DataFrame(json.loads(printed.buffer.getvalue()), infer_schema_length=None)


def _as_lists(request: type, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options, a text for a field that takes several as a list of one."""
    kinds = get_type_hints(request)
    return {
        name: (value,)
        if isinstance(value, str) and kinds.get(name) in (Sequence[str], tuple[str, ...])
        else value
        for name, value in options.items()
    }


def _several(names: Names) -> tuple[str, ...]:
    """One name or several as a tuple, each once."""
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
