"""The shell through a pipe in place of the keyboard, and through a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from axes.sql_completion import Catalog, SqlCompleter
from axes.sql_shell import _COMMANDS, Shell, is_complete, run_shell
from axes.warehouse.connection import Connection, connect_unlocked
from axes.warehouse.storage.layout import init_root
from tests.rows import put

Typed = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Connection:
    """Two runs in a warehouse with comments, which take a second to set."""
    root = tmp_path_factory.mktemp("shell") / "lake"
    init_root(root)
    put(root, "runs", {"run_id": "a"}, {"run_id": "b"})
    return connect_unlocked(root, is_commented=True)


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Ctrl-C reaches the tests, and what they start, where it is ignored: of a job with `nohup`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def typed(
    connection: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Typed:
    """Type keys into a shell, then Ctrl-D; returns what went to stdout and stderr."""
    monkeypatch.setenv("AXES_HISTORY", str(tmp_path / "history"))
    monkeypatch.setattr(
        "axes.sql_shell.connect_unlocked", lambda *_, is_commented: connection.cursor()
    )

    def run(keys: str, mode: str = "csv") -> tuple[str, str]:
        with create_pipe_input() as keyboard, create_app_session(keyboard, DummyOutput()):
            keyboard.send_text(keys + "\x03\x04")
            run_shell(tmp_path, mode)
        shown = capsys.readouterr()
        return shown.out.partition("for tables\n")[2], shown.err

    return run


def test_a_statement_runs_when_its_semicolon_is_typed(typed: Typed) -> None:
    assert typed("select 1 as a\r, 2 as b\r;\r") == ("a,b\n1,2\n", "")


def test_several_statements_run_one_after_the_other(typed: Typed) -> None:
    keys = "create table mine as select 7 as x; from mine; select ';' as y; -- done\r"
    out, err = typed(keys)
    assert (out.endswith("x\n7\ny\n;\n"), err) == (True, "")


def test_an_error_shows_the_place_and_the_shell_goes_on(typed: Typed) -> None:
    out, err = typed("select nothing from runs;\rselec;\rselect 3 as a;\r")
    assert out == "a\n3\n"
    first, line, caret, second, *_ = err.splitlines()
    assert line == "LINE 1: select nothing from runs;"
    assert caret.index("^") == line.index("nothing")
    assert first.startswith("Error: Binder Error") and "nothing" in first
    assert second.startswith("Error: Parser Error")


def test_ctrl_c_drops_the_line_and_ctrl_d_leaves(typed: Typed) -> None:
    assert typed("select 1 as nev\x03select 2 as a;\r") == ("a\n2\n", "")


def test_quit_leaves_and_what_follows_is_not_run(typed: Typed) -> None:
    assert typed(".quit\rselect 1 as a;\r") == ("", "")


def test_dot_commands_show_set_and_read(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "two words.sql").write_text("select 5 as five;\nselect 6 as six;\n")
    assert "v_auroc,One row per axis, model" in typed(".tables v_a%\r")[0].replace('"', "")
    tables, hint = typed(".tables\r")
    assert "stg_runs" not in tables and hint.startswith("Begin with v_studies, v_study")
    assert "runs,run_id,VARCHAR,start time" in typed(".schema runs\r")[0]
    assert typed(".mode json\rselect 1 as a;\r")[0] == '[\n  {\n    "a": 1\n  }\n]\n'
    assert re.search(r"Run Time: real \d+\.\d{3} s", typed(".timer on\rselect 1;\r")[0])
    assert typed(f".read '{tmp_path}/two words.sql'\r")[0] == "five\n5\nsix\n6\n"
    shown = typed(".help\r")[0] + ".exit"
    assert [command for command in _COMMANDS if command not in shown] == []


def test_a_wrong_dot_command_is_one_line(typed: Typed) -> None:
    lines = [
        ".nonsense",
        ".mode xml",
        ".timer",
        ".read",
        ".read ~no-such-user/a",
        ".schema nowhere",
    ]
    lines += [".tables 'a"]
    out, err = typed("".join(f"{line}\r" for line in [*lines, ".read /no", "select 1 as a;"]))
    assert out == "a\n1\n"
    errors = err.splitlines()
    assert len(errors) == 8 and all(line.startswith("Error: ") for line in errors)


def test_a_long_table_is_cut_and_says_so(typed: Typed) -> None:
    out, _ = typed("from range(1000);\r.maxrows 0\rfrom range(1000);\r", "table")
    assert "(the first 40; .maxrows 0 prints all)" in out
    assert "(1000 rows)" in out


def test_what_was_typed_is_there_again_the_next_time(typed: Typed) -> None:
    typed("select 41 as a;\r")
    assert typed("\x1b[A\r") == ("a\n41\n", "")


def test_the_shell_runs_without_a_place_for_its_history(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without a home folder, as in a container, and a file that cannot be written."""
    monkeypatch.setattr("axes.sql_shell.os.path.expanduser", lambda path: path)
    monkeypatch.setenv("AXES_HISTORY", "")
    for path in ("", str(tmp_path / "nowhere" / "history")):
        monkeypatch.setenv("AXES_HISTORY", path)
        out, err = typed("select 1 as a;\rselect 2 as a;\r")
        assert out == "a\n1\na\n2\n"
        assert err == (
            f"what you type is not kept: {path or '~/.axes_history'}: No such file or directory\n"
        )


