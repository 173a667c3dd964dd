"""`axes sql` on a terminal: a shell like the DuckDB command line.

A statement ends with `;` and may span several lines. Ctrl-C drops the line or cancels the running
statement; Ctrl-D quits. Lines that start with a dot are commands of the shell.
"""

from __future__ import annotations

import os
import shlex
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import click
import duckdb
import pyarrow as pa
from prompt_toolkit import PromptSession
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import SqlLexer

from axes.cli.options import FORMATS
from axes.sql_completion import Catalog, SqlCompleter
from axes.warehouse.connection import Connection, connect_unlocked, query, split_statements
from axes.warehouse.errors import QueryError
from axes.warehouse.names import did_you_mean
from axes.warehouse.render import echo, one_line, show

_HELP = """\
.tables [PATTERN]   tables and views, with the meaning of a row; PATTERN as in SQL's like
.schema [TABLE]     columns with type and comment
.mode [FORMAT]      format of printed rows: {formats}
.maxrows [N]        max rows of a printed table, 0 for all
.timer on|off       print the time of each statement
.read FILE          run the statements of a file
.help               this list
.quit               quit, as Ctrl-D does
A statement ends with ; and may span several lines. Tab completes. Ctrl-C cancels.
""".format(formats=", ".join(FORMATS))

_BEGIN = """\
Begin with v_studies, v_study (results), v_claims (verdicts), v_auroc, v_projections (with labels)
and v_prompts, all of latest_study() or another; .schema NAME has the columns."""

_COMMANDS: dict[str, list[str]] = {
    ".tables": [],
    ".schema": [],
    ".mode": list(FORMATS),
    ".maxrows": [],
    ".timer": ["on", "off"],
    ".read": [],
    ".help": [],
    ".quit": [],
    ".exit": [],
}


def run_shell(root: Path, mode: str) -> None:
    """Read statements from the terminal until the end; errors are printed, not raised."""
    shell = Shell(connect_unlocked(root, is_commented=True), mode)
    echo(f'{root}: DuckDB {duckdb.__version__}, ".help" for help, ".tables" for tables')
    session = _session(shell)
    while not shell.is_done:
        try:
            shell.handle(session.prompt("axes> "))
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


