from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from docs.generate import FOLDER, NOTE, cli_page, commands, modules_page, tables_page
from docs.recipes import cookbook_page

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("tables.md", tables_page),
        ("cli.md", cli_page),
        ("modules.md", modules_page),
        ("cookbook.md", lambda: NOTE + cookbook_page()),
    ],
)
def test_generated_pages_are_up_to_date(name, page):
    assert (FOLDER / name).read_text() == page(), "run `make docs`"


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda value: str(value)[:40])
def test_every_command_has_help_with_an_example_and_every_option_a_text(path, command):
    assert command.help
    assert re.search(r"\x08\s+axes ", command.help)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.show_default, f"{path} {parameter.name}"


def test_the_readme_names_every_top_level_command():
    text = README.read_text()
    for path, _ in commands():
        if path.count(" ") == 1:
            assert path in text, path
