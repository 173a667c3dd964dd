from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from axes.analysis.registry import read_alignment
from axes.analysis.report.report import write_report
from axes.analysis.report.section import latest_study
from axes.analysis.study.run import run_study, study_result
from axes.warehouse.connection import connect, query, rows, vectors
from axes.warehouse.errors import (
    AxesError,
    AxisError,
    CoverageError,
    DefinitionError,
    LabelError,
    ModelError,
)
from axes.warehouse.handle import Warehouse
from tests.rows import put
from tests.worlds import define_study, make_world, write_prompt_set

WIDTHS = {"alpha": 24, "beta": 32, "gamma": 40}
DEFINITION = define_study(WIDTHS, evaluate=("other",), label="greek")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    root, labelled = tmp_path_factory.mktemp("study") / "lake", {"labelled": 200, "other": 80}
    made = make_world(root, widths=WIDTHS, labelled=labelled)
    return made, run_study(made.root, DEFINITION)


@pytest.fixture(scope="module")
def result(world):
    return study_result(world[0].root, world[1])


def axis_vector(root: Path, **where: str | int) -> np.ndarray:
    conditions = " and ".join(f"{name} = ?" for name in where)
    table = query(connect(root), f"from axes where {conditions}", list(where.values()))
    assert table.num_rows == 1
    return vectors(table.column("vector"))[0]


def test_the_planted_axis_is_recovered_natively_and_universally(world, result):
    made, _ = world
    assert axis_vector(made.root, kind="universal") @ made.planted("gamma") > 0.99
    for model in WIDTHS:
        native = axis_vector(made.root, kind="native", fitted_model=model, layer=2)
        assert native @ made.planted(model) > 0.99
        assert result["models"][model]["cosine_universal"] > 0.99
        assert result["models"][model]["alignment_r2"] > 0.95
        for areas in result["models"][model]["auroc"].values():
            # The axis made without a model works on that model.
            assert areas["leave_one_out"] == pytest.approx(areas["native"], abs=0.02)
            assert areas["native"] > 0.9


def test_p_values_are_corrected_over_one_metric_in_sample_and_out_of_it_apart(world):
    tests = rows(
        connect(world[0].root),
        "select metric, is_in_sample, p_value, p_value_adjusted from evaluations "
        "where p_value is not null order by p_value",
    )
    families = Counter((row["metric"], row["is_in_sample"]) for row in tests)
    differences = [count for (metric, _), count in families.items() if metric == "auroc_difference"]
    assert len(differences) == 2 and min(differences) > 1
    for row in reversed(tests):
        family = [other for other in tests if _family(other) == _family(row)]
        before = family[: family.index(row) + 1]
        steps = [(len(family) - at) * other["p_value"] for at, other in enumerate(before)]
        assert row["p_value_adjusted"] == pytest.approx(min(max(steps), 1.0))


def _family(row):
    return row["metric"], row["is_in_sample"]


def test_a_metric_of_a_model_is_its_own_and_not_that_of_a_null(world, result):
    stored = query(
        connect(world[0].root), "select distinct model, cosine_leave_one_out from v_study"
    ).to_pylist()
    assert {row["model"] for row in stored} == set(WIDTHS)
    for row in stored:
        model = result["models"][row["model"]]
        assert model["cosine_leave_one_out"] == row["cosine_leave_one_out"]
        assert model["shuffled_labels_cosine_leave_one_out"] != row["cosine_leave_one_out"]


def test_the_documented_keys_are_there_and_are_numbers(result):
    json.dumps(result)
    for model in WIDTHS:
        figures = result["models"][model]
        assert figures["layer"] == 2
        names = {"layer", "cosine_universal", "cosine_reference", "alignment_r2", "ridge_lambda"}
        assert names <= set(figures)
        assert set(figures["auroc"]) == {"labelled", "other"}
    assert result["models"]["gamma"]["ridge_lambda"] is None
    assert result["models"]["gamma"]["cosine_reference"] == pytest.approx(1)
    assert result["singular_values"] == sorted(result["singular_values"], reverse=True)
    assert sum(value**2 for value in result["singular_values"]) == pytest.approx(3, abs=1e-5)