def test_enter_runs_only_what_is_complete() -> None:
    complete = ["", " .tables", "select 1;", "select 1; -- one"]
    begun = ["select 1", "select 1 -- ;", "select ';", 'select "a;', "/* ;", "select 1; select 2"]
    assert [text for text in (*complete, *begun) if is_complete(text)] == complete


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("from v_au", "v_auroc", "v_axis_cosines"),
        ("select * from ", "activations", "select"),
        ("select auroc, mod| from v_auroc", "model", "model_group"),
        ("from v_auroc where pos", "positive_count", "pooled_start"),
        ("select p.tex| from prompts as p", "text", "token_count"),
        ("select prompts.", "prompt_id", "vector"),
        ("select spear", "spearman(", "cosine("),
        ("SEL", "select", "model"),
        ("select regr_sl", "regr_slope(", "regr_r2("),
        (".sch", ".schema", ".tables"),
        (".schema v_st", "v_study", "v_auroc"),
        (".mode pa", "parquet", "csv"),
    ],
)
def test_completion_offers_what_may_follow(catalog, text, wanted, unwanted):
    before, _, after = text.partition("|")
    document = Document(before + after, cursor_position=len(before))
    completer = SqlCompleter(catalog, _COMMANDS)
    found = [choice.text for choice in completer.get_completions(document, CompleteEvent())]
    assert wanted in found
    assert unwanted not in found


@pytest.fixture(scope="module")
def catalog(connection: Connection) -> Catalog:
    read = Catalog()
    read.read(connection)
    return read


class Terminal:
    """`axes sql` on a pseudo-terminal."""

    def __init__(self, root: Path) -> None:
        mine, theirs = pty.openpty()
        environment = {
            **os.environ,
            "AXES_HISTORY": str(root.parent / "history"),
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        command = "import sys; sys.argv = ['axes', 'sql']; from axes.cli.main import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, "AXES_ROOT": str(root)},
            start_new_session=True,
        )
        os.close(theirs)
        self.terminal = mine
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until the text appears behind what was seen before."""
        until = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < until, f"no {text!r} in {self.seen!r}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.seen += os.read(self.terminal, 65536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]


def test_ctrl_c_cancels_a_statement_on_a_terminal_and_the_shell_goes_on(root: Path) -> None:
    shell = Terminal(root)
    try:
        shell.wait_for("axes>")
        shell.type("select count(*) from range(100000000000) a where hash(range) % 7 = 1;\r")
        time.sleep(1.5)
        os.kill(shell.process.pid, signal.SIGINT)
        shell.wait_for("interrupted")
        shell.type("select 6 * 7 as answer;\r")
        # Not the figure itself, which a terminal's colours may hold.
        shell.wait_for("(1 row)")
        shell.wait_for("axes>")
        shell.type("\x04")
        assert shell.process.wait(timeout=20) == 0
    finally:
        shell.process.kill()
        os.close(shell.terminal)


def test_ctrl_c_before_the_statement_runs_ends_it_all_the_same(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DuckDB forgets an interrupt that comes before a statement: here the first two."""

    class Deaf:
        interrupts = 0

        def interrupt(self) -> None:
            self.interrupts += 1

    deaf = Deaf()

    def query(*_: object, **__: object) -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + 30
        while deaf.interrupts < 3 and time.monotonic() < until:
            time.sleep(0.01)

    shell = Shell(connection, "table")
    shell.connection = deaf  # type: ignore[assignment]
    monkeypatch.setattr("axes.sql_shell.query", query)
    shell.handle("select 1;")
    assert capsys.readouterr().err == "interrupted\n" and deaf.interrupts == 3
