"""A study of several concepts on planted worlds: accuracy, angles, transfer, and its rows once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from axes.analysis.comparison.concepts import run_concepts
from axes.warehouse.connection import connect, rows
from axes.warehouse.errors import DefinitionError
from axes.warehouse.maintenance.check import check
from tests.worlds import LATENT, define_study, kway_accuracy, make_concepts

WIDTHS = {"alpha": 16, "beta": 24}
STRENGTH = 3.0
EYE = np.eye(LATENT)
AXES = {"first": EYE[0], "second": EYE[1], "third": EYE[2]}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("concepts") / "lake"
    make_concepts(root, widths=WIDTHS, axes=AXES, strength=STRENGTH)
    return root, define(AXES)


def define(names):
    """Studies by ids of their own: the step needs their definitions and no row of theirs."""
    usual = define_study(WIDTHS, alignment_shuffles=0)
    return {f"study-{name}": replace(usual, prompts=name) for name in names}


@pytest.fixture(scope="module")
def right(world):
    """The k-way evaluation of the three concepts, which are at right angles."""
    return run_concepts(*world)


def test_the_accuracy_is_the_planted_one_by_own_axes_and_by_those_of_the_others(world, right):
    found = rows(
        connect(world[0]), "from v_concept_accuracy where study_id = ? order by all", [right]
    )
    # The difference of a pair has twice the variance of a prompt.
    planted = kway_accuracy(3, STRENGTH / np.sqrt(2))
    axes = [row for row in found if row["model"] is not None]
    assert {(row["model"], row["scorer"]) for row in axes} == {
        (model, scorer) for model in WIDTHS for scorer in ("native", "leave_one_out")
    }
    for row in axes:
        assert row["accuracy"] == pytest.approx(planted, abs=0.05)
        assert row["accuracy_lower"] < planted < row["accuracy_upper"]
        assert row["chance"] == pytest.approx(1 / 3) and row["null_95"] < 0.42
        assert row["p_value"] < 0.01 and row["item_count"] == 300
        # The texts say nothing.
        assert row["best_baseline_accuracy"] < 0.45
    assert {row["scorer"] for row in found if row["model"] is None} >= {"bag_of_words", "tf_idf"}


def test_shares_of_a_concept_add_up_and_make_the_accuracy(world, right):
    found = rows(
        connect(world[0]),
        """
        select scorer, model, any_value(accuracy) - avg(share) filter (where is_right) as off,
            max(abs(total - 1)) as error
        from v_confusion
        inner join v_concept_accuracy using (study_id, scorer, model)
        inner join (
            select scorer, model, concept, sum(share) as total from v_confusion
            where study_id = $1 group by all
        ) using (scorer, model, concept)
        where study_id = $1
        group by all
        """,
        [right],
    )
    assert len(found) == 4
    assert all(abs(row["off"]) < 1e-9 and row["error"] < 1e-9 for row in found)


def test_angles_between_axes_are_the_planted_ones(world, right):
    found = rows(connect(world[0]), "from v_concept_overlap where study_id = ?", [right])
    assert {row["model"] for row in found} == {None, *WIDTHS} and len(found) == 3 * 3
    for row in found:
        assert row["angle"] == pytest.approx(90, abs=10)
        assert row["p_value_adjusted"] > 0.05
        assert row["null_lower"] < row["cosine"] < row["null_upper"]


def test_every_planted_concept_transfers_and_names_its_study(world, right):
    root, studies = world
    found = rows(connect(root), "from v_concepts where study_id = ?", [right])
    assert len(found) == 3 * 2
    for row in found:
        assert row["transfers"] and row["recall_leave_one_out"] > 0.8
        assert studies[row["concept_study_id"]].prompts == row["concept"]


def test_a_model_that_shows_another_axis_is_not_said_to_take_a_concept_over(tmp_path):
    root = tmp_path / "lake"
    make_concepts(root, widths=WIDTHS, axes={"one": EYE[0], "two": EYE[1]}, pairs=40, strength=0.0)
    run_concepts(root, define(("one", "two")))
    found = rows(connect(root), "from v_concept_accuracy where model is not null")
    assert all(row["accuracy_lower"] < 0.5 < row["accuracy_upper"] for row in found)
    assert not any(row["transfers"] for row in rows(connect(root), "from v_concepts"))


def test_rows_are_stored_once_are_sound_and_are_no_study(world, right):
    root = world[0]
    assert run_concepts(*world) == right
    # Its other rows are of no job.
    failed = {row["check"] for row in check(root).to_pylist() if row["row_count"]}
    assert failed == {"runs_known"}
    assert not rows(connect(root), "from v_studies")
    for view in ("v_layer_tests", "v_source_transfer", "v_held_out"):
        assert not rows(connect(root), f"from {view} where study_id = ?", [right])


def test_concepts_differ_in_their_prompts_only(world):
    root, studies = world
    key, definition = next(iter(studies.items()))
    with pytest.raises(DefinitionError, match="two or more studies"):
        run_concepts(root, {key: definition})
    with pytest.raises(DefinitionError, match="differ in their prompts only"):
        run_concepts(root, {key: definition, "x": replace(definition, prompts="second", seed=1)})
    chosen = replace(definition, layer_policy="cross_validated")
    with pytest.raises(DefinitionError, match="layer_policy is cross_validated"):
        run_concepts(root, {key: chosen, "x": replace(chosen, prompts="second")})
