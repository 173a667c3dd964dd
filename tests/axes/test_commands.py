"""Python functions of commands: their parameters are the commands', and so are their rows."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

import click
import numpy as np
import pytest

import axes
from axes.cli.main import cli
from axes.command_line import find_command, parameters
from axes.warehouse.connection import connect
from tests.answer_worlds import make_answers
from tests.commands import printed, refused
from tests.drifting import write_traces
from tests.saes import random_rows, save_sae
from tests.worlds import prompt_ids

# Function -> its command, where the names differ.
NAMES = {
    "list_names": "list",
    "claims": "study claims",
    "diff": "study diff",
    "diff_models": "diff",
    "sensitivity": "study sensitivity",
    "study": "study run",
    "import_axes": "import",
    "concepts": "study run",
    "import_prompts": "prompts import",
    "ingest_activations": "ingest activations",
    "ingest_traces": "ingest traces",
}
ALIKE = {"calibrate", "compare", "diagnose", "drift", "evaluate", "fit", "intervene", "monitor"}
ALIKE |= {"angles", "explain", "log", "plan", "push", "report", "route", "score", "transfer"}
COMMANDS = NAMES | {name: name for name in ALIKE}
# How rows are printed or written to a file, and what only a command does.
OF_COMMANDS = {"format", "output", "dry_run", "estimate", "teraflops", "cross_completions"}


def of_function(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(axes, name)).parameters)


def is_default(default: object, param: click.Parameter) -> bool:
    """Whether a function has the default of a command, which has several for none."""
    value = param.get_default(click.Context(click.Command("x")), call=False)
    if default is None or default == () or default is False:
        return not isinstance(value, str | int | float) or value is False
    several = [default] if isinstance(default, str) else default
    return default == value or (param.multiple and list(several) == list(value))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_function_has_the_names_and_defaults_of_its_command(name):
    params = parameters(find_command(cli, COMMANDS[name]))
    found = of_function(name)
    takes_more = found.pop("options", None) is not None
    assert not found.keys() - params.keys() - {"output"}
    missing = params.keys() - found.keys() - OF_COMMANDS
    if name in ("study", "concepts"):
        missing -= {"report"}
    assert takes_more or not missing
    for key, parameter in found.items():
        if parameter.default is inspect.Parameter.empty:
            # `ingest traces` needs --prompts or --completions; a report needs a file.
            assert params[key].required or key in ("output",), key
        elif key not in ("root", "positive") and name != "intervene":
            assert is_default(parameter.default, params[key]), key


def test_every_command_that_analyses_has_a_function():
    analysing = {"Study", "Generation"}
    from axes.cli.main import _SECTIONS

    names = {name for section in analysing for name in _SECTIONS[section]} - {"import"}
    assert names <= set(axes.__all__)


def test_an_unknown_option_and_a_wrong_value_are_told(studied):
    with pytest.raises(TypeError, match=r"axes route has no option tolerence \(did you mean tol"):
        axes.route("labelled", "judge", tolerence=1, root=studied)
    with pytest.raises(axes.AxesError, match="'both' is not one of 'source', 'category', 'split'"):
        axes.evaluate("alpha", "labelled", by="both", root=studied)
    with pytest.raises(axes.AxesError, match="no labels by refusal .did you mean refusals"):
        axes.label("refusal", root=studied)
    with pytest.raises(TypeError, match="takes labeler and file"):
        axes.label("import", "anna", root=studied)
    with pytest.raises(axes.AxesError, match="no axis nothing"):
        axes.calibrate("nothing", "labelled", root=studied)


def test_run_takes_commands_with_a_root_and_without(studied):
    assert axes.run("list axes", "universal", root=studied).height == 1
    assert axes.run("list", "axes", "universal", root=studied).height == 1
    assert axes.run("models", "show", "smollm2-135m")["name"].to_list() == ["smollm2-135m"]
    with pytest.raises(axes.AxesError, match="No such command 'evalaute'"):
        axes.run("evalaute", "alpha", root=studied)


def universal(root: Path) -> str:
    ((axis_id,),) = (
        connect(root).execute("from axes select axis_id where kind = 'universal'").fetchall()
    )
    return axis_id


def same(result: axes.Result, *words: object) -> None:
    """The rows are those of the command, and of the result's own SQL."""
    assert result.pl().to_dicts() and len(result) > 0
    told = printed(*words, "--root", result.root)
    assert [*map(str, told)] == [*map(str, json_rows(result))]
    if result.sql is not None:
        assert printed("sql", result.sql, "--root", result.root) == told


def points_of(result: axes.Result) -> list[dict]:
    """The rows of a chart of points, whose numbers are those of the table."""
    points = result.plot().to_dict()["datasets"]["rows"]
    numbers = {value for row in result.rows for value in row.values() if isinstance(value, float)}
    assert {point["value"] for point in points} <= numbers
    assert {point["lower"] for point in points} <= numbers | {None}
    return points


