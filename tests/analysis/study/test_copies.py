"""Benign prompts that copy labelled ones are found in a study (V1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from axes.analysis.stats.splits import has_near_duplicate
from axes.analysis.study.run import run_study
from axes.warehouse.connection import connect, rows
from axes.warehouse.storage.layout import parquet_files, partition_folder
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import rows_table, write_rows
from tests.worlds import define_study, make_world


@pytest.mark.parametrize(("copied", "verdict"), [(30, "cannot tell"), (0, "supported")])
def test_v1_copies_of_labelled_prompts_in_the_alignment_set_are_found(
    tmp_path: Path, copied: int, verdict: str
) -> None:
    world = make_world(
        tmp_path / "lake",
        widths={"alpha": 16, "beta": 16, "gamma": 16},
        labelled={"labelled": 200, "other": 200},
        strength=2.0,
    )
    texts = rows(connect(world.root), "from stg_prompts order by prompt_set, prompt_id")
    judged = [row["text"] for row in texts if row["prompt_set"] == "other"]
    benign = [row for row in texts if row["prompt_set"] == "benign"]
    for path in parquet_files(partition_folder(world.root, TABLES["prompts"], "benign")):
        path.unlink()
    for row, text in zip(benign[:copied], judged, strict=False):
        row["text"] = f"{text}."
    table = rows_table("prompts", benign)
    write_rows(world.root, "prompts", table, name="copies", partition="benign")
    study_id = run_study(world.root, define_study(("alpha", "beta", "gamma"), evaluate=("other",)))
    connection = connect(world.root)
    sql = "select verdict, cause from v_claims where claim = 'shared_axis' and prompt_set = 'other'"
    (found,) = rows(connection, sql)
    assert found["verdict"] == verdict, found
    stored = rows(
        connection,
        "select distinct prompt_set, estimate from stg_evaluations "
        "where metric = 'alignment_copies' and study_id = ?",
        [study_id],
    )
    if copied:
        assert "the alignment set holds copies of the labelled prompts" in found["cause"]
        assert [row["prompt_set"] for row in stored] == ["other"]
        assert stored[0]["estimate"] >= copied / 200
    else:
        assert stored == []


def test_v1_a_near_duplicate_is_one_of_another_text() -> None:
    texts = ["How do I bake bread?", "Why?", "HOW do  I bake bread"]
    assert has_near_duplicate(texts, ["how do i bake bread."]).tolist() == [True, False, True]
    assert not has_near_duplicate(texts, ["something else"]).any()
