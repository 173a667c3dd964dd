"""A section of the report: its SQL, how to read its rows, and which command stores them.

Markdown, page and chart files are made of the same sections, so every number in them comes from the
SQL that is shown next to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from axes.analysis.study.evaluations import stored_parameters
from axes.warehouse.connection import Connection, query, rows
from axes.warehouse.errors import AxesError
from axes.warehouse.names import with_literals

Row = dict[str, Any]
Rows = Sequence[Row]


@dataclass(frozen=True)
class Section:
    """A part of the report of any study.

    `name` is its anchor and file name, `explanation` how to read it. `missing` says in one line
    which command stores its rows. The SQL may use the parameters `$study_id`, `$universal` (the id
    of the shared axis), `$prompts` (the set that directions are fitted on), `$evaluated` (the last
    set evaluated on) and `$align`; the texts may use the same names and `axis` (the name of the
    shared axis) in braces. `draw` makes an Altair chart of the rows, whose data it calls `rows`;
    without it the section is a table.
    """

    name: str
    title: str
    explanation: str
    sql: str
    missing: str = "No values of this study are stored: run its `axes study` again."
    draw: Callable[[Rows], Any] | None = None


@dataclass(frozen=True)
class SectionContent:
    """A section of one study: its rows, its texts, and the SQL with the parameters filled in."""

    section: Section
    explanation: str
    statement: str
    missing: str
    table: pa.Table


def query_section(
    connection: Connection, section: Section, names: Mapping[str, str]
) -> SectionContent:
    """The section for the study of `names` (see `study_names`)."""
    sql = section.sql.strip()
    parameters = {name: names[name] for name in re.findall(r"\$(\w+)", sql)}
    return SectionContent(
        section,
        _fill(section.explanation, names),
        # What is shown can be run as it is; what is run binds the ids, which are foreign text.
        with_literals(sql, names),
        _fill(section.missing, names),
        query(connection, sql, parameters),
    )


def _fill(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: names[match[1]], text)


def latest_study(connection: Connection, study: str | None = None) -> str:
    """The id of the last study, or the one that starts with `study`; raises `AxesError`."""
    studies = rows(
        connection,
        "from v_studies where starts_with(study_id, ?) order by started_at desc, study_id limit 1",
        [study or ""],
    )
    if not studies:
        which = f"no study {study}" if study else "no study"
        raise AxesError(f"{which} in the warehouse: run `axes study` first")
    # It stands in commands that messages tell the user to run.
    if not re.fullmatch("[0-9a-f]+", study_id := studies[0]["study_id"]):
        raise AxesError(f"{study_id!r} is not the id of a study: check this warehouse")
    return study_id


def study_names(connection: Connection, study_id: str) -> dict[str, str]:
    """The parameters of a section's SQL and texts; raises `AxesError` without a shared axis."""
    definition = stored_parameters(connection, study_id)
    shared = rows(
        connection,
        """
        select axis_id, name
        from axes
        where axis_id in (
            select axis_id from evaluations where study_id = ? and scorer = 'universal'
        )
        """,
        [study_id],
    )
    if len(shared) != 1:
        raise AxesError(
            f"the universal axis of study {study_id} is not in the warehouse: run its `axes study` "
            "again"
        )
    return {
        "study_id": study_id,
        "prompts": definition["prompts"],
        "evaluated": [definition["prompts"], *definition["evaluate"]][-1],
        "align": definition["align"],
        "universal": shared[0]["axis_id"],
        "axis": shared[0]["name"],
    }
