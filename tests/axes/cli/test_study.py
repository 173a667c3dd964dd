"""`axes study` by options, by a file and by both, on a world that is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from axes.warehouse.connection import connect, rows
from tests import commands
from tests.rows import put
from tests.worlds import make_world

FILE = """
models = ["alpha", "beta", "gamma"]
reference = "gamma"
prompts = "labelled"
align = "benign"
evaluate = ["other"]
[published.alpha]
native = 0.5
cosine_universal = 0.72
"""
OPTIONS = ["--model", "alpha", "--model", "beta", "--model", "gamma", "--reference", "gamma"]
OPTIONS += ["--prompts", "labelled", "--align", "benign", "--evaluate", "other"]


def ok(root: Path, *words: str | Path) -> Result:
    return commands.ok("study", *words, "--root", root)


def printed(root: Path, *words: str | Path) -> Any:
    return commands.printed("study", *words, "--no-ingest", "--root", root)


def refused(root: Path, *words: str | Path) -> str:
    return commands.refused("study", *words, "--root", root)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    return path


def test_a_file_and_the_same_options_are_the_same_study(lake, file):
    by_options, by_file = printed(lake, *OPTIONS), printed(lake, file)
    assert by_file["study_id"] == by_options["study_id"]
    assert by_file["models"]["alpha"].pop("published") == {"native": 0.5, "cosine_universal": 0.72}
    assert by_file == by_options
    assert len(rows(connect(lake), "select distinct study_id from evaluations")) == 1


def test_power_says_what_each_labelled_set_can_show_and_runs_nothing(lake):
    before = len(rows(connect(lake), "from runs"))
    sets = {row["prompt_set"]: row for row in printed(lake, *OPTIONS, "--power")}
    assert list(sets) == ["labelled", "other"]
    assert [row["is_out_of_fold"] for row in sets.values()] == [True, False]
    statement = "select count(*) filter (is_positive) as n from v_prompts where prompt_set = ?"
    for name, row in sets.items():
        assert [{"n": row["positive_count"]}] == rows(connect(lake), statement, [name])
    assert 0.5 < sets["other"]["smallest_auroc"] < 0.7
    assert len(rows(connect(lake), "from runs")) == before


def test_published_figures_stand_beside_ours_and_are_rows(lake, file):
    text = ok(lake, file, "--no-ingest").stdout
    found = rows(connect(lake), "from v_published order by metric")
    assert [row["metric"] for row in found] == ["cosine_universal", "native"]
    for row in found:
        assert row["difference"] == pytest.approx(row["ours"] - row["published"])
        assert f"{row['difference']:.4f}" in text


def test_an_option_goes_before_the_key_of_the_file(lake, file):
    stated = printed(lake, file, "--evaluate", "third")["definition"]
    assert stated["evaluate"] == ["third"] and stated["seed"] == 0
    file.write_text(FILE.replace('align = "benign"', 'align = "benign"\nseed = [0, 0]'))
    assert printed(lake, file)["definition"]["seed"] == 0


def test_a_study_whose_rows_are_stored_imports_nothing_to_fit_or_to_run_a_model(lake, file):
    ok(lake, file)
    modules = commands.imported_by("study", file, "--root", lake)
    assert not modules & {"torch", "transformers", "sklearn", "scipy", "altair", "rich"}


def test_claims_and_diff_are_asked_by_id_or_by_file(lake, file):
    study_id = rows(connect(lake), "select study_id from evaluations limit 1")[0]["study_id"]
    by_id = ok(lake, "claims", study_id[:6], "--format", "csv").stdout
    assert ok(lake, "--claims", "--format", "csv").stdout == by_id
    assert ok(lake, "claims", file, "--format", "csv").stdout == by_id
    assert "from v_claim_estimates\nwhere claim = 'shared_axis'" in ok(lake, "claims").stdout
    assert "same definition" in ok(lake, "diff", file, study_id).stdout


def test_what_cannot_be_a_study_gets_one_line(lake, file, tmp_path):
    assert "no study file nowhere: give the path of one" in refused(lake, "nowhere")
    assert "give --prompts, or a study file" in refused(lake, "--group", "demo")
    bad = tmp_path / "bad.toml"
    bad.write_text(FILE.replace("align =", "algin ="))
    assert "unknown key algin (did you mean align?)" in refused(lake, bad)
    bad.write_text(FILE.replace("[published", "layer_fraction = 2\n[published"))
    assert "layer_fraction is 2.0, expected 0 to 1" in refused(lake, bad)
    assert "no study zzz in the warehouse" in refused(lake, "claims", "zzz")


def test_several_templates_are_a_study_each_and_a_table_of_angles(tmp_path):
    root = tmp_path / "lake"
    make_world(root, widths={"alpha": 12, "beta": 12}, benign_count=40, labelled={"labelled": 30})
    # In the other template, alpha shows every prompt the other way round.
    shown = [
        {**row, "template": "chat", "vector": [sign * value for value in row["vector"]]}
        for row in rows(connect(root), "from activations")
        for sign in (-1 if row["model"] == "alpha" else 1,)
    ]
    put(root, "activations", *shown)
    words = ["--model", "alpha", "--model", "beta", "--reference", "beta", "--prompts", "labelled"]
    words += ["--align", "benign", "--alignment-shuffles", "0", "--template", "raw,chat"]
    *studies, last = printed(root, *words)
    assert [each["definition"]["template"] for each in studies] == ["raw", "chat"]
    angles = {row["model"]: row for row in last["direction_angles"]}
    assert angles["alpha"]["angle"] == pytest.approx(180, abs=0.1)
    assert angles["beta"]["angle"] == pytest.approx(0, abs=0.1)
    assert angles["beta"]["template"] == "chat" and angles["beta"]["other_template"] == "raw"
    layers = rows(
        connect(root), "select count(*) as n from v_direction_angles where model = 'beta'"
    )
    assert layers == [{"n": 3}]
    text = ok(root, *words, "--no-ingest").stdout
    assert "other_template" in text and "180.0" in text
