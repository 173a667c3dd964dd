"""Python's functions do what the commands do, and give back what can be read."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import axes
from axes.analysis.study.definition import StudyDefinition
from axes.api import _as_lists
from axes.ingest.requests import TraceRequest
from axes.warehouse import settings
from tests.analysis.conftest import DEFINITION
from tests.commands import printed

FUNCTIONS = [name for name in axes.__all__ if inspect.isfunction(getattr(axes, name))]


@pytest.fixture
def stored(studied: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study's warehouse, for tests that only read it."""
    monkeypatch.setenv("AXES_ROOT", str(studied))
    return studied


@pytest.fixture
def lake(studied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = shutil.copytree(studied, tmp_path / "lake")
    monkeypatch.setenv("AXES_ROOT", str(root))
    return root


def shared_axis() -> str:
    (axis,) = printed("list", "axes", "universal")
    return axis["name"]


def test_names_are_stable_and_all_of_them_are_there():
    assert axes.__all__ == [
        *("AxesError", "Axis", "Direction", "Result", "Study", "angles", "calibrate"),
        *("claims", "compare", "concepts", "connect", "diagnose", "diff"),
        *("diff_models", "drift", "evaluate", "explain", "export", "fit"),
        *("import_axes", "import_prompts", "ingest_activations", "ingest_traces"),
        *("intervene", "label", "list_names", "load_axis", "load_monitor"),
        *("log", "monitor", "plan", "push", "read_study", "report", "route", "run"),
        *("scan", "score", "sensitivity", "study", "transfer"),
    ]
    assert dir(axes) == axes.__all__
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        axes.nonsense  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_typed_documented_and_takes_a_root(name):
    function = getattr(axes, name)
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert "root" in signature.parameters
    assert signature.return_annotation is not signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not parameter.empty, f"{name} {parameter.name}"
    text = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    assert f"axes.{name}(" in text


def test_ingest_traces_and_study_from_nothing(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("AXES_ROOT", str(tmp_path / "lake"))
    made = axes.import_prompts("marked", tiny / "marked.csv", positive="unsafe")
    assert (made.prompt_count, made.positive_count) == (40, 20)
    assert "<table>" in made._repr_html_()
    axes.import_prompts("benign", tiny / "benign.csv")
    models = [str(tiny / name) for name in ("small", "large")]
    first = axes.ingest_activations(models[0], "marked", layers=[1, 0], limit=4, shard="1/2")
    assert (first.new_count, first.rows) == (2, 4)
    assert "<caption>ingest of small</caption>" in first._repr_html_()
    assert axes.ingest_traces(models[0], "marked", limit=2, max_new_tokens=2).new_count == 2
    with pytest.raises(TypeError, match="max_tokens"):
        axes.ingest_traces(models[0], "marked", max_tokens=2)
    study = axes.study(
        models=models, reference=models[1], prompts="marked", align="benign", alignment_shuffles=2
    )
    assert set(study.figures["models"]) == {"small", "large"} and len(study) == 2


def test_a_study_is_that_of_the_command(lake):
    study = axes.read_study()
    assert study.id == study.figures["study_id"]
    again = axes.study(no_ingest=True, **options())
    assert again.id == study.id and again.figures == study.figures
    defaults = {field.name: field.default for field in dataclasses.fields(DEFINITION)}
    stated = {name: value for name, value in options().items() if value != defaults[name]}
    stated["model"] = stated.pop("models")
    for command in ("study", "study run"):
        shown = axes.run(command, no_ingest=True, **stated)
        assert shown["model"].to_list() == [row["model"] for row in study.rows]
    (row, *_) = study.rows
    assert printed("sql", study.sql)[0]["native"] == pytest.approx(row["native"])
    assert "model" in repr(study) and "warning: " in repr(study)
    html = study._repr_html_()
    lower, upper = row["native_lower"], row["native_upper"]
    assert f"<td>{row['native']:.3f} ({lower:.3f} to {upper:.3f})</td>" in html


def options() -> dict:
    """The study of `studied` as a user would give it; its label is the reference's name."""
    given = dataclasses.asdict(DEFINITION)
    assert given.pop("label") == given["reference"]
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"promts": "labelled"}, r"unknown key promts \(did you mean prompts\?\)"),
        ({"file": "dmeo"}, r"no study file dmeo \(did you mean demo\?\)"),
        ({"file": "original"}, "defines 2 studies"),
        ({"prompts": "labelled"}, "give --align"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(stored, arguments, message):
    with pytest.raises(axes.AxesError, match=message):
        axes.study(**arguments)


def test_fit_gives_what_the_command_prints(lake):
    fitted = axes.fit("alpha", "labelled", evaluate="other")
    assert axes.fit("alpha", "labelled", evaluate=["other"]).rows == fitted.rows
    told = printed("fit", "alpha", "--prompts", "labelled", "--evaluate", "other")
    assert fitted.rows == told
    assert fitted.pl().height == len(told) == 6
    assert printed("sql", fitted.sql) == told


def test_score_is_idempotent_and_its_query_finds_the_projections(lake):
    name = shared_axis()
    axes.score(name, prompts="third")
    (row,) = axes.score(name, model="alpha", prompts="third").rows
    assert row["model"] == "alpha"
    again = axes.score(name, prompts=["third"])
    assert {row["model"] for row in again.rows} == {"alpha", "beta", "gamma"}
    assert {row["new_count"] for row in again.rows} == {0}
    found = printed("sql", f"select count(*) as n from ({again.sql.partition(' order')[0]})")
    assert found[0]["n"] >= 3 * 30


def test_an_axis_projects_its_own_space_and_refuses_another(stored):
    name = shared_axis()
    axis = axes.load_axis(name)
    assert axis.vector.dtype == np.float32
    assert np.linalg.norm(axis.vector) == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError):
        axis.vector[0] = 1
    x = np.random.default_rng(0).standard_normal((2, 3, len(axis.vector)))
    assert axis.project(x).shape == (2, 3)
    assert axis.project(axis.vector) == pytest.approx(1, abs=1e-6)
    assert axis.project(x) == pytest.approx(x @ axis.vector.astype(np.float64))
    for wrong in (x[..., 1:], np.float64(1)):
        with pytest.raises(axes.AxesError, match="do not fit universal/gamma"):
            axis.project(wrong)
    assert name in repr(axis)
    assert f"<caption>axis {name}</caption>" in axis._repr_html_()
    assert "<caption>evaluated on</caption>" in axis._repr_html_()
    with pytest.raises(axes.AxesError, match=r"did you mean universal/gamma"):
        axes.load_axis(name[:-2])