def json_rows(result: axes.Result) -> list[dict]:
    import json

    from axes.warehouse.render import render

    return json.loads(render(result.table, "json"))


def test_functions_of_a_study_return_what_the_commands_print(lake):
    axis = universal(lake)
    same(axes.list_names("axes", "universal", root=lake), "list", "axes", "universal")
    options = {"min_overlap": 1.0, "root": lake}
    evaluated = axes.evaluate("alpha", "labelled", show="layers", **options)
    words = ("evaluate", "alpha", "--prompts", "labelled", "--min-overlap", "1")
    same(evaluated, *words, "--show", "layers")
    assert "AUROC" in evaluated.notes[0] and len(evaluated.id) == 16
    assert (
        evaluated.title == "axes evaluate alpha --prompts labelled --show layers --min-overlap 1.0"
    )
    assert "alpha's direction" in repr(evaluated) and "alpha" in evaluated._repr_html_()
    calibrated = axes.calibrate(axis, "other", calibration=("platt", "z_score"), root=lake)
    words = ("calibrate", axis, "--prompts", "other", "--calibration", "platt")
    same(calibrated, *words, "--calibration", "z_score")
    moved = axes.transfer(axis, "other", model=["alpha", "beta"], seed=3, **options)
    words = ("transfer", axis, "--prompts", "other", "--min-overlap", "1", "--seed", "3")
    same(moved, *words, "--model", "alpha", "--model", "beta")
    same(axes.diagnose(model="alpha", root=lake), "diagnose", "--model", "alpha")
    same(axes.claims(root=lake), "study", "claims")
    study = axes.read_study(root=lake)
    same(axes.diff(study.id, study.id, root=lake), "study", "diff", study.id, study.id)
    for result in (
        evaluated,
        moved,
        axes.score(axis, root=lake),
        axes.fit("alpha", "labelled", root=lake),
    ):
        rows = result.plot().to_dict()["datasets"]["rows"]
        assert rows and "prompt_set" in rows[0]
    difference = axes.diff(study.id, study.id, root=lake)
    for result in (calibrated, axes.claims(root=lake), axes.diagnose(root=lake), difference):
        assert points_of(result)
    with pytest.raises(axes.AxesError, match="a result of axes calibrate has no chart roc"):
        calibrated.plot("roc")
    with pytest.raises(axes.AxesError, match="a result of axes list has no chart"):
        axes.list_names("axes", root=lake).plot()
    with pytest.raises(axes.AxesError, match="of axes diagnose has no numbers for a chart"):
        axes.diagnose(root=lake, checks=True).plot()


def test_a_study_has_the_charts_of_its_report(studied):
    study = axes.read_study(root=studied)
    for name in (None, "cosines", "singular_values", "roc", "densities"):
        assert study.plot(name).to_dict()["datasets"]["rows"]
    with pytest.raises(axes.AxesError, match=r"no chart cosine \(did you mean cosines\?\)"):
        study.plot("cosine")
    with pytest.raises(axes.AxesError, match="no rows for the chart drift"):
        study.plot("drift")


def test_a_job_of_a_function_stores_the_command_line(lake):
    axes.evaluate("alpha", "labelled", min_overlap=1.0, root=lake)
    lines = (
        connect(lake).execute("select command_line from runs where command = 'evaluate'").fetchall()
    )
    assert any("axes evaluate alpha --prompts labelled" in line for (line,) in lines)


def test_features_of_an_autoencoder(lake, tmp_path):
    folder = f"sae:{save_sae(tmp_path / 'made', random_rows(64, 16))}"
    imported = axes.import_axes(folder, features=[12, 40, 41], root=lake)
    words = ("import", folder, "--features", "12,40-41", "--root", lake)
    again = printed(*words)
    assert [row["axis_id"] for row in again] == imported.pl()["axis_id"].to_list()
    assert imported.rows[0]["is_new"] and not again[0]["is_new"]
    assert imported.notes[0] == "format sae"
    with pytest.raises(axes.AxesError, match="is not a sparse autoencoder: it has no cfg.json"):
        axes.import_axes(f"sae:{tmp_path}", features=[1], root=lake)
    for wrong in ("12,x", "50-40", "0-99999999999"):
        assert wrong.split(",")[-1] in refused("import", folder, "--features", wrong)


