"""`axes monitor` on a tiny model: tokens as they come, the calibration, and stopping."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import axes.ingest.forward.templates
from axes.cli.generation.monitor import _colour
from axes.ingest.forward.templates import Template
from axes.ingest.models.identity import identify
from axes.ingest.models.registry import resolve
from axes.warehouse.connection import connect_tables, rows
from tests.commands import axes as run_axes
from tests.rows import put

AXIS, WIDTH, LAYER = "a1b2c3d4e5f60718", 32, 2


@pytest.fixture
def registered(root: Path, llama_folder: Path) -> Path:
    """A warehouse that holds one native axis of the tiny model."""
    vector = np.random.default_rng(0).standard_normal(WIDTH)
    model_id = identify(resolve(str(llama_folder)), llama_folder, "float32").model_id
    common = {"space_model": "tiny-llama", "space_model_id": model_id, "layer": LAYER}
    common |= {"axis_id": AXIS, "name": "native/tiny", "kind": "native"}
    put(root, "axes", {**common, "vector": (vector / np.linalg.norm(vector)).tolist()})
    return root


def calibrate(root: Path, slope: float, intercept: float) -> None:
    (axis,) = rows(connect_tables(root, "axes"), "from axes")
    fitted = {"calibration_id": "c", "axis_id": AXIS, "model_id": axis["space_model_id"]}
    fitted |= {"method": "platt", "target": "balanced_accuracy"}
    parameters = json.dumps({"slope": slope, "intercept": intercept})
    put(root, "calibrations", {**fitted, "parameters": parameters})


def monitored(root: Path, folder: Path, *options: str) -> Result:
    start = ["monitor", str(folder), "--axis", AXIS, "hello there", "--max-new-tokens", "6"]
    return run_axes(*start, "--root", root, *options)


def test_tokens_are_printed_with_their_projection_and_it_says_that_nothing_is_calibrated(
    registered, llama_folder
):
    result = monitored(registered, llama_folder, "--format", "json")
    assert result.exit_code == 0, result.output
    assert "no calibrated threshold or probability: no platt calibration" in result.stderr
    printed = json.loads(result.stdout)
    assert [row["step"] for row in printed] == list(range(6))
    assert all(row["probability"] is None for row in printed)
    assert [row["projection"] is None for row in printed] == [False] * 5 + [True]


def test_jsonl_to_stdout_and_to_a_file_are_the_same_rows(registered, llama_folder, tmp_path):
    streamed = monitored(registered, llama_folder, "--format", "jsonl")
    path = tmp_path / "tokens.jsonl"
    written = monitored(registered, llama_folder, "--format", "jsonl", "-o", str(path))
    assert written.stdout == "" and path.read_text() == streamed.stdout
    first = json.loads(streamed.stdout.splitlines()[0])
    assert list(first) == ["step", "token", "token_id", "projection", "smoothed", "probability"]


def test_a_calibration_gives_probabilities_and_may_stop_it(registered, llama_folder):
    calibrate(registered, slope=2.0, intercept=0.5)
    result = monitored(registered, llama_folder, "--format", "json")
    for row in json.loads(result.stdout)[:-1]:
        expected = 1 / (1 + np.exp(-(2.0 * row["smoothed"] + 0.5)))
        assert row["probability"] == pytest.approx(expected)
    stopped = monitored(registered, llama_folder, "--stop-above", "0", "--format", "json")
    assert "stopped after step 0" in stopped.stderr
    assert len(json.loads(stopped.stdout)) == 2
    lasted = monitored(registered, llama_folder, "--stop-above", "1", "--format", "json")
    assert "not reached" in lasted.stderr and len(json.loads(lasted.stdout)) == 6


def test_no_color_and_no_terminal_leave_plain_text(registered, llama_folder, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    calibrate(registered, slope=2.0, intercept=0.5)
    assert "[38;2;" not in monitored(registered, llama_folder).stderr
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert "[38;2;" in monitored(registered, llama_folder).stderr


@pytest.mark.parametrize("color_system", [None, "standard", "windows", "256", "truecolor"])
def test_a_token_is_readable_on_light_and_dark_with_few_colours(color_system):
    low, middle, high = (_colour(share, color_system) for share in (0.0, 0.5, 1.0))
    if color_system in ("256", "truecolor"):
        assert (low, middle, high) == ("rgb(0,0,255)", "rgb(128,128,128)", "rgb(255,0,0)")
    else:
        assert (low, middle, high) == ("blue", None, "red")


def test_the_prompt_is_rendered_with_the_additions_of_its_template(
    registered, llama_folder, tmp_path, monkeypatch
):
    seen: list[Template] = []

    def render(tokenizer: Any, texts: Any, template: Template, model: str) -> Any:
        seen.append(template)
        return real(tokenizer, texts, template, model)

    real = axes.ingest.forward.templates.render
    monkeypatch.setattr(axes.ingest.forward.templates, "render", render)
    system = tmp_path / "system.txt"
    system.write_text("Be kind.\n")
    options = ["--template", "chat", "--system", str(system), "--assistant-prefill", "Sure,"]
    options += ["--template-option", "enable_thinking=false"]
    result = monitored(registered, llama_folder, *options)
    assert result.exit_code == 0, result.output
    assert seen == [Template("chat", "Be kind.", ("enable_thinking=false",), "Sure,")]
    assert "warning: template option enable_thinking=false changes nothing" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stop-above", "0.9"], "axes calibrate"),
        (["--calibration", "isotonic"], "no isotonic calibration"),
        (["--axis", "nowhere"], "no axis nowhere"),
    ],
)
def test_what_is_missing_is_said_in_one_line(registered, llama_folder, options, message):
    result = monitored(registered, llama_folder, *options)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message in result.stderr.splitlines()[-1]
