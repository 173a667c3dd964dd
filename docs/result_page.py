"""Pages of results that a program writes: docs/findings.md and docs/results.md.

Every section is a query in a file, a rule that states in words what its rows show, a figure, and
the commands that write the rows. If the rows are missing, the page names these commands. Only
numbers are read, no text of any prompt or completion.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import click
from matplotlib.figure import Figure

from axes.warehouse.connection import Connection, connect, query, rows
from axes.warehouse.render import render
from axes.warehouse.tables.comments import read_header
from docs.findings_figures import write_figure

FOLDER = Path(__file__).parent

Row = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """A question: the file of its query, its rule, its figure, and the commands of its rows.

    The rule gives a sentence and then points. `varied` stands in for a column in queries that
    answer the same question of several columns.
    """

    path: Path
    title: str
    explanation: str
    commands: tuple[str, ...]
    verdict: Callable[[Sequence[Row]], list[str]]
    figure: Callable[[Connection, Sequence[Row]], Figure] | None
    varied: str = "varied"

    @property
    def name(self) -> str:
        return self.path.stem.replace("varied", self.varied)

    @property
    def sql(self) -> str:
        return self.path.read_text().replace("varied", self.varied)


def commands_of(sections: Iterable[Section]) -> list[str]:
    """The commands of all sections, each once, in order."""
    return list(dict.fromkeys(line for section in sections for line in section.commands))


def write_page(
    root: Path,
    page: Path,
    introduction: str,
    sections: Sequence[Section],
    closing: tuple[str, Path],
) -> list[str]:
    """Write the page and its figures; the names of sections whose rows are missing.

    `closing` is the text of the last section and the file of its query.
    """
    connection = connect(root)
    parts, missing = [introduction], []
    for section in sections:
        results = rows(connection, section.sql)
        parts.append(f"## {section.title}\n\n{fill(section.explanation, 100)}\n")
        if not results:
            missing.append(section.name)
            parts.append(
                "The warehouse has no rows for this claim. To add them:\n\n"
                f"{_code(section.commands)}"
            )
            continue
        claim, *points = section.verdict(results)
        parts.append(f"{claim}\n")
        if points:
            parts.append("\n".join(points) + "\n")
        if section.figure is not None:
            figure = page.parent / "figures" / f"{section.name}.svg"
            write_figure(section.figure(connection, results), figure)
            parts.append(f"![{section.title}](figures/{figure.name})\n")
        parts.append(_query_result(connection, section.sql))
        parts.append(f"These commands write the rows:\n\n{_code(section.commands)}")
    text, sql = closing
    parts += [text, _query_result(connection, sql.read_text())]
    page.write_text("\n".join(parts))
    return missing


def run_commands(root: Path, commands: Iterable[str], folder: Path | None = None) -> None:
    """Run the commands on `root`, in `folder` if files of theirs lie there.

    Raises `CalledProcessError` for one that fails.
    """
    for command in commands:
        click.echo(command, err=True)
        program, *arguments = shlex.split(command)
        path = Path(sys.executable).with_name(program)
        subprocess.run(
            [path, *arguments, "--root", root.resolve()], check=True, stdout=sys.stderr, cwd=folder
        )


def interval(row: Row, name: str, prefix: str) -> str:
    """A value with its interval, from the columns `name`, `prefix` + `lower` and + `upper`."""
    lower, upper = row[f"{prefix}lower"], row[f"{prefix}upper"]
    if lower is None:
        return f"{row[name]:.3f} (no interval)"
    return f"{row[name]:.3f} ({lower:.3f} to {upper:.3f})"


def _query_result(connection: Connection, sql: str) -> str:
    table = render(query(connection, sql), "markdown", cell_width=200).decode()
    code = "\n".join(line for line in sql.splitlines() if not line.startswith("--"))
    summary = f"<details><summary>{' '.join(read_header(sql).text.split())}</summary>"
    return f"{table}\n{summary}\n\n```sql\n{code}\n```\n\n</details>\n"


def _code(lines: Sequence[str]) -> str:
    return "```sh\n" + "\n".join(lines) + "\n```\n"