def test_an_axis_projects_tensors_of_any_kind(stored):
    axis = axes.load_axis(shared_axis())
    x = torch.randn(2, len(axis.vector), requires_grad=True)
    for tensor in (x, x.bfloat16()):
        expected = tensor.detach().double().numpy() @ axis.vector.astype(np.float64)
        assert axis.project(tensor) == pytest.approx(expected)


def test_prompts_may_be_texts_or_a_frame(tmp_path, monkeypatch):
    monkeypatch.setenv("AXES_ROOT", str(tmp_path / "lake"))
    assert axes.import_prompts("texts", ["one text", "another"]).prompt_count == 2
    frame = pl.DataFrame({"text": ["a good one", "a bad one"], "label": ["good", "bad"]})
    imported = axes.import_prompts("frame", frame, positive="bad")
    assert (imported.prompt_count, imported.positive_count) == (2, 1)
    assert axes.run("list", "prompt-sets")["prompt_set"].to_list() == ["frame", "texts"]
    with pytest.raises(axes.AxesError, match="no activations of nobody"):
        axes.run("evaluate", "nobody", prompts=["frame"])
    lines = axes.connect().sql("select command_line from runs order by 1").fetchall()
    assert "axes prompts import frame FILE-WITH-rows --positive bad" in str(lines)


def test_a_text_is_one_item_of_a_list():
    lists = {"stop_strings": "User:", "max_new_tokens": 3}
    assert _as_lists(TraceRequest, lists) == {"stop_strings": ("User:",), "max_new_tokens": 3}
    assert _as_lists(StudyDefinition, {"models": "ab"}) == {"models": ("ab",)}


@pytest.mark.parametrize(
    "call",
    [
        axes.read_study,
        lambda root: axes.load_axis("x", root=root),
        lambda root: axes.fit("m", "p", root=root),
        lambda root: axes.run("evaluate", "m", prompts="p", root=root),
        lambda root: axes.study(no_ingest=True, root=root, **options()),
    ],
)
def test_what_reads_makes_no_warehouse(tmp_path, call):
    with pytest.raises(axes.AxesError, match="is not a warehouse"):
        call(root=tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_export_takes_its_format_from_the_suffix(stored, tmp_path):
    name = shared_axis()
    written = axes.export(name, tmp_path / "axis.json")
    assert json.loads(written.read_text())["name"] == name
    assert axes.export(name, tmp_path / "x", to="safetensors").stat().st_size > 100
    with pytest.raises(axes.AxesError, match=r"no format jsn \(did you mean json\?\)"):
        axes.export(name, tmp_path / "axis.jsn")


def test_report_writes_a_file(stored, tmp_path):
    assert axes.report(tmp_path / "report.md").read_text().startswith("#")


def test_a_file_of_settings_holds_in_python_too(studied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "axes.toml").write_text(f'root = "{studied}"')
    with pytest.raises(axes.AxesError, match="sets root.*axes config allow"):
        axes.scan("models")
    settings.allow()
    assert axes.scan("models").collect().height == 3
    assert axes.connect().sql("select count(*) from models").fetchall() == [(3,)]
    with pytest.raises(axes.AxesError, match=r"no table model \(did you mean models\?\)"):
        axes.scan("model")
