"""Python's functions: read a warehouse, and run what the commands run.

`root` is the warehouse's folder; default: `$AXES_ROOT`, else `root` of axes.toml, else `./lake`.
`device` and `dtype` have the same defaults as on the command line. An argument that takes several
names also takes one text. Errors that the caller can fix are `axes.AxesError`. Heavy libraries are
imported in the functions that need them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import click

from axes.calls import Folder, Names
from axes.cli.main import INTERRUPTED, cli
from axes.command_line import as_command, find_command, parameters
from axes.warehouse.errors import AxesError, DefinitionError
from axes.warehouse.names import did_you_mean, sql_literal
from axes.warehouse.render import captured
from axes.warehouse.settings import root_folder, setting

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    from transformers import PreTrainedModel

    from axes.ingest.generation.monitor import Monitor
    from axes.results import Axis, Result, Study
    from axes.study_plan import PlannedStudy


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


def read_study(study: str | None = None, *, root: Folder | None = None) -> Study:
    """Results of a stored study (the start of its id; default: the last). Raises `AxesError`.

    `plot()` draws AUROCs and baselines, `plot(NAME)` any chart of the report.

    axes.read_study().plot("cosines")
    """
    from axes.analysis.report.report import latest_study, sensitivity_warnings
    from axes.analysis.study.run import study_result
    from axes.results import Study
    from axes.warehouse.connection import connect as open_root
    from axes.warehouse.connection import query, rows

    folder = root_folder(root)
    connection = open_root(folder)
    study_id = latest_study(connection, study)
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
        title,
        query(connection, sql),
        sql,
        (study_id,),
        tuple(dict.fromkeys(texts)),
        command="study run",
        root=folder,
        figures=figures,
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


def load_monitor(
    axis: str,
    model: PreTrainedModel,
    name: str,
    *,
    layer: int | None = None,
    calibration: str = "platt",
    stop_above: float | None = None,
    root: Folder | None = None,
) -> Monitor:
    """A monitor of a transformers model that you loaded, for `generate`, pipelines, serving loops.

    `name` is the model's in the warehouse. Inside of `watching()` pass the monitor as a stopping
    criterion, or its `logits_processor()`; `readings` has each token's projection, as
    `axes.monitor` returns them. `stop_above` is a calibrated probability. Raises `AxisError`,
    `CalibrationError` or `ModelError`.

    with axes.load_monitor("31011258", model, "smollm2-135m").watching() as monitor:
        model.generate(**inputs, stopping_criteria=[monitor])
    """
    from axes.analysis.activations import find_space
    from axes.analysis.study.calibrate import stored_calibration
    from axes.ingest.generation.monitor import Monitor
    from axes.ingest.models.load import find_blocks
    from axes.ingest.models.registry import known_as
    from axes.warehouse.axes import find_axis, read_axis_readout
    from axes.warehouse.errors import CalibrationError, ModelError
    from axes.warehouse.handle import Warehouse

    warehouse = Warehouse.open(root_folder(root))
    space = find_space(warehouse, known_as(name))
    width = model.config.get_text_config().hidden_size
    if width != space.d_model:
        raise ModelError(f"the model has d_model {width}, {name} has {space.d_model}")
    registered = find_axis(warehouse, axis)
    readout = read_axis_readout(warehouse, registered, space.model, space.model_id, layer=layer)
    probability = None
    try:
        connection, key = warehouse.connection, (readout.axis_id, readout.model_id)
        probability = stored_calibration(connection, *key, calibration).probability
    except CalibrationError:
        if stop_above is not None:
            raise
    ends = model.generation_config.eos_token_id if model.generation_config else None
    return Monitor(
        find_blocks(model)[readout.layer],
        readout.vector,
        readout.offset,
        probability=probability,
        stop_above=stop_above,
        end_ids=ends if isinstance(ends, list) else [] if ends is None else [ends],
    )


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


def report(
    output: Folder,
    study: str | None = None,
    *,
    figures: Folder | None = None,
    root: Folder | None = None,
) -> Path:
    """Write the report of a study (the start of its id; default: the last); return the path.

    `output` ends in .html or .md; `figures` is a folder for the charts and their rows as files.
    """
    from axes.analysis.report.report import write_report

    charts = None if figures is None else Path(figures)
    return write_report(root_folder(root), Path(output), study, figures=charts)


@as_command(cli, "study run")
def study(
    file: Folder | None = None,
    *,
    root: Folder | None = None,
    no_ingest: bool = False,
    sensitivity: bool = False,
    memory_limit: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> Study:
    """Run a study and ingest its missing rows, or read its stored results: `axes.study("demo")`.

    `file` is a TOML file or a packaged study; `options` are those of the command (`model`,
    `reference`, `group`, `prompts`, `align`, `evaluate`, `ridge_lambda`, `seed`, ...), or the keys
    of a file, and override the file's. With `no_ingest`, missing rows raise `CoverageError`;
    `sensitivity` also runs the sensitivity analysis; `memory_limit` is in bytes. Raises
    `DefinitionError` for an unknown key, and for a file with several studies unless `options`
    choose one.

    axes.study(model=["a", "b"], reference="b", prompts="mine", align="alpaca").plot()
    """
    from axes.study_plan import run_planned

    planned = _plan(file, options)
    if len(planned) > 1:
        labels = ", ".join(plan.definition.label for plan in planned)
        raise DefinitionError(
            f"{file or 'concepts'} defines {len(planned)} studies ({labels}): choose one by its "
            "keys, such as group, or call axes.concepts for several concepts"
        )
    folder = root_folder(root)
    (study_id,) = run_planned(
        folder,
        planned,
        no_ingest=no_ingest,
        sensitivity=sensitivity,
        memory_limit=memory_limit,
        device=device or setting("device"),
        dtype=dtype or setting("dtype"),
    )
    return read_study(study_id, root=folder)


@as_command(cli, "study run")
def concepts(
    concepts: Names = (),
    *,
    file: Folder | None = None,
    root: Folder | None = None,
    no_ingest: bool = False,
    sensitivity: bool = False,
    memory_limit: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    **options: Any,
) -> Result:
    """Run a study of each concept, then evaluate which one differs within a pair, k-way.

    `concepts` are labelled prompt sets, or the key of a study `file`; the other arguments are those
    of `study`. A row for each concept and model; the views `v_concept_accuracy`, `v_confusion` and
    `v_concept_overlap` have the rest. Raises `DefinitionError` for fewer than two concepts.

    axes.concepts(["concept_tense", "concept_certainty"], group="demo", align="demo_alignment")
    """
    from axes.analysis.report.concept_tables import CONCEPTS
    from axes.results import Result
    from axes.study_plan import run_concepts, run_planned
    from axes.warehouse.connection import connect as open_root
    from axes.warehouse.connection import query
    from axes.warehouse.names import with_literals

    planned = _plan(file, {**options, **({"concepts": _several(concepts)} if concepts else {})})
    folder = root_folder(root)
    study_ids = run_planned(
        folder,
        planned,
        no_ingest=no_ingest,
        sensitivity=sensitivity,
        memory_limit=memory_limit,
        device=device or setting("device"),
        dtype=dtype or setting("dtype"),
    )
    ids = run_concepts(folder, planned, list(study_ids), memory_limit=memory_limit)
    if len(ids) != 1:
        raise DefinitionError(f"{len(ids)} groups of concepts are defined: give one, as concepts=")
    sql = with_literals(CONCEPTS.sql.strip(), {"study_id": ids[0]})
    table = query(open_root(folder), sql)
    return Result(f"concepts {ids[0][:8]}", table, sql, tuple(ids), root=folder)


def _plan(file: Folder | None, options: Mapping[str, Any]) -> list[PlannedStudy]:
    """The studies of a file and of options by the names of the command's or the file's keys."""
    from axes.analysis.study.definition import OPTIONS, StudyDefinition
    from axes.study_plan import plan_studies

    params = parameters(find_command(cli, "study run"))
    options = {
        str(params[name].name) if name in params else name: value for name, value in options.items()
    }
    for name in options:
        if name not in OPTIONS:
            raise DefinitionError(
                f"unknown key {name}{did_you_mean(name, OPTIONS)}: keys are {', '.join(OPTIONS)}"
            )
    return plan_studies(file, _as_lists(StudyDefinition, options))


@as_command(cli, "fit")
def fit(
    model: str,
    prompts: str,
    *,
    root: Folder | None = None,
    evaluate: Names = (),
    direction: str = "mean_diff",
    rank: int | None = None,
    site: str = "resid_post",
    pooling: str = "last5_mean",
    template: str = "raw",
    allow_missing: bool = False,
    memory_limit: int | None = None,
) -> Result:
    """Fit a model's direction at every layer on a labelled set, and project the prompts on it.

    Returns a row for each layer and prompt set, with the id of the axis and its AUROC, which is in
    sample where `is_in_sample`; with `rank`, of the subspace of so many dimensions next to the
    direction. Raises `AxisError`, `ModelError`, `PromptError`, `LabelError` or `CoverageError`.
    """
    from axes.analysis.activations import count_prompts, find_space
    from axes.analysis.study.fit import fit_native
    from axes.ingest.models.registry import known_as
    from axes.results import Result
    from axes.warehouse.handle import Warehouse
    from axes.warehouse.layers import TokenPooling

    if rank is not None and TokenPooling.find(pooling) is not None:
        raise AxesError(f"--pooling {pooling} scores tokens: --rank needs one that stores vectors")
    evaluate = _several(evaluate)
    warehouse = Warehouse.open(root_folder(root), memory_limit=memory_limit)
    where = {"site": site, "pooling": pooling, "template": template}
    space = find_space(warehouse, known_as(model), **where)
    for name in (prompts, *evaluate):
        count_prompts(warehouse, name)
    fitted_on = {"model": model, "prompts": prompts, "evaluate": evaluate, "direction": direction}
    of_rank = {} if rank is None else {"rank": rank}
    with warehouse.run("fit", {**fitted_on, **of_rank, **where}) as run:
        fitting = partial(fit_native, method=direction, rank=rank, allow_missing=allow_missing)
        fitted = fitting(warehouse, run, space, prompts, evaluate)
    ids = tuple(axis.axis_id for axis in fitted if axis.kind == "native")
    of_directions = f"axis_id in ({', '.join(map(sql_literal, ids))})"
    sql = (
        "select axis_id, axis_name, layer, prompt_set, auroc, is_in_sample from v_auroc "
        f"where {of_directions} order by layer, prompt_set"
    )
    if rank is not None:
        subspaces = {json.loads(axis.parameters).get("subspace_id", "") for axis in fitted}
        sql = (
            "select subspace_id, subspace_name, layer, prompt_set, auroc(norm, is_positive) as "
            "auroc_norm, auroc(combination, is_positive) as auroc_combination, "
            "auroc as auroc_direction, scores.is_in_sample from v_subspace_scores as scores "
            f"inner join v_auroc using (model_id, layer, prompt_set) where {of_directions} and "
            f"subspace_id in ({', '.join(map(sql_literal, sorted(subspaces)))}) and "
            "is_positive is not null group by all order by layer, prompt_set"
        )
    title = f"{model}: {'directions' if rank is None else 'subspaces'} fitted on {prompts}"
    return Result(title, warehouse.query(sql), sql, ids, command="fit", root=warehouse.root)


@as_command(cli, "score")
def score(
    axis: str,
    *,
    root: Folder | None = None,
    model: Names = (),
    prompts: Names = (),
    alignment: str | None = None,
    memory_limit: int | None = None,
) -> Result:
    """Project stored activations on an axis or a subspace (a name or an id); idempotent.

    Models in another space are projected through their alignment into the axis's space. Returns a
    row for each model with the number of new projections; the projections are in `v_projections`.
    Raises `AxisError`, `ModelError` or `PromptError`.
    """
    from dataclasses import asdict

    import pyarrow as pa

    from axes.analysis.projections import score as score_axis
    from axes.results import Result
    from axes.warehouse.axes import AXIS_TABLES, find_axes
    from axes.warehouse.handle import Warehouse

    folder = root_folder(root)
    found = find_axes(Warehouse.open_tables(folder, *AXIS_TABLES), axis)
    axis_ids = tuple(each.axis_id for each in found)
    done = score_axis(
        folder,
        axis,
        models=_several(model),
        prompt_sets=_several(prompts),
        alignment=alignment,
        memory_limit=memory_limit,
    )
    where = f"axis_id in ({', '.join(map(sql_literal, axis_ids))})"
    sql = f"select * from v_projections where {where} order by model, axis_id, prompt_id"
    return Result(
        f"projected on {axis}",
        pa.Table.from_pylist([asdict(row) for row in done]),
        sql,
        axis_ids,
        command="score",
        root=folder,
    )


def run(command: str, *words: str, root: Folder | None = None, **options: Any) -> pl.DataFrame:
    """The rows that any command prints, such as `axes.run("evaluate", "m", prompts="mine")`.

    `command` and `words` are as typed (`label refusals`, `list axes`); `options` are its options,
    a list repeats one. Raises `AxesError` with the command's message.
    """
    import polars as pl

    # `study --format json` prints no table: csv is that format of all commands.
    typed = [*command.split(), *words, "--format", "csv"]
    leaf: click.Command | None = cli
    for word in typed:
        leaf = (
            leaf.get_command(click.Context(leaf), word) if isinstance(leaf, click.Group) else leaf
        )
    # `study demo` means `study run demo`, which has a root; `models show` has none.
    if leaf is None or "root" in parameters(leaf):
        typed += ["--root", str(root_folder(root))]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        for each in [value] if isinstance(value, str) or not isinstance(value, Sequence) else value:
            typed += [option] if each is True else [option, str(each)]
    with captured() as printed:
        try:
            code = cli.main(typed, prog_name="axes", standalone_mode=False)
        except click.ClickException as error:
            if isinstance(error.__cause__, AxesError):
                raise error.__cause__ from None
            raise AxesError(error.format_message()) from error
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    tables = [pl.DataFrame(pl.from_arrow(table)) for table in printed.tables]
    return pl.concat(tables, how="diagonal_relaxed") if tables else pl.DataFrame()


def _as_lists(request: type, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields, a text for one that takes several as a list of one."""
    kinds = get_type_hints(request)
    return {
        name: (value,)
        if isinstance(value, str) and kinds.get(name) in (Sequence[str], tuple[str, ...])
        else value
        for name, value in fields.items()
    }


def _several(names: Names) -> tuple[str, ...]:
    """One name or several as a tuple, each once."""
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
