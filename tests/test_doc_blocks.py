"""Every code block of the documentation is run, or, where it needs models or a hub, taken apart."""

from __future__ import annotations

import csv
import io
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from axes.cli.main import cli
from axes.warehouse.connection import connect
from tests.doc_blocks import Block, WrongBlock, blocks, calls, check_axes, check_make, check_output

CHECKOUT = Path(__file__).parent.parent
MAKEFILE = (CHECKOUT / "Makefile").read_text()

DOCS = sorted((CHECKOUT / "docs").rglob("*.md"))
# The cookbook is generated, with tests of its own: test_docs.py, test_cookbook.py.
PAGES = [
    path
    for path in (CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *DOCS)
    if path.name != "cookbook.md" and "```" in path.read_text()
]
# At most so many blocks may be declared not to be run; at least so many commands must be run.
MOST_NOT_RUN = 12
LEAST_RUN = 30


def blocks_of(path: Path) -> list[Block]:
    return blocks(str(path.relative_to(CHECKOUT)), path.read_text())


@pytest.fixture
def folder(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the warehouse in `lake`, as the pages have it, and those of nodes."""
    shutil.copytree(demo, tmp_path / "lake")
    for node in ("node1", "node2"):
        (tmp_path / node).mkdir()
        (tmp_path / node / "lake").symlink_to(demo)  # Sources of a merge, which reads them only.
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_the_blocks_of_a_page_do_what_they_say(path: Path, folder: Path) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks_of(path):
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.code)
        check(block, names)


def check(block: Block, names: dict[str, object]) -> None:
    """Run a block in the working folder, or look through it; `names` are those of the page."""
    if block.language == "text":
        check_output(block)
    elif block.language == "sh":
        for call in calls(block):
            if call.words[0] == "make":
                check_make(block, call, MAKEFILE)
            elif call.words[0] == "axes":
                check_axes(block, call)
                if call.is_run and not block.reason:
                    run(block, list(call.words[1:]))
    elif block.language == "toml":
        tomllib.loads(block.code)
    elif block.language == "csv":
        rows = list(csv.reader(io.StringIO(block.code)))
        if len({len(row) for row in rows}) != 1:
            raise block.wrong("rows of different lengths")
    elif block.language == "python":
        code = compile(block.code, f"{block.page}:{block.line}", "exec")
        if not block.reason:
            exec(code, names)
    elif not block.reason:
        connection = connect(Path("lake"))
        for statement in connection.extract_statements(block.code):
            connection.execute(statement).fetchall()


def run(block: Block, words: list[str]) -> None:
    """Files that were only there to be parsed are empty: a line that reads one is not run.

    Imports go to a root of their own: the ready sets bear the names of those in the warehouse.
    """
    files = [Path(word) for word in words if not word.startswith("-") and Path(word).is_file()]
    if any(file.stat().st_size == 0 for file in files):
        return
    root = ["--root", "imported"] if words[:2] == ["prompts", "import"] else []
    result = CliRunner().invoke(cli, [*words, *root])
    if result.exit_code:
        raise block.wrong(f"axes {shlex.join(words)}: {result.output} {result.exception!r}")


def test_few_blocks_are_declared_not_to_be_run_and_many_commands_are_run() -> None:
    found = [block for path in PAGES for block in blocks_of(path)]
    declared = [f"{block.page}:{block.line} {block.reason}" for block in found if block.reason]
    assert len(declared) <= MOST_NOT_RUN, declared
    runnable = [call for block in found if block.language == "sh" for call in calls(block)]
    assert sum(call.is_run for call in runnable) >= LEAST_RUN


def page_of(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (page_of("yaml", "a: 1"), "language 'yaml'"),
        (page_of("", "axes sqll 1"), "No such command 'sqll'"),
        (page_of("sh", "$ axes list models", "name", "$ axes sqll"), "No such command 'sqll'"),
        (page_of("sh", "axes sqll"), "No such command 'sqll'"),
        (page_of("sh", "axes sql --sefe 'from runs'"), "No such option"),
        (page_of("sh", "axes fit m --prompts p --direction sideways"), "'sideways' is not one of"),
        (page_of("sh", "axes fit m"), "Missing option '--prompts'"),
        (page_of("sh", "echo hi | axes sql --format yaml"), "'yaml' is not one of"),
        (page_of("sh", "axes sql \\", "  'from no_such_table'"), "no_such_table"),
        (page_of("sh", "A=1 axes sql 'select", "  1' | axes fit"), "Missing argument 'MODEL'"),
        (page_of("sh", "make no-such-target"), "make knows no no-such-target"),
        (page_of("sh", "make demo MODLE=x"), "make knows no MODLE=x"),
        (page_of("sh", "axis sql"), "no command is called axis"),
        (page_of("sh", "axes sql 'select"), "does not end"),
        (page_of("text", "$ axes sql"), "a command in a block of text"),
        (page_of("csv", "a,b", "1"), "different lengths"),
        ("```sql\nselect 1", "does not end"),
    ],
)
def test_a_wrong_block_is_found(page: str, message: str, root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root.parent)
    with pytest.raises(WrongBlock, match=message):
        for block in blocks("page.md", page):
            check(block, {})


def test_code_of_a_page_is_run_in_order_and_fails_loudly(root: Path, monkeypatch) -> None:
    monkeypatch.chdir(root.parent)
    names: dict[str, object] = {}
    first, second = blocks("p.md", page_of("python", "x = 1") + "\n" + page_of("python", "x += 1"))
    check(first, names)
    check(second, names)
    assert names["x"] == 2
    (wrong,) = blocks("p.md", page_of("python", "raise RuntimeError('as it stands')"))
    with pytest.raises(RuntimeError, match="as it stands"):
        check(wrong, names)
    (query,) = blocks("p.md", page_of("sql", "select 1;", "from no_such_view;"))
    with pytest.raises(Exception, match="no_such_view"):
        check(query, names)


def test_a_comment_before_a_block_says_that_it_is_not_run_or_names_its_file() -> None:
    text = "\n".join(
        [
            "<!-- not run: needs a GPU -->",
            "",
            page_of("python", "raise RuntimeError"),
            "words between",
            "<!-- file: mine.csv -->",
            page_of("csv", "text"),
            page_of("csv", "text"),
        ]
    )
    first, second, third = blocks("p.md", text)
    assert first.reason == "needs a GPU" and first.file is None
    assert second.file == "mine.csv" and second.reason is None
    assert third.file is None
    check(first, {})
