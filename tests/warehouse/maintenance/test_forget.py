"""Forgotten rows are gone with everything made from them; the rest is sound and unchanged."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import copytree

import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import DefinitionError, ModelError, PromptError, RootError
from axes.warehouse.maintenance.forget import forget
from axes.warehouse.maintenance.subset import subset
from axes.warehouse.storage.ledger import locked
from axes.warehouse.tables.schemas import TABLES
from tests.rows import put
from tests.warehouse.maintenance.test_subset import whole  # noqa: F401
from tests.warehouse.sound import broken


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:  # noqa: F811
    return copytree(whole, tmp_path / "lake")


def stored(root: Path) -> dict[str, list[tuple]]:
    """All rows but runs, without order."""
    connection = connect(root)
    return {
        name: sorted(map(repr, connection.execute(f"from {name}").fetchall()))
        for name in TABLES
        if name != "runs"
    }


@pytest.mark.parametrize(
    ("forgotten", "kept"),
    [
        ({"models": ["owner/n"]}, {"models": ["m"]}),
        ({"prompt_sets": ["other"]}, {"prompt_sets": ["seen"]}),
        (
            {"models": ["m"], "prompt_sets": ["seen"]},
            {"models": ["owner/n"], "prompt_sets": ["other"]},
        ),
    ],
)
def test_what_is_left_is_a_subset_of_the_others(
    root: Path, tmp_path: Path, forgotten: dict, kept: dict
) -> None:
    subset(root, tmp_path / "kept", **kept)
    before = stored(root)
    counted = forget(root, **forgotten, is_dry_run=True)
    assert stored(root) == before
    assert forget(root, **forgotten) == counted
    after = stored(root)
    assert after == stored(tmp_path / "kept")
    removed = {name: len(before[name]) - len(after[name]) for name in after}
    assert {item.table: item.rows for item in counted} == removed
    assert broken(root) == []


def test_the_prompts_of_another_set_keep_their_activations(root: Path) -> None:
    forget(root, prompt_sets=["other"])
    connection = connect(root)
    assert rows(connection, "from prompts where prompt_set = 'other'") == []
    (counted,) = rows(connection, "select count(distinct prompt_id) as n from activations")
    assert counted["n"] == 8


def test_a_study_goes_alone(root: Path) -> None:
    before = stored(root)
    forget(root, studies=["both"])
    after = stored(root)
    assert {name for name in after if after[name] != before[name]} == {"evaluations"}
    assert [row["study_id"] for row in rows(connect(root), "from evaluations")] == ["alone"] * 2
    assert broken(root) == []


def test_a_pooling_goes_with_what_was_fitted_on_it(root: Path) -> None:
    forget(root, poolings=["last5_mean"])
    connection = connect(root)
    assert rows(connection, "from activations") == []
    assert rows(connection, "select * from prompts") != []
    assert broken(root) == []


def test_a_killed_one_is_ended_by_starting_it_again(root: Path, tmp_path: Path) -> None:
    subset(root, tmp_path / "kept", models=["m"])
    for writes in (1, 3, 6, 10):
        if (pid := os.fork()) == 0:
            _kill_at_remove(writes)
            forget(root, models=["owner/n"])
            os._exit(0)
        assert os.waitpid(pid, 0)[1] != 0
    forget(root, models=["owner/n"])
    assert stored(root) == stored(tmp_path / "kept")
    assert broken(root) == []


def test_one_killed_after_the_name_is_gone_is_ended_too(root: Path, tmp_path: Path) -> None:
    subset(root, tmp_path / "kept", models=["owner/n"], prompt_sets=["other"])
    names = {"models": ["m"], "prompt_sets": ["seen"]}
    if (pid := os.fork()) == 0:
        _kill_at_remove(1, "labels")
        forget(root, **names)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] != 0
    assert rows(connect(root), "select model from models") == [{"model": "owner/n"}]
    assert stored(root) != stored(tmp_path / "kept")
    forget(root, **names)
    assert stored(root) == stored(tmp_path / "kept") and broken(root) == []
    with pytest.raises(ModelError, match="no model n"):
        forget(root, models=["n"])


def _kill_at_remove(count: int, table: str = "") -> None:
    """End this process without clean-up at the `count`th deleted file, of a table if given."""
    unlink, seen = Path.unlink, []

    def counted(path: Path, *args: object, **options: object) -> None:
        if path.suffix == ".parquet" and (not table or table in path.parts):
            seen.append(path)
            if len(seen) == count:
                os._exit(9)
        unlink(path, *args, **options)

    Path.unlink = counted  # type: ignore[method-assign]


def test_names_that_are_not_stored_and_jobs_under_way_are_refused(root: Path) -> None:
    before = stored(root)
    for names, error, message in (
        ({"models": ["n"]}, ModelError, "no model n"),
        ({"prompt_sets": ["sen"]}, PromptError, r"no prompt set sen \(did you mean seen\?\)"),
        ({"poolings": ["mean"]}, DefinitionError, "no pooling mean"),
        ({"studies": ["x"]}, DefinitionError, "no study id x"),
    ):
        with pytest.raises(error, match=message):
            forget(root, **names)
    with locked(root, "m.commit"), pytest.raises(RootError, match="a job is running"):
        forget(root, models=["m"])
    assert stored(root) == before


@pytest.mark.parametrize(
    "parameters", ["{", "[]", "{}", '{"models": 3}', '{"models": ["x", null]}']
)
def test_what_a_stranger_wrote_into_an_unfinished_run_does_not_matter(root, parameters):
    row = {"run_id": "r", "command": "warehouse forget", "status": "running"}
    put(root, "runs", row | {"parameters": parameters})
    before = stored(root)
    with pytest.raises(ModelError, match="no model n"):
        forget(root, models=["n"])
    assert stored(root) == before
    forget(root, models=["owner/n"])
    assert rows(connect(root), "select distinct model from models") == [{"model": "m"}]
