"""What Python code may call: read a warehouse, and run what the commands run.

`root` is everywhere the warehouse's folder; left out it is `$AXES_ROOT`, then `root` of axes.toml,
then `./lake`; `device` and `dtype` likewise. Errors that the caller can fix are `axes.AxesError`.
Nothing heavy is imported before a function needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from axes.command_line import as_command
from axes.warehouse.errors import DefinitionError
from axes.warehouse.names import did_you_mean
from axes.warehouse.settings import root_folder, setting

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from axes.ingest.jobs import IngestSummary
    from axes.ingest.prompts import ImportSummary
    from axes.results import Axis, Result, Study

Folder = str | Path


def connect(root: Folder | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with every table, view and macro of a warehouse.

    Results come by DuckDB's own methods: `.to_arrow_table()`, `.pl()`, `.df()`, `.fetchall()`.
    Raises `AxesError` where `root` is not a warehouse.
    """
    from axes.warehouse.connection import connect as open_root

    return open_root(root_folder(root), is_commented=True)


def scan(table: str, root: Folder | None = None) -> pl.LazyFrame:
    """A polars LazyFrame over one table (`axes.scan("activations")`), partitions typed as text.

    Raises `AxesError` for an unknown table or root.
    """
    from axes.warehouse.connection import scan as scan_table

    return scan_table(table, root_folder(root))


def read_study(study_id: str | None = None, *, root: Folder | None = None) -> Study:
    """A study that was run: the start of its id, by default the last; raises `AxesError`."""
    from axes.analysis.report.report import latest_study, sensitivity_warnings
    from axes.analysis.study.run import study_result
    from axes.results import Study
    from axes.warehouse.connection import connect as open_root
    from axes.warehouse.connection import query, rows

    folder = root_folder(root)
    connection = open_root(folder)
    found = latest_study(connection, study_id)
    sql = (
        f"select * exclude (study_id) from v_study where study_id = '{found}' "
        "order by prompt_set, model"
    )
    warnings = rows(
        connection,
        "select text from v_study_warnings where study_id = ? order by warning, prompt_set, model",
        [found],
    )
    told = [row["text"] for row in warnings] + sensitivity_warnings(connection, found)
    figures = study_result(folder, found)
    title = f"study {found[:8]} of {figures['definition']['label']}"
    return Study(
        title, query(connection, sql), sql, found, tuple(dict.fromkeys(told)), figures=figures
    )


def load_axis(axis: str, *, root: Folder | None = None) -> Axis:
    """An axis (id, start of one, or name) as its vector and card; raises `AxisError`.

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
    """Write an axis with its card to a file and return its path.

    `to` is a format of `axes export`; by default the file's suffix. Raises `AxisError`.
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
    """Write the report of a study (the start of its id, by default the last); return its path."""
    from axes.analysis.report.report import write_report

    return write_report(root_folder(root), Path(output), study_id)


@as_command("prompts import")
def import_prompts(
    prompt_set: str,
    source: Folder | None = None,
    *,
    root: Folder | None = None,
    positive: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    labeler: str = "dataset",
    license: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    per_label: int | None = None,
    replace_set: bool = False,
    keep_whitespace: bool = False,
    skip_unusable: bool = False,
) -> ImportSummary:
    """Import a prompt set from a .parquet, .csv or .jsonl file or `hf:OWNER/NAME`; idempotent.

    A ready set (`demo_safety`, ...) needs no source. `columns` says how text, label and category
    are called there, `positive` which labels are the positive class. Makes the warehouse where
    there is none. Raises `PromptError` or `LabelError`.
    """
    from axes.ingest.prompt_sources import prompt_source
    from axes.ingest.prompts import import_prompts as import_into
    from axes.ingest.requests import PromptRequest

    origin = prompt_source(
        prompt_set,
        None if source is None else str(source),
        columns=dict(columns or {}),
        license=license,
        split=split,
        per_label=per_label,
    )
    request = PromptRequest(
        positive=positive,
        labeler=labeler,
        limit=limit,
        replace_set=replace_set,
        keep_whitespace=keep_whitespace,
        skip_unusable=skip_unusable,
    )
    return import_into(root_folder(root), prompt_set, origin, request)