class Shell:
    """The state of the shell between two lines."""

    def __init__(self, connection: Connection, mode: str) -> None:
        self.connection = connection
        self.catalog = Catalog()
        self.catalog.read(connection)
        self.mode = mode
        self.row_limit = 40
        self.is_timed = False
        self.is_done = False

    def handle(self, text: str) -> None:
        """Run a dot command, or every statement of the text, and print the results."""
        try:
            if text.lstrip().startswith("."):
                self.command(text)
            else:
                self._run_all(text)
        except (QueryError, click.UsageError) as error:
            echo(f"Error: {one_line(error)}", err=True)
            for note in getattr(error, "__notes__", ()):
                echo(note, err=True)
        except OSError as error:
            echo(f"Error: {error.filename}: {error.strerror}", err=True)
        except KeyboardInterrupt:
            echo("interrupted", err=True)

    def _run_all(self, text: str) -> None:
        for statement in split_statements(text):
            self._run(statement.query)
            if statement.type != duckdb.StatementType.SELECT:
                self.catalog.read(self.connection)

    def _run(self, sql: str) -> None:
        started = time.perf_counter()
        is_cut = self.mode == "table" and self.row_limit > 0
        table = self._cancellable(sql, self.row_limit + 1 if is_cut else None)
        is_cut = is_cut and table.num_rows > self.row_limit
        if table.num_columns:
            show(table.slice(0, self.row_limit) if is_cut else table, self.mode)
        if is_cut:
            echo(f"(the first {self.row_limit}; .maxrows 0 prints all)")
        if self.is_timed:
            echo(f"Run Time: real {time.perf_counter() - started:.3f} s")

    def _cancellable(self, sql: str, row_limit: int | None) -> pa.Table:
        """The result, from a thread: not every call of DuckDB reacts to Ctrl-C."""
        with ThreadPoolExecutor(max_workers=1) as worker:
            running = worker.submit(query, self.connection, sql, row_limit=row_limit)
            try:
                return running.result()
            except KeyboardInterrupt:
                # Before the statement runs an interrupt is lost: so again until it ends.
                while not running.done():
                    self.connection.interrupt()
                    wait([running], timeout=0.1)
                raise

    def command(self, text: str) -> None:
        """Run a dot command; raises `UsageError`."""
        try:
            name, *arguments = shlex.split(text)
        except ValueError as error:
            raise click.UsageError(f"{text.strip()}: {error}") from error
        argument = arguments[0] if arguments else None
        match name:
            case ".tables":
                self._print_tables(argument)
            case ".schema":
                self._print_schema(argument)
            case ".mode" if argument in (None, *FORMATS):
                self.mode = argument or "table"
            case ".maxrows" if argument is None or argument.isdecimal():
                self.row_limit = 40 if argument is None else int(argument)
            case ".timer" if argument in ("on", "off"):
                self.is_timed = argument == "on"
            case ".read" if argument is not None:
                self._run_all(Path(_at_home(argument)).read_text())
            case ".help":
                echo(_HELP.rstrip())
            case ".quit" | ".exit":
                self.is_done = True
            case _:
                raise click.UsageError(f"{text.strip()} is not a command: see .help")

    def _print_tables(self, pattern: str | None) -> None:
        """Without a pattern, leave out staging views: they repeat the tables."""
        listed = query(
            self.connection,
            "select view_name as name, comment as rows from duckdb_views() where not internal "
            "and case when $1 is null then view_name not like 'stg_%' else view_name like $1 end "
            "union all select table_name, comment from duckdb_tables() where not internal "
            "and ($1 is null or table_name like $1) order by all",
            [pattern],
        )
        show(listed, self.mode)
        if pattern is None:
            echo(_BEGIN, err=True)

    def _print_schema(self, table: str | None) -> None:
        if table is not None and table not in self.catalog.columns:
            hint = did_you_mean(table, self.catalog.columns)
            raise click.UsageError(f"no table {table}{hint}: see .tables")
        listed = query(
            self.connection,
            "select table_name, column_name, data_type, comment from duckdb_columns() where "
            "not internal and case when $1 is null then table_name not like 'stg_%' else "
            "table_name = $1 end order by table_name, column_index",
            [table],
        )
        show(listed, self.mode)


def is_complete(text: str) -> bool:
    """Whether Enter runs the text: a dot command, nothing, or statements that end with `;`.

    >>> is_complete("select 1"), is_complete("select 1; -- one"), is_complete("select ';")
    (False, True, False)
    """
    if not text.strip() or text.lstrip().startswith("."):
        return True
    tokens = [start for start, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    return bool(tokens) and text[tokens[-1]] == ";"


def _session(shell: Shell) -> PromptSession[str]:
    bindings = KeyBindings()

    # Tab and the arrows select a completion; Enter ends a statement or starts a new line.
    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_complete(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    return PromptSession(
        history=_history(),
        completer=SqlCompleter(shell.catalog, _COMMANDS),
        complete_while_typing=Condition(lambda: False),
        lexer=PygmentsLexer(SqlLexer),
        key_bindings=bindings,
        multiline=True,
        prompt_continuation="  ... ",
        enable_history_search=True,
    )


def _history() -> History:
    """`$AXES_HISTORY`, else `.axes_history` in the home folder; in memory where it cannot be."""
    path = os.environ.get("AXES_HISTORY") or _at_home("~/.axes_history")
    try:
        Path(path).open("ab").close()
    except OSError as error:
        echo(f"what you type is not kept: {path}: {error.strerror}", err=True)
        return InMemoryHistory()
    return FileHistory(path)


def _at_home(path: str) -> str:
    """The path with `~` filled in, or as it is for a user without a home folder."""
    return os.path.expanduser(path)  # noqa: PTH111 - `Path.expanduser` raises `RuntimeError`
