"""A concept from two text files: line i of both is a pair, and the file says the class."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from axes.warehouse.maintenance.repair import restore_commands
from tests.commands import axes
from tests.ingest.conftest import read

Files = Callable[[str, str], list[str]]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Write `formal.txt` and `informal.txt`, and give the options that name them."""

    def write(formal: str, informal: str) -> list[str]:
        words = []
        for option, name, text in (
            ("--positive-file", "formal.txt", formal),
            ("--negative-file", "informal.txt", informal),
        ):
            (tmp_path / name).write_text(text)
            words += [option, str(tmp_path / name)]
        return words

    return write


def bring(root: Path, *words: str) -> Result:
    return axes("prompts", "import", "manner", *words, "--root", root, "--format", "json")


def stored(root: Path) -> list[tuple]:
    found = read(root, "from v_prompts order by position")
    return [(row["text"], row["label"], row["is_positive"], row["pair_id"]) for row in found]


def test_lines_are_pairs_and_the_files_name_the_labels(root: Path, files: Files) -> None:
    result = bring(root, *files("Good day.\nFarewell.\n\n", "hi\nbye"), "--license", "MIT")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["positive_count"] == 2
    assert stored(root) == [
        ("Good day.", "formal", True, "1"),
        ("hi", "informal", False, "1"),
        ("Farewell.", "formal", True, "2"),
        ("bye", "informal", False, "2"),
    ]
    assert {row["license"] for row in read(root, "from prompts")} == {"MIT"}


def test_unpaired_files_may_be_of_any_length(root: Path, files: Files) -> None:
    words = files("Good day.\nFarewell.", "hi")
    refused = bring(root, *words)
    assert "holds 2 prompts and" in refused.stderr and "--unpaired" in refused.stderr
    assert bring(root, *words, "--unpaired").exit_code == 0
    assert [row[3] for row in stored(root)] == [None, None, None]


def test_an_empty_line_breaks_no_pair_and_a_text_in_both_files_is_refused(root, files):
    words = files("Good day.\n\nFarewell.", "hi\nhm\nbye")
    assert "is an empty prompt" in bring(root, *words).stderr
    assert "1 text with both labels" in bring(root, *files("Good day.\nhi", "hi\nbye")).stderr
    words = files("Good day.\n\nFarewell.", "hi\nhm\nbye")
    assert bring(root, *words, "--skip-unusable").exit_code == 0
    pairs = {row[0]: row[3] for row in stored(root)}
    assert pairs == {"Good day.": "1", "hi": "1", "hm": "2", "Farewell.": "3", "bye": "3"}


def test_options_that_do_not_fit_are_one_line(root: Path) -> None:
    for words, message in (
        ("--positive-file a.txt", "go together"),
        ("x.csv --positive-file a.txt --negative-file b.txt", "not both"),
        ("x.csv --unpaired", "--unpaired needs"),
        ("--positive-file no/a.txt --negative-file no/b.txt", "cannot be read"),
        ("--positive-file a.doc --negative-file b.doc", "or .txt file"),
    ):
        result = bring(root, *words.split())
        assert result.exit_code in (1, 2) and message in result.stderr
    assert not stored(root)


def test_other_kinds_of_file_and_files_of_one_name(root: Path, tmp_path: Path) -> None:
    for folder, text in (("a", "one"), ("b", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "lines.csv").write_text(f"text,category\n{text},greeting\n")
    words = ["--positive-file", str(tmp_path / "a/lines.csv")]
    words += ["--negative-file", str(tmp_path / "b/lines.csv")]
    assert bring(root, *words).exit_code == 0
    assert stored(root) == [("one", "positive", True, "1"), ("two", "negative", False, "1")]
    assert read(root, "select distinct category from prompts") == [{"category": "greeting"}]


def test_the_command_that_restores_the_set_names_both_files(root: Path, files: Files) -> None:
    words = files("Good day.\nFarewell.", "hi")
    bring(root, *words, "--unpaired")
    (run,) = read(root, "select run_id from runs where status = 'finished'")
    (command,) = restore_commands(root, [run["run_id"]]).values()
    assert command.startswith(f"axes prompts import manner {' '.join(words)} --unpaired")
