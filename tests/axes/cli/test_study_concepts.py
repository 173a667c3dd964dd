"""`axes study --concepts`: a study of each, the k-way evaluation, and the same in Python."""

from __future__ import annotations

import json

import numpy as np
import pytest

import axes
from axes.warehouse.connection import connect, rows
from tests.commands import ok, printed, refused
from tests.worlds import LATENT, make_concepts

EYE = np.eye(LATENT)
CONCEPTS = ("warm", "tall")
OPTIONS = ["--model", "alpha", "--model", "beta", "--reference", "beta", "--align", "benign"]
OPTIONS += ["--alignment-shuffles", 0, "--no-ingest"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("concepts") / "lake"
    planted = dict(zip(CONCEPTS, EYE, strict=False))
    make_concepts(root, widths={"alpha": 12, "beta": 14}, axes=planted, pairs=25, strength=4.0)
    return root


@pytest.fixture(scope="module")
def said(root):
    """What the command prints for a terminal; every later call only reads."""
    return ok("study", *OPTIONS, "--concepts", "warm,tall", "--root", root)


def test_a_terminal_gets_each_study_and_the_tables_of_all(said, root):
    for title in (
        "Which concept differs within a pair",
        "Confusions of concepts",
        "Angles between",
    ):
        assert title in said.output
    assert "concepts " in said.stderr
    studies = rows(connect(root), "select prompts from v_studies order by all")
    assert [row["prompts"] for row in studies] == sorted(CONCEPTS)


def test_json_has_the_studies_then_the_tables_and_python_the_same_rows(said, root):
    *studies, concepts = printed("study", *OPTIONS, "--concepts", "warm,tall,warm", "--root", root)
    assert [each["definition"]["prompts"] for each in studies] == list(CONCEPTS)
    assert {row["concept"] for row in concepts["concepts"]} == set(CONCEPTS)
    assert all(row["transfers"] for row in concepts["concepts"])
    assert all(row["native"] > 0.9 for row in concepts["concepts"])
    assert len(concepts["concept_accuracy"]) == 4
    result = axes.concepts(
        CONCEPTS,
        model=["alpha", "beta"],
        reference="beta",
        align="benign",
        alignment_shuffles=0,
        no_ingest=True,
        root=root,
    )
    assert result.id == concepts["study_id"]
    assert json.loads(json.dumps(result.rows)) == concepts["concepts"]
    assert result.sql and axes.run("sql", result.sql, root=root).to_dicts() == result.rows


def test_a_study_file_has_the_concepts_as_a_key_and_an_option_replaces_it(said, root, tmp_path):
    file = tmp_path / "several.toml"
    file.write_text(
        'models = ["alpha", "beta"]\nreference = "beta"\nalign = "benign"\n'
        'alignment_shuffles = 0\nconcepts = ["warm", "tall"]\n'
    )
    assert axes.concepts(file=file, no_ingest=True, root=root).id in said.stderr
    one = printed("study", file, "--prompts", "warm", "--no-ingest", "--root", root)
    assert one["definition"]["prompts"] == "warm"
    file.write_text(file.read_text() + 'prompts = "warm"\n')
    assert "give prompts or concepts" in refused("study", file, "--root", root)


def test_what_cannot_be_compared_is_one_line(said, root):
    words = ["study", *OPTIONS, "--root", root]
    assert "two or more" in refused(*words, "--concepts", "warm")
    assert "not both" in refused(*words, "--concepts", "warm,tall", "--prompts", "warm")
    with pytest.raises(axes.AxesError, match=r"axes\.concepts"):
        axes.study(concepts=CONCEPTS, model=["alpha"], reference="alpha", align="benign", root=root)
