"""What Python code may call to read a warehouse: SQL, tables, studies, axes, files.

`root` is everywhere the warehouse's folder; left out it is `$AXES_ROOT`, then `root` of axes.toml,
then `./lake`. Errors that are the caller's to mend are `axes.AxesError`. Nothing heavy is imported
before a function needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from axes.warehouse.names import did_you_mean
from axes.warehouse.settings import root_folder

if TYPE_CHECKING:
    import duckdb
    import polars as pl

    from axes.results import Axis, Study

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
    from axes.warehouse.scan import scan as scan_table

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
    from axes.warehouse.connection import connect as open_root

    connection = open_root(root_folder(root))
    row = find_axis(connection, axis)
    row["vector"].flags.writeable = False
    return Axis(row["vector"], axis_card(connection, row))


def export(axis: str, output: Folder, *, to: str | None = None, root: Folder | None = None) -> Path:
    """Write an axis with its card to a file and return its path.

    `to` is a format of `axes export`; by default the file's suffix. Raises `AxisError`.
    """
    from axes.analysis.exchange.export_axes import export_axes
    from axes.analysis.exchange.formats import FORMATS
    from axes.warehouse.connection import connect as open_root
    from axes.warehouse.errors import AxisError

    chosen = to or Path(output).suffix.lstrip(".")
    if chosen not in FORMATS:
        raise AxisError(
            f"no format {chosen or output}{did_you_mean(chosen, FORMATS)}: "
            f"give to=, one of {', '.join(FORMATS)}"
        )
    return export_axes(open_root(root_folder(root)), [axis], chosen, Path(output)).path


def report(output: Folder, study_id: str | None = None, *, root: Folder | None = None) -> Path:
    """Write the report of a study (the start of its id, by default the last); return its path."""
    from axes.analysis.report.report import write_report

    return write_report(root_folder(root), Path(output), study_id)
