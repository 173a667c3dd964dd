"""Generated pages hold every table, view, macro, command and module; the README every command."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from axes.warehouse.tables.catalog import check_rules, sql_files
from axes.warehouse.tables.schemas import TABLES
from docs.generate import FOLDER, NOTE, cli_page, commands, modules_page, tables_page
from docs.imports import read_modules
from docs.recipes import cookbook_page

README = Path(__file__).parent.parent / "README.md"


def test_the_cookbook_is_up_to_date():
    assert (FOLDER / "cookbook.md").read_text() == NOTE + cookbook_page(), "run `make docs`"


def test_the_page_of_tables_holds_every_table_view_macro_and_check_with_words_for_every_column():
    page = tables_page()
    sections = re.findall(r"^## (\S+)$", page, re.MULTILINE)
    names = {*TABLES, *sql_files("marts"), *sql_files("macros"), *check_rules()}
    assert set(sections) == names
    assert len(sections) == len(set(sections))
    topics = dict(re.findall(r"^- \*\*(.+?)\*\*: (.+)$", page, re.MULTILINE))
    listed = [name for text in topics.values() for name in re.findall(r"\(#(\w+)\)", text)]
    assert sorted(listed) == sorted(sections)
    assert "[v_claims](#v_claims)" in topics["Views: claims"]
    assert not re.findall(r"^\| \w+ \| [^|]+ \| *\|$", page, re.MULTILINE)


def test_the_page_of_commands_holds_the_help_of_every_command():
    page = cli_page()
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == [path for path, _ in commands()]
    assert page.count("Usage: axes") == len(commands())


def test_the_page_of_modules_holds_every_module_and_who_imports_whom():
    page = modules_page()
    files = [path.name for path in read_modules().values() if path.name != "__init__.py"]
    rows = re.findall(r"^\| `(\w+\.py)` \| \S.* \|$", page, re.MULTILINE)
    assert sorted(rows) == sorted(files)
    (diagram,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert len({len(line) for line in diagram.splitlines() if line[-1] in "┐│┘"}) == 1
    assert len(re.findall(r"│ \d+", diagram)) == 5 and "│ 0" not in diagram


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda value: str(value)[:40])
def test_every_command_has_help_with_an_example_and_every_option_a_text(path, command):
    assert command.help
    assert re.search(r"\x08\s+axes ", command.help)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.name}"


def test_the_readme_names_every_top_level_command():
    text = README.read_text()
    for path, _ in commands():
        if path.count(" ") == 1:
            assert path in text, path