def test_every_auroc_can_be_had_again_from_the_projections(world, result):
    """The figures that are printed, the view v_auroc and the macro agree."""
    made, study_id = world
    found = rows(
        connect(made.root),
        """
        select evaluations.model, evaluations.prompt_set, evaluations.scorer,
            evaluations.estimate, v_auroc.auroc, v_auroc.is_in_sample = evaluations.is_in_sample
                as is_flag_equal
        from evaluations
        inner join v_auroc using (axis_id, model, prompt_set)
        where evaluations.study_id = ? and metric = 'auroc'
        """,
        [study_id],
    )
    assert len(found) == 3 * 2 * 3
    for row in found:
        assert row["auroc"] == pytest.approx(row["estimate"], abs=1e-9)
        assert row["is_flag_equal"]


def test_cosines_can_be_had_again_from_the_axes(world, result):
    found = rows(
        connect(world[0].root),
        "select model, cosine from v_axis_cosines "
        "where kind = 'aligned' and other_kind = 'universal'",
    )
    assert len(found) == 3
    for row in found:
        expected = result["models"][row["model"]]["cosine_universal"]
        assert row["cosine"] == pytest.approx(expected, abs=1e-6)


def test_running_it_again_writes_nothing_and_gives_the_same(world, result):
    made, study_id = world
    before = sorted(path for path in made.root.rglob("*.parquet"))
    assert run_study(made.root, DEFINITION) == study_id
    assert study_result(made.root, study_id) == result
    assert sorted(path for path in made.root.rglob("*.parquet")) == before


def test_a_study_cut_short_goes_on_and_ends_with_the_same_rows(world, result, tmp_path):
    """Evaluations are written last; without them everything before is found or made again."""
    root, study_id = shutil.copytree(world[0].root, tmp_path / "lake"), world[1]
    (root / "evaluations" / f"{study_id}.parquet").unlink()
    next((root / "projections" / "model=beta").iterdir()).unlink()
    next((root / "alignments").glob("[0-9a-f]*.parquet")).unlink()
    assert run_study(root, DEFINITION) == study_id
    again = study_result(root, study_id)
    assert again["models"] == result["models"]
    counts = rows(
        connect(root),
        "select count(*) as total, count(distinct (axis_id, model_id, prompt_id)) as keys "
        "from projections",
    )[0]
    complete = rows(connect(world[0].root), "select count(*) as total from projections")[0]
    assert counts["total"] == counts["keys"] == complete["total"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory):
    """Two models of one layer: for what is done once per method."""
    return make_world(
        tmp_path_factory.mktemp("small") / "lake",
        widths={"alpha": 16, "beta": 24},
        layer_count=1,
        labelled={"labelled": 80},
    )


SMALL = define_study(("alpha", "beta"), alignment_shuffles=2, label="greek")


@pytest.mark.parametrize(
    "options",
    [
        {"alignment": "procrustes"},
        {"alignment": "reduced_rank", "lambda_policy": "gcv"},
        {"alignment": "cca", "rank": 12},
        {"alignment": "anchor_projection"},
        {"alignment": "gradient", "hidden_width": 4},
    ],
)
def test_every_alignment_recovers_the_axis_and_is_read_back_as_it_was_fitted(small, options):
    definition = replace(SMALL, **options)
    study_id = run_study(small.root, definition)
    connection = connect(small.root)
    (row,) = rows(
        connection,
        """
        select axes.name, alignments.alignment_id, alignments.* exclude (alignment_id)
        from evaluations
        inner join axes using (axis_id)
        inner join alignments on axes.alignment_id = alignments.alignment_id
        where study_id = ? and metric = 'cosine_universal' and estimate > 0.97
            and evaluations.model = 'alpha'
        """,
        [study_id],
    )
    assert row["method"] == options["alignment"]
    assert row["method"].replace("_", "-") in row["name"]
    assert row["r2_shuffled_upper"] < 0.2 < 0.9 < row["r2_held_out"]
    assert len(row["r2_dimensions"]) == 24 and 1 <= row["effective_rank"] < 16.001
    figures = study_result(small.root, study_id)["models"]["alpha"]
    assert figures["auroc"]["labelled"]["universal"] > 0.9
    assert figures["r2_shuffled"] == pytest.approx(row["r2_shuffled"])
    assert figures["mutual_knn"] > 0.7 > 0.1 > figures["mutual_knn_shuffled"]
    stored = read_alignment(Warehouse(small.root, connection), row["alignment_id"])
    assert stored is not None
    has_hidden_layer = stored.fit.alignment.hidden is not None
    assert has_hidden_layer == ("hidden_width" in options)
    projections = rows(
        connection,
        """
        select projection, activations.vector, axes.vector as axis
        from projections
        inner join axes using (axis_id)
        inner join activations using (model, prompt_id)
        where projections.alignment_id = ? and model = 'alpha' and kind = 'universal'
        limit 20
        """,
        [row["alignment_id"]],
    )
    assert len(projections) == 20
    for found in projections:
        mapped = stored.fit.alignment.apply(np.array(found["vector"])[None])[0]
        assert mapped @ np.array(found["axis"]) == pytest.approx(found["projection"], abs=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"direction": "whitened", "universal": "mean"},
        {"direction": "logistic", "layer_policy": "cross_validated"},
        {"direction": "pair_pca"},
        {"direction": "soft_auc"},
    ],
)
def test_every_direction_and_shared_axis_is_stored_under_its_method(small, options):
    study_id = run_study(small.root, replace(SMALL, **options))
    found = rows(
        connect(small.root),
        """
        select distinct kind, method
        from evaluations
        inner join axes using (axis_id)
        where study_id = ? and kind in ('native', 'aligned', 'universal')
        """,
        [study_id],
    )
    methods = {row["kind"]: row["method"] for row in found}
    shared = options.get("universal", "svd")
    direction = options["direction"]
    assert methods == {"native": direction, "aligned": direction, "universal": shared}
    figures = study_result(small.root, study_id)["models"]["alpha"]["auroc"]["labelled"]
    assert min(figures["universal"], figures["native_cross_validated"]) > 0.9
    assert figures["shuffled_labels_cross_validated"] == pytest.approx(0.5, abs=0.1)


