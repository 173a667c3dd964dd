"""The page of results: its words follow its numbers, and its queries are those of the files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from axes.warehouse.connection import connect, rows
from docs.result_page import FOLDER
from docs.results import (
    SECTIONS,
    agreement_verdict,
    angle_verdict,
    claims_verdict,
    concepts_verdict,
    rank_verdict,
    sensitivity_verdict,
    separation_verdict,
    variants_verdict,
    write_results,
)


def test_a_study_fills_every_table(demo: Path, tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    missing = write_results(demo, page)
    varied = ["direction", "alignment", "ridge_lambda", "pooling"]
    assert missing == [*varied, "angle", "rank", "concepts", "sensitivity"]
    text = page.read_text()
    for section in SECTIONS:
        assert section.title in text
        assert all(command in text for command in section.commands)
    assert (tmp_path / "figures" / "separation.svg").stat().st_size < 60_000
    (baseline,) = (
        row for row in rows(connect(demo), SECTIONS[0].sql) if row["model"] == "without a model"
    )
    assert (
        f"best baseline, {baseline['axis'].replace('_', ' ')}, has {baseline['auroc']:.3f}" in text
    )


def test_the_words_alone_have_to_be_exceeded() -> None:
    row = {"prompt_set": "s", "axis": "universal", "tpr_lower": None, "auroc": 0.9}
    words = {**row, "model": "without a model", "axis": "tf_idf", "least_excess": None}
    words |= {"auroc_lower": 0.8, "auroc_upper": 0.95}
    found = [
        {**row, "model": "a", "least_excess": 0.01, "tpr_lower": 0.02},
        {**row, "model": "b", "least_excess": -0.01, "tpr_lower": 0.005},
        {**row, "model": "b", "axis": "native", "least_excess": 0.5},
        words,
    ]
    claim, line = separation_verdict(found)
    assert claim.startswith("**1 of 2 universal axes are shown")
    assert "tf idf, has 0.900 (0.800 to 0.950)" in line and "1 of 2 universal axes are" in line


def test_an_axis_of_others_has_to_exceed_its_null() -> None:
    row = {"prompt_set": "s", "leave_one_out_null": 0.6, "leave_one_out_lower": 0.61}
    found = [{**row, "p_value": 0.2}, {**row, "leave_one_out_lower": 0.59, "p_value": 0.01}]
    assert "null on 1 of 2 models" in agreement_verdict(found)[1]
    assert "direction on 1 (p below" in agreement_verdict(found)[1]


def test_variants_are_ranked_by_set_and_not_tested() -> None:
    found = [
        {"prompt_set": name, "ridge_lambda": value, "universal": area, "native": 0.7}
        for name, value, area in (
            ("s", 1.0, 0.6),
            ("s", None, 0.8),
            ("t", 1.0, 0.9),
            ("t", 2.0, 0.8),
        )
    ]
    lines = variants_verdict("ridge_lambda", found)
    assert "No difference between these choices is tested" in lines[0]
    told = "`s`: the mean universal AUROC of the models is highest with chosen (0.800) and lowest"
    assert told in lines[1] and "native" not in lines[1] and len(lines) == 3


def test_the_smallest_and_the_largest_angle_are_told() -> None:
    row = {"model": "a", "pooling": "last", "other_pooling": "mean"}
    lines = angle_verdict([{**row, "angle": angle} for angle in (30.0, 70.4, 12.1)])
    assert lines[0] == "**The angles lie between 12 and 70 degrees.**"
    assert lines[2] == "- a: `last` and `mean` are 70 degrees apart."


def test_a_dimension_adds_where_its_corrected_p_value_shows_it() -> None:
    row = {"prompt_set": "s", "model": "a", "auroc_lower": 0.6, "auroc_upper": 0.8}
    row |= {"gain_lower": 0.01, "gain_upper": 0.03}
    first = {**row, "rank": 1, "auroc": 0.7, "gain": -0.02, "gain_p_value": 0.01}
    second = {**row, "rank": 2, "auroc": 0.75, "gain": 0.02, "gain_p_value": 0.04}
    first |= {"last_gain": None, "last_gain_p_value": None}
    found = [first, {**second, "last_gain": 0.01, "last_gain_p_value": 0.2}]
    claim, line = rank_verdict(found)
    assert claim.startswith("**1 of 2 subspaces") and "and 0 of 1 further dimensions" in claim
    assert "a with 2 dimensions, 0.750 (0.600 to 0.800); over" in line
    assert line.endswith("gains 0.020 (0.010 to 0.030).")


def test_axes_name_a_concept_better_than_words_where_intervals_are_apart() -> None:
    row = {"alignment": "ridge", "concepts": 6, "baseline": 0.5, "baseline_upper": 0.55}
    row |= {"native": 0.7, "leave_one_out": 0.4, "null_95": 0.3, "best_baseline_auroc": 0.7}
    row |= {"native_auroc": 0.9, "leave_one_out_auroc": 0.8}
    found = [
        {**row, "native_lower": 0.6, "leave_one_out_lower": 0.35},
        {**row, "native_lower": 0.54, "leave_one_out_lower": 0.25, "native": 0.6},
    ]
    claim, line = concepts_verdict(found)
    assert claim.startswith("**On 0 of 2 models and alignments, axes of the other models")
    assert "own axes on 1 of 2 models, axes of the other models on 0; these" in line
    assert "at random on 1." in line and "6-way accuracy is 0.650 and 0.400, of word" in line


def test_the_widest_range_is_told_and_the_cosine_beside_it() -> None:
    row = {"prompt_set": "s", "model": "a", "smallest": 0.5, "largest": 0.9}
    other = {**row, "model": "b", "smallest": 0.6, "cosine_at_smallest": 0.99}
    lines = sensitivity_verdict([{**row, "cosine_at_smallest": 0.7}, other])
    assert "of a on `s` between 0.500 and 0.900" in lines[0]
    assert "of b on `s` is 0.600, its cosine with the axis is 0.99" in lines[1]


def test_verdicts_are_counted_by_set() -> None:
    found = [{"prompt_set": "s", "verdict": name} for name in ("supported", "cannot tell") * 2]
    assert claims_verdict(found)[1] == "- `s`: cannot tell 2, supported 2."


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_the_committed_page_shows_the_queries_that_are_there(section) -> None:
    text = (FOLDER / "results.md").read_text()
    code = re.sub(r"--.*\n", "", section.sql).strip()
    assert code in text, f"{section.name}: run `make results`"
    figure = FOLDER / "figures" / f"{section.name}.svg"
    assert figure.exists() == (section.figure is not None)