def test_route_and_compare(tmp_path):
    world = make_answers(tmp_path / "lake", offsets={"a": 0.0, "b": 1.0})
    words = ("--prompts", "asked", "--labeler", "judge", "--seed", "3")
    compared = axes.compare("asked", "judge", seed=3, root=world.root)
    same(compared, "compare", *words)
    assert {point["label"] for point in points_of(compared)} == {"a", "b"}
    routed = axes.route("asked", "judge", seed=3, model=["a", "b"], root=world.root)
    same(routed, "route", *words, "--model", "a", "--model", "b")
    assert all(point["lower"] <= point["value"] for point in points_of(routed))
    with pytest.raises(axes.AxesError, match="--min-quality needs --quality"):
        axes.route("asked", "judge", min_quality=1.0, root=world.root)


def test_drift(lake):
    random = np.random.default_rng(0)
    write_traces(lake, "alpha", random.standard_normal((40, 8, 16)), prompt_ids("labelled", 40))
    axis = universal(lake)
    drifted = axes.drift(axis, model="alpha", root=lake)
    same(drifted, "drift", "--axis", axis, "--model", "alpha")
    assert len(drifted.ids) == 1 and "alpha" in drifted.notes[-1]
    assert drifted.plot().to_dict()["datasets"]["rows"]


def test_monitor_intervene_and_labels_on_a_tiny_model(tiny, tmp_path):
    root = shutil.copytree(tiny, tmp_path / "tiny") / "lake"
    small, axis = str(tiny / "small"), "native/small/2/marked"
    words = ("monitor", small, "--axis", axis, "hello there", "--max-new-tokens", "6")
    monitored = axes.monitor(small, "hello there", axis, max_new_tokens=6, root=root)
    same(monitored, *words)
    assert len(points_of(monitored)) == monitored.pl()["projection"].count()
    options = {"strengths": [-0.5, 0.5], "limit": 8, "benign_limit": 6, "random": 2, "root": root}
    steered = axes.intervene(small, axis, "marked", "benign", max_new_tokens=2, **options)
    assert {row["axis_name"] for row in steered.rows} == {axis}
    assert steered.sql is not None and steered.id is not None and points_of(steered)
    axes.ingest_traces(small, "marked", limit=4, max_new_tokens=2, root=root)
    labelled = axes.label("inherit", model="small", root=root)
    (row,) = labelled.rows
    assert row["labelled_count"] > 0
    again = axes.label("inherit", model="small", root=root)
    assert again.rows[0]["labelled_count"] == 0


def test_rows_under_a_name_are_imported_and_run(tiny, tmp_path):
    import polars as pl

    frame = pl.DataFrame({"text": ["a good one", "a bad one"], "label": ["safe", "unsafe"]})
    root = tmp_path / "lake"
    made = axes.ingest_activations(str(tiny / "small"), {"mine": frame}, root=root)
    assert made.new_count == 2
    assert axes.list_names("prompt-sets", root=root).pl()["prompt_set"].to_list() == ["mine"]
    assert axes.ingest_traces(str(tiny / "small"), {"t": ["say"]}, max_new_tokens=1, root=root)
    with pytest.raises(axes.AxesError, match="rows under a name"):
        axes.ingest_activations(str(tiny / "small"), frame, root=root)


@pytest.mark.parametrize("name", sorted(ALIKE | {"claims", "diff", "sensitivity", "label"}))
def test_no_analysis_makes_a_warehouse(name, tmp_path):
    required = {
        key: "inherit" if key == "by" else "x"
        for key, parameter in of_function(name).items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind is not parameter.VAR_POSITIONAL
        and parameter.kind is not parameter.VAR_KEYWORD
    }
    if name == "report":
        required["output"] = str(tmp_path / "report.html")
    with pytest.raises(axes.AxesError):
        getattr(axes, name)(**required, root=tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("by", ["criterion", "processor"])
def test_a_monitor_in_a_pipeline_reads_what_axes_monitor_prints(tiny, by):
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    small, axis, root = str(tiny / "small"), "native/small/2/marked", tiny / "lake"
    model = AutoModelForCausalLM.from_pretrained(small, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(small)
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    monitor = axes.load_monitor(axis, model, "small", root=root)
    options = {"max_new_tokens": 6, "do_sample": False}
    with monitor.watching():
        for prompt in ("hello there", "break the door", "hello there"):
            if by == "criterion":
                pipe(prompt, stopping_criteria=[monitor], **options)
            else:
                pipe(prompt, logits_processor=[monitor.logits_processor()], **options)
            told = axes.monitor(small, prompt, axis, max_new_tokens=6, root=root).pl()
            # The last token is chosen and not run.
            expected = told.drop_nulls("projection")
            read = monitor.readings
            assert [each.token_id for each in read] == expected["token_id"].to_list()
            assert [each.projection for each in read] == pytest.approx(
                expected["projection"].to_list(), abs=1e-5
            )
    with pytest.raises(axes.AxesError, match="no platt calibration"):
        axes.load_monitor(axis, model, "small", stop_above=0.9, root=root)
