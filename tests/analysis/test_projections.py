"""Projecting what is stored gives the rows that a study gives, and no more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.analysis.projections import ModelScore, score
from axes.analysis.study.definition import StudyDefinition
from axes.analysis.study.run import run_study
from axes.warehouse.errors import AxisError, NoAlignmentError, PromptError
from axes.warehouse.storage.layout import EMPTY_FILE
from tests.rows import ask
from tests.worlds import define_study, make_world

DEFINITION = define_study(("alpha", "beta"), label="pair")


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scoring") / "lake"
    widths = {"alpha": 16, "beta": 20, "stray": 18}
    make_world(root, widths=widths, benign_count=80, labelled={"labelled": 60, "other": 40})
    run_study(root, DEFINITION)
    return root


@pytest.fixture
def root(studied: Path, tmp_path: Path) -> Path:
    return shutil.copytree(studied, tmp_path / "lake")


def projections(root: Path, kind: str, model: str) -> dict[str, float]:
    found = ask(
        root,
        "select prompt_id, projection from projections inner join axes using (axis_id) "
        "where kind = ? and model = ?",
        [kind, model],
    )
    return {row["prompt_id"]: row["projection"] for row in found}


def forget(root: Path) -> None:
    """Take the projections away, as if no study had written any."""
    for path in (root / "projections").rglob("*.parquet"):
        if path.name != EMPTY_FILE:
            path.unlink()


def axis(root: Path, kind: str) -> str:
    return ask(root, "select axis_id from axes where kind = ?", [kind])[0]["axis_id"]


@pytest.mark.parametrize("memory_limit", [None, 512_000_000])
def test_the_rows_are_those_of_the_study(root: Path, memory_limit: int | None) -> None:
    expected = {model: projections(root, "universal", model) for model in ("alpha", "beta")}
    universal = axis(root, "universal")
    forget(root)
    done = score(root, universal, memory_limit=memory_limit)
    assert [(item.model, item.new_count) for item in done] == [("alpha", 280), ("beta", 280)]
    for model, values in expected.items():
        found = projections(root, "universal", model)
        assert values and {name: found[name] for name in values} == pytest.approx(values, abs=1e-6)


def test_what_is_there_is_not_written_again(root: Path) -> None:
    universal = axis(root, "universal")
    first = score(root, universal)
    # The study has projected its own sets; the set that it did not judge is new.
    assert {item.new_count for item in first} == {80}
    assert {item.new_count for item in score(root, universal)} == {0}


def test_a_set_and_a_model_narrow_it(root: Path) -> None:
    forget(root)
    (done,) = score(root, axis(root, "universal"), models=["alpha"], prompt_sets=["other"])
    assert isinstance(done, ModelScore)
    assert (done.model, done.stored_count, done.new_count) == ("alpha", 80, 80)
    assert set(projections(root, "universal", "alpha")) == {f"other-{row:05d}" for row in range(80)}
    with pytest.raises(PromptError, match="no prompt set absent"):
        score(root, axis(root, "universal"), prompt_sets=["absent"])


def test_a_native_axis_is_of_one_model(root: Path) -> None:
    found = ask(root, "from axes where kind = 'native' and fitted_model = 'alpha'")
    (done,) = score(root, found[0]["axis_id"])
    assert (done.model, done.alignment_id) == ("alpha", None)


def test_a_model_that_nothing_leads_from_is_left_out_or_refused(root: Path) -> None:
    universal = axis(root, "universal")
    assert "stray" not in {item.model for item in score(root, universal)}
    with pytest.raises(NoAlignmentError, match="no alignment of stray leads to layer 2 of beta"):
        score(root, universal, models=["stray"])


def test_of_several_alignments_the_axis_has_its_own(root: Path) -> None:
    run_study(root, StudyDefinition(**{**DEFINITION.__dict__, "ridge_lambda": 7.0}))
    universal = axis(root, "universal")
    forget(root)
    assert len(score(root, universal)) == 2
    asked = "select axis_id from axes where kind = 'leave_one_out' and held_out_model = 'alpha'"
    held_out = ask(root, asked)[0]["axis_id"]
    forget(root)
    with pytest.raises(AxisError, match="2 alignments of alpha lead to .*--alignment ID"):
        score(root, held_out)
    asked = "select alignment_id from alignments where ridge_lambda = 7 and model = 'alpha'"
    chosen = ask(root, asked)[0]["alignment_id"]
    done = score(root, held_out, models=["alpha"], alignment=chosen)
    assert [item.alignment_id for item in done] == [chosen]
