"""A section of the report: the SQL that brings its rows, how it is read, what makes the rows.

Markdown, page and figure files are made of the same sections, so no number of any of them comes
from elsewhere than the SQL that is shown beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from axes.warehouse.connection import Connection, query, rows
from axes.warehouse.errors import AxesError

Row = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """What is asked of a study, before it is asked of one.

    `name` is its anchor and its file, `reading` how to read it. `missing` says in one line which
    command makes its rows. All three may hold `{study_id}`, `{universal}` (the id of
    the shared axis), `{axis}` (its name), `{prompts}` (the set that directions are fitted on),
    `{evaluated}` (the last set judged on) and `{align}`. `draw` makes an Altair chart of the rows,
    whose data it calls `rows`; without it they are a table.
    """

    name: str
    title: str
    reading: str
    statement: str
    missing: str
    draw: Callable[[Sequence[Row]], Any] | None = None


@dataclass(frozen=True)
class Answer:
    """A section asked of one study: the SQL as it was run, and its rows."""

    section: Section
    reading: str
    statement: str
    missing: str
    table: pa.Table


def ask(connection: Connection, section: Section, names: Mapping[str, str]) -> Answer:
    """The section's rows for the study that `names` (of `study_names`) is of."""
    statement = fill(section.statement, names).strip()
    return Answer(
        section,
        fill(section.reading, names),
        statement,
        fill(section.missing, names),
        query(connection, statement),
    )


def fill(template: str, names: Mapping[str, str]) -> str:
    """The template with `{name}` replaced; other braces, as of `format`, stay."""
    for name, value in names.items():
        template = template.replace(f"{{{name}}}", value)
    return template


def latest_study(connection: Connection, study: str | None = None) -> str:
    """The id of the last study, or the one that starts with `study`; raises `AxesError`."""
    found = rows(
        connection,
        """
        select evaluations.study_id, max(runs.started_at) as started_at
        from evaluations
        inner join runs on evaluations.run_id = runs.run_id
        where starts_with(evaluations.study_id, ?) and evaluations.fitted_on is null
        group by evaluations.study_id
        order by started_at
        """,
        [study or ""],
    )
    if not found:
        which = f"no study {study}" if study else "no study"
        raise AxesError(f"{which} in the warehouse: run `axes study` first")
    return found[-1]["study_id"]


def study_definition(connection: Connection, study_id: str) -> dict[str, Any]:
    """The study's definition, as it was stored with its figures."""
    found = rows(
        connection, "select parameters from evaluations where study_id = ? limit 1", [study_id]
    )
    return json.loads(found[0]["parameters"])


def study_names(connection: Connection, study_id: str) -> dict[str, str]:
    """What templates are filled with; raises `AxesError` where the shared axis is not there."""
    definition = study_definition(connection, study_id)
    found = rows(
        connection,
        """
        select axes.axis_id, axes.name
        from axes
        where axis_id in (
            select axis_id from evaluations where study_id = ? and scorer = 'universal'
        )
        """,
        [study_id],
    )
    if not found:
        raise AxesError(
            f"the universal axis of study {study_id} is not in the warehouse: run its `axes study` "
            "again"
        )
    (shared,) = found
    return {
        "study_id": study_id,
        "prompts": definition["prompts"],
        "evaluated": [definition["prompts"], *definition["evaluate"]][-1],
        "align": definition["align"],
        "universal": shared["axis_id"],
        "axis": shared["name"],
    }