@as_command("ingest activations", prompts="prompt_sets", system="system_file")
def ingest_activations(
    model: str,
    prompts: str | Sequence[str],
    *,
    root: Folder | None = None,
    layers: Sequence[int] | None = None,
    sites: Sequence[str] = ("resid_post",),
    poolings: Sequence[str] = ("last5_mean",),
    token_layers: Sequence[int] = (),
    template: str = "raw",
    system: str | None = None,
    limit: int | None = None,
    shard: str | None = None,
    token_budget: int | None = None,
    skip_unusable: bool = False,
    source: str | None = None,
    adapter: str | None = None,
    quantization: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> IngestSummary:
    """Run a model over prompt sets and store pooled activations; rows that are there stay.

    `model` is a name of the registry, a hub id, a folder or a .gguf file; `layers` are zero-based
    blocks, all by default; `limit` takes the first prompts of each set, `shard` a part such as
    "3/8"; `token_budget` is the most tokens in one batch, padding included. Ready prompt sets are
    imported. Raises `ModelError`, `PromptError`, `LayerError` or `NonFiniteError`.
    """
    from axes.ingest.activations import ingest_activations
    from axes.ingest.models.registry import resolve
    from axes.ingest.prompts import import_ready_sets
    from axes.ingest.requests import ActivationRequest

    spec = resolve(model, source, adapter=adapter, quantization=quantization)
    folder, prompt_sets = root_folder(root), _listed(prompts)
    request = ActivationRequest(
        prompt_sets=dict.fromkeys(prompt_sets, limit),
        layers=layers,
        sites=tuple(dict.fromkeys(sites)),
        poolings=tuple(dict.fromkeys(poolings)),
        token_layers=token_layers,
        template=template,
        system=system,
        device=device or setting("device"),
        dtype=dtype or setting("dtype"),
        token_budget=token_budget or ActivationRequest.token_budget,
        shard=shard,
        skip_unusable=skip_unusable,
    )
    import_ready_sets(folder, prompt_sets)
    return ingest_activations(folder, spec, request)


@as_command("ingest traces", prompts="prompt_set", system="system_file")
def ingest_traces(
    model: str,
    prompts: str,
    *,
    root: Folder | None = None,
    layers: Sequence[int] | None = None,
    axes: Sequence[str] = (),
    template: str = "raw",
    system: str | None = None,
    limit: int | None = None,
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    top_p: float = 1.0,
    samples: int = 1,
    seed: int = 0,
    skip_unusable: bool = False,
    source: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> IngestSummary:
    """Let a model answer the prompts of a set and store a row for each token and layer.

    Vectors are kept at `layers` (default: one at 0.8 of the depth), or with `axes` (ids or names)
    projections in their place. A `temperature` of 0 is greedy. Completions that are there are not
    made again. Raises as `ingest` does, and `AxisError` for an axis that does not fit.
    """
    from axes.ingest.generation.traces import ingest_traces
    from axes.ingest.models.registry import resolve
    from axes.ingest.prompts import import_ready_sets
    from axes.ingest.requests import TraceRequest

    spec, folder = resolve(model, source), root_folder(root)
    request = TraceRequest(
        prompt_set=prompts,
        layers=layers,
        axes=axes,
        template=template,
        system=system,
        limit=limit,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        samples=samples,
        seed=seed,
        skip_unusable=skip_unusable,
        device=device or setting("device"),
        dtype=dtype or setting("dtype"),
    )
    import_ready_sets(folder, [prompts])
    return ingest_traces(folder, spec, request)


@as_command("study run")
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
    """Run a study, ingest and all, or find it there: `axes.study("demo")`.

    `file` is a TOML file or a study of the package; `options` are its keys (`models`, `reference`,
    `group`, `prompts`, `align`, `evaluate`, `ridge_lambda`, `seed`, ...) and go before the file's.
    Without `ingests` rows that are missing are a `CoverageError`; `sensitivity` also measures how
    far figures move with each choice; `memory_limit` is in bytes. Raises `DefinitionError` for an
    unknown key, and for a file that holds several studies unless `options` choose one.
    """
    from axes.analysis.study.definition import OPTIONS
    from axes.analysis.study.run import run_study
    from axes.analysis.study.sensitivity import measure_sensitivity

    for name in options:
        if name not in OPTIONS:
            raise DefinitionError(
                f"unknown key {name}{did_you_mean(name, OPTIONS)}: keys are {', '.join(OPTIONS)}"
            )
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    if isinstance(given.get("evaluate"), str):
        given["evaluate"] = (given["evaluate"],)
    from axes.study_plan import ingest_missing, plan_studies

    planned = plan_studies(file, given)
    if len(planned) > 1:
        labels = ", ".join(one.definition.label for one in planned)
        raise DefinitionError(
            f"{file} holds {len(planned)} studies ({labels}): choose one by its keys, such as group"
        )
    folder = root_folder(root)
    if ingests:
        ingest_missing(
            folder,
            planned[0],
            device=device or setting("device"),
            dtype=dtype or setting("dtype"),
        )
    study_id = run_study(
        folder, planned[0].definition, published=planned[0].published, memory_limit=memory_limit
    )
    if sensitivity:
        measure_sensitivity(folder, study_id, planned[0].definition, memory_limit=memory_limit)
    return read_study(study_id, root=folder)


@as_command("fit")
def fit(
    model: str,
    prompts: str,
    *,
    root: Folder | None = None,
    evaluate: Sequence[str] = (),
    direction: str = "mean_diff",
    site: str = "resid_post",
    pooling: str = "last5_mean",
    template: str = "raw",
    allow_missing: bool = False,
    memory_limit: int | None = None,
) -> Result:
    """Fit a model's direction at every layer on a labelled set, and project the prompts on it.

    A row for each layer and prompt set, with the axis's id and its AUROC, in sample where
    `is_in_sample`. Raises `ModelError`, `PromptError`, `LabelError` or `CoverageError`.
    """
    from axes.analysis.activations import find_space
    from axes.analysis.study.fit import fit_native
    from axes.ingest.models.registry import known_as
    from axes.results import Result
    from axes.warehouse.connection import connect as open_root
    from axes.warehouse.connection import query
    from axes.warehouse.handle import Warehouse
    from axes.warehouse.runs import record_run

    folder = root_folder(root)
    connection = open_root(folder, memory_limit=memory_limit)
    space = find_space(connection, known_as(model), site=site, pooling=pooling, template=template)
    parameters = {
        "model": model,
        "prompts": prompts,
        "evaluate": tuple(evaluate),
        "direction": direction,
        "site": site,
        "pooling": pooling,
        "template": template,
    }
    with record_run(folder, "fit", parameters) as run:
        fitted = fit_native(
            Warehouse(folder, connection),
            run,
            space,
            prompts,
            evaluate,
            method=direction,
            allow_missing=allow_missing,
        )
    sql = (
        "select axis_id, axis_name, layer, prompt_set, auroc, is_in_sample from v_auroc "
        f"where axis_id in ({', '.join(repr(axis.axis_id) for axis in fitted)}) "
        "order by layer, prompt_set"
    )
    return Result(f"{model}: directions fitted on {prompts}", query(connection, sql), sql)


@as_command("score", prompts="prompt_sets")
def score(
    axis: str,
    *,
    root: Folder | None = None,
    models: Sequence[str] = (),
    prompts: str | Sequence[str] = (),
    alignment: str | None = None,
    memory_limit: int | None = None,
) -> Result:
    """Project stored activations on an axis (id, start of one, or name); idempotent.

    Models of another space are projected through their alignment into the axis's. A row for each
    model says how many prompts had no projection yet; the projections are in `v_projections`.
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
        models=models,
        prompt_sets=_listed(prompts),
        alignment=alignment,
        memory_limit=memory_limit,
    )
    sql = f"select * from v_projections where axis_id = '{axis_id}' order by model, prompt_id"
    return Result(f"projected on {axis}", pa.Table.from_pylist([asdict(one) for one in done]), sql)


def _listed(names: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several, each once."""
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
