"""Answer one select statement from somebody who is not trusted: `ask(root, sql)`.

Three walls, each of which holds alone against every way to write that we know: the statement's
syntax tree has the nodes of queries, and names the warehouse's tables, views, macros and pure
functions and nothing else; the connection is locked, and its file system opens the files of the
tables and their index, for reading; the process it runs in has none of the user's environment,
cannot write, make, move or delete a file (Landlock), and ends at its limits.

A process answers one statement and ends, so that no statement sees anything that another one left
(docs/decisions/0013). Starting Python and opening the warehouse take most of the time:
`WarmWorkers` starts processes before there is a statement for them.
"""

from __future__ import annotations

import glob
import json
import os
import re
import resource
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa

from axes.warehouse.connection import Connection, connect, distinct_names
from axes.warehouse.errors import MAX_MESSAGE, AxesError, QueryError
from axes.warehouse.landlock import forbid_writing
from axes.warehouse.storage.roots import RemoteRoot, resolved, root_path
from axes.warehouse.storage.store import store_at
from axes.warehouse.syntax import Node, duckdb_message, nodes, parser, syntax_tree
from axes.warehouse.tables.catalog import sql_files, stored_catalog
from axes.warehouse.tables.schemas import TABLES

_LONGEST_STATEMENT = 100_000
_STARTING_SECONDS = 30.0
_DEAF_SECONDS = 1.0
_TOO_LATE = 3

_TABLE_FUNCTIONS = {"unnest", "range", "generate_series", "json_each", "json_tree"}
# Not the same at each call, yet they tell nothing about the machine.
_HARMLESS = {
    "current_date",
    "current_localtime",
    "current_localtimestamp",
    "error",
    "gen_random_uuid",
    "get_current_time",
    "get_current_timestamp",
    "now",
    "random",
    "today",
    "transaction_timestamp",
    "uuid",
    "uuidv4",
    "uuidv7",
}
# Called the same at each call, yet they plan a statement given as text, or look at the process.
_REFUSED = re.compile(
    r"json_(de)?serialize_\w+|json_execute_\w+|getenv|getvariable|version|session_user|user"
    r"|current_(?!date|local)\w+|(pg|inet|has|duckdb|pragma|icu_calendar)_\w+|\w+_description"
)
_SHOWN = {'"tables"'}


@dataclass(frozen=True)
class Limits:
    """What one statement may use; the time counts from the start of the statement."""

    seconds: float = 30.0
    memory_mb: int = 1024
    threads: int = 2
    result_mb: int = 64


DEFAULT_LIMITS = Limits()


def ask(
    root: Path, sql: str, limits: Limits = DEFAULT_LIMITS, *, worker: Worker | None = None
) -> pa.Table:
    """The rows of one select statement, or `QueryError` in one line; see the module's docstring.

    Starts a process for the statement (some tenths of a second) unless there is a `worker`, of
    the same root and limits. A repeated column name gets a number.
    """
    if len(sql) > _LONGEST_STATEMENT:
        raise QueryError(f"the statement is longer than {_LONGEST_STATEMENT} characters")
    for is_last in (False, False, True):
        current, worker = worker or Worker(root, limits), None
        try:
            table = current.answer(sql)
            return table.rename_columns(distinct_names(table.column_names))
        except QueryError as error:
            # A compaction came between the listing of files and their reading.
            if is_last or "No such file" not in str(error):
                raise
    raise AssertionError("the last attempt returns or raises")