def test_pairs_are_asked_for_where_they_are_needed(tmp_path):
    made = make_world(
        tmp_path / "lake",
        widths={"alpha": 16},
        labelled={"labelled": 20},
        benign_count=20,
        layer_count=1,
    )
    for path in (made.root / "prompts" / "prompt_set=labelled").iterdir():
        table = pl.read_parquet(path, hive_partitioning=False)
        table.with_columns(pl.lit(None, pl.String).alias("pair_id")).write_parquet(path)
    definition = replace(SMALL, models=("alpha",), reference="alpha", direction="pair_pca")
    with pytest.raises(AxisError, match="pair_pca needs matched pairs"):
        run_study(made.root, definition)


def test_the_shared_axis_is_held_against_its_nulls(world, result):
    shared = result["shared"]
    assert set(shared) == {"universal", "random_direction", "shuffled_labels"}
    gap = shared["universal"]["singular_value_gap"]
    assert gap == pytest.approx(result["singular_values"][0] - result["singular_values"][1])
    assert gap > shared["random_direction"]["singular_value_gap_upper"]
    for scorer in ("random_direction", "shuffled_labels"):
        assert len(shared[scorer]["singular_value"]) == 3
    assert 0 < shared["universal"]["singular_value_gap_p_value"] <= 1
    assert 0 < shared["universal"]["bootstrap_angle"] < 10
    weights = [result["models"][model]["universal_weight"] for model in WIDTHS]
    np.testing.assert_allclose(weights, 1 / 3, atol=0.01)


def test_probes_tell_what_is_left_after_the_concept_is_erased(result):
    for model in WIDTHS:
        areas = result["models"][model]["auroc"]["labelled"]
        assert areas["probe_before"] > 0.9 > 0.6 > areas["probe_erased"]
        assert areas["probe_before_fresh"] > areas["probe_erased_fresh"]
        assert {"probe_direction_removed", "probe_direction_removed_fresh"} < set(areas)


def test_every_axis_can_be_traced_to_its_rows_and_run(world):
    made, _ = world
    found = rows(
        connect(made.root),
        """
        select axes.query, axes.positive_count, axes.negative_count, runs.command
        from axes
        inner join runs using (run_id)
        where kind = 'native'
        """,
    )
    assert len(found) == 9
    for row in found:
        again = rows(connect(made.root), row["query"])
        positive_count = sum(item["is_positive"] for item in again)
        assert (positive_count, len(again) - positive_count) == (
            row["positive_count"],
            row["negative_count"],
        )
        assert row["command"] == "study"


def test_a_report_names_the_numbers_of_the_study(world, result, tmp_path):
    made, study_id = world
    assert latest_study(connect(made.root)) == study_id
    text = write_report(made.root, tmp_path / "out" / "report.md").read_text()
    for model in WIDTHS:
        assert f"{result['models'][model]['auroc']['other']['universal']:.4f}" in text
    assert study_id in text and "```sql" in text
    with pytest.raises(AxesError, match="no study zzz"):
        latest_study(connect(made.root), "zzz")


