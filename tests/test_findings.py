"""The page of findings: its words follow its numbers, and it holds no text of a completion."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from axes.analysis.routing.model_ranking import run_comparison
from axes.analysis.routing.response_scores import ScoringRequest
from axes.analysis.routing.responses import CompletionQuery
from axes.analysis.routing.routing import run_routing
from axes.warehouse.connection import connect, query
from axes.warehouse.handle import Warehouse
from docs.findings import (
    FOLDER,
    SECTIONS,
    comparison_verdict,
    drift_verdict,
    intervention_verdict,
    routing_verdict,
    write_findings,
)
from tests.answer_worlds import AXIS, make_answers
from tests.rows import put

SECRET = "what a model said"
MODELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers that need calibration, routed and compared, with a drift and an experiment."""
    root = tmp_path_factory.mktemp("findings") / "lake"
    make_answers(root, offsets={"a": 0.0, "b": 40.0, "c": -40.0}, prompt_count=200)
    request = ScoringRequest("asked", CompletionQuery(AXIS, MODELS, "judge"))
    run_routing(Warehouse.open(root), request)
    run_comparison(Warehouse.open(root), request)
    put_drift(root)
    put(root, "generations", {"model": "a", "generation_id": "said", "text": SECRET})
    effect = {"model": "a", "model_id": "id-a", "axis_id": AXIS, "role": "axis", "metric": "kl"}
    figures = {"lower": 0.5, "upper": 0.9, "random_lower": -0.1, "random_upper": 0.1}
    judged = {"estimate": 0.7, "p_value": 0.01, "verdict": "larger than chance"}
    run = {"experiment_id": "e", "run_id": "world"}
    put(root, "interventions", {**run, **effect, **figures, **judged})
    return root


def put_drift(root: Path) -> None:
    same = {"drift_id": "d", "model": "a", "model_id": "id-a", "axis_id": AXIS, "run_id": "world"}
    figure = {**same, "control": "none", "positive_count": 20, "negative_count": 20}
    for metric in ("positive_slope", "negative_slope", "slope_difference"):
        row = {**figure, "metric": metric, "estimate": 0.2, "lower": 0.1, "upper": 0.3}
        put(root, "drift_figures", {**row, "p_value": 0.01})
    for metric in ("mean_difference", "running_auroc"):
        curve = {**figure, "metric": metric, "estimate": 0.8, "lower": 0.7, "upper": 0.9}
        band = {"band_lower": 0.6, "band_upper": 1.0}
        put(root, "drift_figures", *({**curve, **band, "step": step} for step in range(4)))


def test_the_page_holds_every_section_and_no_completion(world, tmp_path):
    page = tmp_path / "findings.md"
    assert write_findings(world, page) == []
    text = page.read_text()
    for section in SECTIONS:
        assert section.title in text
        assert all(command in text for command in section.commands)
        assert (tmp_path / "figures" / f"{section.name}.svg").stat().st_size < 60_000
    assert SECRET not in text
    assert "does worse: calibration is needed. Calibrated routing beats" in text
    assert "1 of 1 effects are beyond" in text
    figures = [path.read_bytes() for path in sorted((tmp_path / "figures").iterdir())]
    write_findings(world, page)
    assert page.read_text() == text
    assert [path.read_bytes() for path in sorted((tmp_path / "figures").iterdir())] == figures


def test_sections_without_rows_say_which_command_brings_them(root, tmp_path):
    page = tmp_path / "findings.md"
    assert write_findings(root, page) == [section.name for section in SECTIONS]
    text = page.read_text()
    assert text.count("The warehouse has no rows for this claim. To add them:") == len(SECTIONS)
    assert "axes route --prompts" in text
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_query_reads_no_text_of_a_completion(root, section):
    assert "text" not in query(connect(root), section.sql).column_names
    assert "generations" not in section.sql


def test_the_verdict_on_drift_needs_the_controls():
    row = {
        **{"model": "m", "slope_difference": 0.2, "lower": 0.1, "upper": 0.3},
        **{"final_auroc": 0.7, "final_auroc_lower": 0.6, "final_auroc_upper": 0.8},
        **{"positive_count": 9, "negative_count": 9, "controls_failed": ["matched_prompt"]},
    }
    held = drift_verdict([{**row, "is_drift": True, "is_controlled": True}])
    assert held[0].startswith("**Holds on every model**")
    for controls, words in (
        (["matched_prompt"], "explained by matched prompt"),
        ([], "not shown under every control, and explained by none"),
    ):
        unheld = {"is_drift": True, "is_controlled": False, "controls_failed": controls}
        failed = drift_verdict([{**row, **unheld}])
        assert failed[0].startswith("**Does not hold on any model**")
        assert words in failed[1]
    down = {"is_drift": False, "is_controlled": False, "lower": -0.3, "upper": -0.1}
    assert "down against the negative class" in drift_verdict([{**row, **down}])[1]


def test_the_verdict_on_routing_tells_need_from_use():
    """A router that always asks the best single model beats raw routing and gains nothing."""
    row = {
        **{"over_raw": 0.3, "over_raw_lower": 0.2, "over_raw_upper": 0.4, "prompt_count": 9},
        **{"gain": 0.0, "gain_lower": 0.0, "gain_upper": 0.0},
    }
    names = ("answer_projection", "prompt_projection", "oracle")
    lines = routing_verdict([{**row, "policy": policy} for policy in names])
    assert "calibration is needed. Calibrated routing is not shown to beat" in lines[0]
    assert "sends all prompts to the best single model" in lines[-1]


def test_the_verdict_on_models_names_warnings_and_disagreement():
    row = {
        **{"model": "m", "first": 0.9, "prompt_count": 9, "warnings": ["flat"]},
        **{"probability": 0.3, "probability_lower": 0.2, "probability_upper": 0.4},
        **{"outcome": 0.6, "outcome_lower": 0.5, "outcome_upper": 0.7},
    }
    lines = comparison_verdict([row, {**row, "model": "n", "outcome": 0.2, "warnings": []}])
    assert "m comes first in 90% of resamples" in lines[0]
    assert "gives another order" in lines[0]
    assert "- m, warning: flat." in lines
    assert "the probability is outside the label's interval" in lines[1]
    flat = {"probability_lower": 0.3, "probability_upper": 0.3}
    assert comparison_verdict([{**row, **flat}])[0].startswith("**Not by projections")


def test_effects_within_the_random_directions_are_not_counted():
    row = {
        **{"model": "m", "metric": "kl", "prompts_class": "benign", "random_count": 20},
        **{"axis_kind": "pulled_back", "pull_back": "transpose"},
        **{"estimate": 0.1, "lower": 0.0, "upper": 0.2, "random_lower": -1.0, "random_upper": 1.0},
        **{"p_value": 0.5, "verdict": "not beyond random directions"},
    }
    assert intervention_verdict([row])[0].startswith("**0 of 1 effects are beyond")
    assert intervention_verdict([{**row, "p_value": None}])[0].startswith("**0 of 0")
    assert "pulled back by transpose: kl on benign" in intervention_verdict([row])[1]


def test_the_committed_page_shows_the_queries_and_figures_that_are_there():
    text = (FOLDER / "findings.md").read_text()
    for section in SECTIONS:
        code = re.sub(r"--.*\n", "", section.sql).strip()
        has_rows = f"figures/{section.name}.svg" in text
        assert (code in text) == has_rows, f"{section.name}: run `make findings`"
        assert (FOLDER / "figures" / f"{section.name}.svg").exists() == has_rows