class Worker:
    """A process that opens a warehouse behind the three walls, answers one statement, and ends."""

    def __init__(self, root: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        command = [sys.executable, "-P", "-m", "axes.warehouse.safe"]
        # Of the user's environment what an object store asks for, and nothing on a disk.
        environment = {"PYTHONPATH": str(Path(__file__).parents[2]), **store_at(root).environment}
        if catalog := stored_catalog(is_commented=False):  # The process can read it, not write it.
            environment["AXES_CACHE"] = str(catalog.parents[1])
        self._process = subprocess.Popen(
            [*command, str(resolved(root)), json.dumps(asdict(limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            # Ctrl-C on a terminal is for the process that asks.
            start_new_session=True,
        )

    @property
    def is_over(self) -> bool:
        """Whether the process has ended, with or without a statement."""
        return self._process.poll() is not None

    def answer(self, sql: str) -> pa.Table:
        """The rows of the only statement this process is given, or `QueryError`."""
        limits = self._limits
        try:
            output, _ = self._process.communicate(
                json.dumps(sql).encode(), timeout=limits.seconds + _STARTING_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise QueryError(_late(limits)) from error
        finally:
            self.stop()
        if self._process.returncode == 0:
            return pa.ipc.open_stream(output).read_all()
        if self._process.returncode == _TOO_LATE:
            raise QueryError(_late(limits))
        if self._process.returncode == 1 and output:
            raise QueryError(output.decode())
        raise QueryError(
            "the statement broke the process it ran in: it used more memory than "
            f"{limits.memory_mb} MB, or nests too deep"
        )

    def stop(self) -> None:
        """End the process, whatever it does; from any thread, and more than once."""
        self._process.kill()
        self._process.wait()


class WarmWorkers:
    """Keeps `count` workers waiting, and warms another for each that was used."""

    def __init__(self, root: Path, limits: Limits = DEFAULT_LIMITS, *, count: int = 2) -> None:
        self.root = root
        self.limits = limits
        self._count = count
        self._waiting: deque[Worker] = deque()
        self._lock = threading.Lock()
        self._is_closed = False
        self._fill()

    @contextmanager
    def worker(self) -> Iterator[Worker]:
        """A worker to ask once (`safe.ask`, with these `root` and `limits`); ended afterwards.

        The oldest that waits, else a new one. Its successor is started afterwards: starting takes
        a processor that the statement has a use for.
        """
        taken = self._take()
        try:
            yield taken
        finally:
            taken.stop()
            self._fill()

    def close(self) -> None:
        """End those that wait; none is started any more."""
        with self._lock:
            self._is_closed = True
            while self._waiting:
                self._waiting.popleft().stop()

    def _take(self) -> Worker:
        with self._lock:
            while self._waiting:
                worker = self._waiting.popleft()
                # It ends by itself where the warehouse could not be opened then.
                if not worker.is_over:
                    return worker
        return Worker(self.root, self.limits)

    def _fill(self) -> None:
        with self._lock:
            while not self._is_closed and len(self._waiting) < self._count:
                self._waiting.append(Worker(self.root, self.limits))


def require_safe(sql: str, names: set[str]) -> None:
    """Raise `QueryError` unless `sql` is one select statement over `names` and pure functions."""
    try:
        statements = syntax_tree(sql)
    except QueryError as error:
        raise QueryError(f"safe mode: {error}") from error
    if len(statements) != 1:
        raise QueryError(f"safe mode runs one statement, not {len(statements)}")
    impure = _impure_functions()
    found = list(nodes(statements))
    defined = {str(entry["key"]) for node in found for entry in _defined(node)}
    # A name that is defined in one scope may mean a file, or an internal view, in another.
    if strange := [
        name
        for name in sorted(defined)
        if not re.fullmatch(r"\w+", name) or name.lower() in _internal_views()
    ]:
        raise QueryError(f"safe mode has no table named {strange[0]}")
    for node in found:
        _require_safe_node(node, names | {name.lower() for name in defined}, impure)


def _require_safe_node(node: Node, tables: set[str], impure: frozenset[str]) -> None:
    kind = node.get("type")
    if kind == "BASE_TABLE":
        path = [node["catalog_name"], node["schema_name"]]
        name = node["table_name"]
        if name.lower() not in tables or path not in (["", ""], ["", "main"], ["memory", "main"]):
            raise QueryError(
                f"safe mode has no table named {'.'.join([*filter(None, path), name])}: "
                "it reads the warehouse's tables and views"
            )
    elif kind == "TABLE_FUNCTION":
        name = node["function"].get("function_name", "?")
        if name.lower() not in _TABLE_FUNCTIONS:
            raise QueryError(f"safe mode has no table function {name}")
    elif kind == "SHOW_REF":
        if node["show_type"] not in ("DESCRIBE", "SUMMARY") and node["table_name"] not in _SHOWN:
            raise QueryError(f"safe mode does not show {node['table_name'].strip(chr(34))}")
    elif node.get("class") == "FUNCTION":
        name = node["function_name"].lower()
        if name in impure or _REFUSED.fullmatch(name):
            raise QueryError(f"safe mode has no function {name}")


def _defined(node: Node) -> list[Node]:
    """The common table expressions that a select defines."""
    return node.get("cte_map", {}).get("map", []) if "cte_map" in node else []


@cache
def _internal_views() -> frozenset[str]:
    listed = parser().execute("select lower(view_name) from duckdb_views() where internal")
    return frozenset(name for (name,) in listed.fetchall())


@cache
def _impure_functions() -> frozenset[str]:
    impure = parser().execute(
        # `+` and `range` differ between calls only where they take a time with a zone.
        "select lower(function_name) as name from duckdb_functions() "
        "where function_type in ('scalar', 'aggregate') group by name "
        "having bool_or(stability = 'VOLATILE') or not bool_or(stability = 'CONSISTENT')"
    )
    return frozenset(name for (name,) in impure.fetchall()) - _HARMLESS


def locked(root: Path, limits: Limits, *, is_commented: bool = False) -> Connection:
    """A connection to the warehouse within limits; raises `RootError` for a link in it."""
    settings = {
        "temp_directory": "",
        "max_temp_directory_size": "0KB",
        "memory_limit": f"{limits.memory_mb}MB",
        "threads": limits.threads,
    }
    return connect(root, is_commented=is_commented, settings=settings)


def without_root(text: str, root: Path) -> str:
    """A message that does not tell where the warehouse lies."""
    for path in (str(resolved(root)), str(root)):
        for written in (path, glob.escape(path)):
            text = text.replace(written, "ROOT")
    return text


def _answer(connection: Connection, root: Path, sql: str, limits: Limits) -> bytes:
    """The rows that a locked connection to `root` gives, as an Arrow stream; or `QueryError`."""
    views = {*(f"stg_{name}" for name in TABLES), *sql_files("marts")}
    with _after(limits.seconds + _DEAF_SECONDS, os._exit, _TOO_LATE):
        require_safe(sql, views | set(TABLES))
    # Again: the connection may have been opened a while ago.
    store_at(root).require()
    try:
        with (
            _after(limits.seconds, connection.interrupt),
            # Some functions run on, deaf to the interrupt.
            _after(limits.seconds + _DEAF_SECONDS, os._exit, _TOO_LATE),
        ):
            return _stream(connection, sql, limits)
    except duckdb.InterruptException as error:
        raise QueryError(_late(limits)) from error
    except duckdb.Error as error:
        raise QueryError(duckdb_message(error)) from error


@contextmanager
def _after(seconds: float, action: Callable[..., object], *arguments: object) -> Iterator[None]:
    """Call `action` when the body takes longer."""
    timer = threading.Timer(seconds, action, arguments)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _stream(connection: Connection, sql: str, limits: Limits) -> bytes:
    relation = connection.sql(sql)
    sink = pa.BufferOutputStream()
    with (
        relation.to_arrow_reader(10_000) as reader,
        pa.ipc.new_stream(sink, reader.schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
            if sink.tell() > limits.result_mb << 20:
                raise QueryError(
                    f"the result is larger than {limits.result_mb} MB: aggregate, or add a limit"
                )
    return sink.getvalue().to_pybytes()


def _late(limits: Limits) -> str:
    return f"the statement took longer than {limits.seconds:g} s"


def _limit_process(root: Path, limits: Limits) -> None:
    """No files written, no core, and an end to processor time and memory whatever DuckDB does."""
    if isinstance(root, RemoteRoot):  # What is read of an object store passes through its cache.
        home = store_at(root).home
        home.mkdir(parents=True, exist_ok=True)
        forbid_writing(home)
    else:
        forbid_writing()
    processor = int(limits.seconds * limits.threads + _STARTING_SECONDS)
    memory = (2 * limits.memory_mb + 1024) << 20
    for kind, value in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_DATA, memory),
    ):
        resource.setrlimit(kind, (value, value))


def _warm_up(connection: Connection) -> None:
    """What the first statement would else wait for: imports, DuckDB's first time, footers."""
    require_safe("select 1", set())
    for name in ("v_projections", "v_generation_projections"):
        connection.sql(f"from {name} limit 1").to_arrow_reader(1).read_all()


def _main(root: Path, limits: Limits) -> int:
    """Open a warehouse, read a statement from stdin, write an Arrow stream or an error to stdout.

    Ends where stdin closes without a statement: nobody is left to ask one.
    """
    _limit_process(root, limits)
    try:
        connection = locked(root, limits)
        _warm_up(connection)
        question = sys.stdin.buffer.read()
        answer = _answer(connection, root, json.loads(question), limits) if question else b""
    except (AxesError, MemoryError) as error:
        text = str(error) or "the statement used too much memory"
        sys.stdout.buffer.write(without_root(text, root)[:MAX_MESSAGE].encode())
        return 1
    sys.stdout.buffer.write(answer)
    return 0


if __name__ == "__main__":
    code = _main(root_path(sys.argv[1]), Limits(**json.loads(sys.argv[2])))
    sys.stdout.buffer.flush()
    # Not `sys.exit`: at its end the interpreter may abort over DuckDB's threads.
    os._exit(code)