def test_bad_definitions_are_refused(world):
    root = world[0].root
    with pytest.raises(ModelError, match="reference delta is not among"):
        run_study(root, replace(DEFINITION, reference="delta"))
    with pytest.raises(LabelError, match="benign has no labels"):
        run_study(root, replace(DEFINITION, evaluate=("benign",)))
    with pytest.raises(ModelError, match="no activations of delta"):
        run_study(root, replace(DEFINITION, models=("alpha", "delta"), reference="alpha"))


def test_rows_that_are_judged_and_fitted_on_are_named(small_world, definition):
    """Under another name the same prompts stay in sample, and aligned on they are counted."""
    again = small_world / "prompts" / "prompt_set=again"
    shutil.copytree(small_world / "prompts" / "prompt_set=labelled", again)
    labels = small_world / "labels" / "labeler=dataset"
    renamed = pl.read_parquet(labels / "labelled.parquet", hive_partitioning=False)
    renamed.with_columns(pl.lit("again").alias("prompt_set")).write_parquet(
        labels / "again.parquet"
    )
    definition = replace(define_study(("alpha",)), align="other", evaluate=("again", "other"))
    result = study_result(small_world, run_study(small_world, definition))
    assert result["alignment_overlap"] == {"alpha": {"other": 60}}
    assert result["models"]["alpha"]["alignment_rows"] == 60
    areas = result["models"]["alpha"]["auroc"]
    assert areas["again"]["is_in_sample"] and not areas["other"]["is_in_sample"]


def test_values_published_for_every_model_are_those_of_each(small_world):
    definition = define_study(("alpha", "beta"), alignment_shuffles=0)
    published = {"*": {"native": 0.5}, "beta": {"native": 0.6}, "delta": {"native": 0.7}}
    study_id = run_study(small_world, definition, published=published)
    models = study_result(small_world, study_id)["models"]
    assert models["alpha"]["published"] == {"native": 0.5}
    assert models["beta"]["published"] == {"native": 0.6}
    # As an earlier version stored it.
    row = {"model": "*", "scorer": "universal", "metric": "auroc_published", "estimate": 0.4}
    put(small_world, "evaluations", {**row, "study_id": study_id, "prompt_set": "labelled"})
    models = study_result(small_world, study_id)["models"]
    assert models["alpha"]["published"] == {"native": 0.5, "universal": 0.4}


def test_a_handful_of_alignment_rows_is_refused(world, monkeypatch):
    with pytest.raises(DefinitionError, match="align_rows is 5, expected 10 or more"):
        replace(DEFINITION, align_rows=5)
    monkeypatch.setattr("axes.analysis.study.fit.MIN_ALIGNMENT_ROWS", 1000)
    with pytest.raises(CoverageError, match="benign gives 400 alignment prompts, 1000 are needed"):
        run_study(world[0].root, DEFINITION)


def test_missing_rows_are_refused_unless_allowed(small_world):
    write_prompt_set(small_world, "benign", 170, None)
    definition = define_study(("alpha", "beta"), alignment_shuffles=0)
    with pytest.raises(CoverageError, match="120 of the 170 prompts of benign"):
        run_study(small_world, definition)
    study_id = run_study(small_world, replace(definition, allow_missing=True))
    expected = {model: {"benign": 50} for model in ("alpha", "beta")}
    assert study_result(small_world, study_id)["missing"] == expected


def test_with_missing_rows_every_figure_is_of_the_prompts_that_all_models_have(small_world):
    lacking = small_world / "activations" / "model=beta"
    for path in sorted(lacking.rglob("*.parquet")):
        table = pq.read_table(path)
        kept = pc.invert(pc.starts_with(table["prompt_id"], "labelled-0000"))
        pq.write_table(table.filter(kept), path)
    definition = define_study(("alpha", "beta"), alignment_shuffles=0, allow_missing=True)
    study_id = run_study(small_world, definition)
    counted = rows(
        connect(small_world),
        "select distinct positive_count + negative_count as count from evaluations "
        "where study_id = ? and prompt_set = 'labelled' and positive_count is not null",
        [study_id],
    )
    assert counted == [{"count": 70}]
    missing = study_result(small_world, study_id)["missing"]
    assert {model: counts["labelled"] for model, counts in missing.items()} == {
        "alpha": 10,
        "beta": 10,
    }
