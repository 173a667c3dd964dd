"""`axes intervene` from end to end on a tiny model, and what it says to bad input."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.warehouse.connection import connect, rows
from tests.commands import printed, refused

STRENGTHS = "--strengths=-0.5,0.5"


@pytest.fixture(scope="module")
def lake(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a fitted direction, in `lake` beside its folder."""
    return shutil.copytree(tiny, tmp_path_factory.mktemp("intervene") / "tiny") / "lake"


def arguments(lake: Path, *more: str) -> list[str | Path]:
    shared: list[str | Path] = ["intervene", lake.parent / "small", "--root", lake]
    shared += ["--axis", "native/small/2/marked", "--prompts", "marked", "--benign", "benign"]
    return [*shared, STRENGTHS, "--limit", "8", "--benign-limit", "6", *more]


def test_an_experiment_is_run_judged_and_printed_and_the_second_time_only_printed(lake):
    words = arguments(lake, "--max-new-tokens", "3")
    effects = printed(*words)
    assert {row["metric"] for row in effects} >= {
        "refusal_openers",
        "projection_shift",
        "kl",
        "log_perplexity",
        "repetition",
        "refusal_substring",
    }
    assert {row["prompts_class"] for row in effects} == {"positive", "negative", "benign"}
    assert {row["strength"] for row in effects} == {None, 0.5}
    shift = [row for row in effects if row["metric"] == "projection_shift"]
    assert all(row["estimate"] > 0 for row in shift)
    statement = (
        "select count(*) as outcomes, (select count(*) from interventions) as judged "
        "from intervention_outcomes"
    )
    counts = rows(connect(lake), statement)
    assert printed(*words) == effects
    assert rows(connect(lake), statement) == counts
    checked = printed("warehouse", "check", "--root", lake)
    assert [row for row in checked if row.get("row_count")] == []


def test_an_ablation_has_one_share_and_no_slope(lake):
    more = ["--mode", "ablate", "--strengths", "1", "--random", "1"]
    effects = printed(*arguments(lake, *more))
    assert {row["layers"] for row in effects} == {"0,1,2,3"}
    assert {row["strength"] for row in effects} == {1.0}
    assert {row["verdict"] for row in effects} == {"not judged: 1 random directions, 20 are needed"}


def test_bad_input_is_one_line(lake):
    assert "is not a comma list of numbers" in refused(*arguments(lake, "--strengths", "a,b"))
    assert "no axis typo" in refused(*arguments(lake, "--axis", "typo"))
    assert "layer 9 of small does not exist" in refused(*arguments(lake, "--layers", "9"))
    assert "no openers praise" in refused(*arguments(lake, "--openers", "praise"))


def test_an_option_of_the_chat_template_and_a_prefill_make_other_outcomes(lake):
    few = ["--random", "1", "--shuffled", "0", "--orthogonal", "0"]
    added = ["--template-option", "enable_thinking=false", "--assistant-prefill", "Sure,"]
    name = "chat+enable_thinking=false+prefill:43ca3bc5"
    printed(*arguments(lake, *few, *added))
    outcomes = "from intervention_outcomes where metric = 'refusal_openers' and template ="
    (count,) = rows(connect(lake), f"select count(*) as n {outcomes} '{name}'")
    assert count["n"] > 0
