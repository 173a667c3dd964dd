"""The command line from end to end on tiny models, and what it says to bad input."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from axes.cli.main import cli
from tests.tiny_models import save_tiny


def axes(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def ok(*arguments: str | Path) -> Result:
    result = axes(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: str | Path) -> str:
    """The one line that a refused command prints; a traceback or a second line fails."""
    result = axes(*arguments)
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("Error: ")
    return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models, a labelled set and a benign one, ingested into `lake`."""
    base = tmp_path_factory.mktemp("cli")
    save_tiny(base / "small", "llama", seed=1)
    save_tiny(base / "large", "qwen2", seed=2, hidden_size=48)
    marked = [
        {"text": f"{verb} the {noun} number {number}", "label": label, "source": "test"}
        for number in range(10)
        for noun in ("door", "car")
        for verb, label in (("break", "unsafe"), ("paint", "safe"))
    ]
    pl.DataFrame(marked).write_parquet(base / "marked.parquet")
    benign = [{"text": f"tell me about {number} things"} for number in range(60)]
    pl.DataFrame(benign).write_csv(base / "benign.csv")
    return base


@pytest.fixture(scope="module")
def lake(folder: Path) -> Path:
    root = folder / "lake"
    ok("prompts", "import", "marked", folder / "marked.parquet", "--root", root)
    ok("prompts", "import", "benign", folder / "benign.csv", "--root", root)
    return root


@pytest.fixture(scope="module")
def study(folder: Path, lake: Path) -> dict:
    result = ok(*study_arguments(folder, lake), "--format", "json")
    return json.loads(result.stdout)


def study_arguments(folder: Path, lake: Path) -> list[str | Path]:
    arguments: list[str | Path] = ["study", "--root", lake, "--prompts", "marked"]
    arguments += ["--align", "benign", "--reference", folder / "large"]
    return [*arguments, "--model", folder / "small", "--model", folder / "large"]


def test_a_study_runs_the_models_that_are_missing_and_prints_the_documented_keys(study):
    assert set(study["models"]) == {"small", "large"}
    figures = study["models"]["small"]
    assert figures["layer"] == 2
    assert study["baselines"]["marked"].keys() >= {"bag_of_words", "prompt_length"}
    for scorer in ("native", "universal", "leave_one_out"):
        assert 0 <= figures["auroc"]["marked"][scorer] <= 1


def test_a_second_study_runs_no_model(study, folder, lake):
    before = ok("sql", "select count(*) from runs", "--root", lake, "--format", "csv").stdout
    again = ok(*study_arguments(folder, lake), "--format", "json")
    assert json.loads(again.stdout) == study
    after = ok("sql", "select count(*) from runs", "--root", lake, "--format", "csv").stdout
    assert before == after


def test_the_study_table_has_a_row_per_model_and_set(study, folder, lake, tmp_path):
    report = tmp_path / "report.md"
    arguments = [*study_arguments(folder, lake), "--format", "csv", "--report", report]
    lines = ok(*arguments).stdout.splitlines()
    assert len(lines) == 3 and lines[0].startswith("model,prompt_set,in_sample,layer,native")
    assert study["study_id"] in report.read_text()


def test_what_is_printed_can_be_asked_with_sql(study, lake):
    result = ok(
        "sql",
        "select auroc from v_auroc where kind = 'universal' and model = 'small'",
        "--root",
        lake,
        "--format",
        "json",
    )
    expected = study["models"]["small"]["auroc"]["marked"]["universal"]
    assert json.loads(result.stdout)[0]["auroc"] == pytest.approx(expected, abs=1e-9)


def test_traces_are_projected_by_the_next_study(study, folder, lake):
    small = folder / "small"
    limits = ["--limit", "4", "--max-new-tokens", "3"]
    ok("ingest", "traces", small, "--prompts", "marked", *limits, "--root", lake)
    ok(*study_arguments(folder, lake))
    counted = ok(
        "sql",
        "select count(*) as n from v_generation_projections where kind = 'universal'",
        "--root",
        lake,
        "--format",
        "csv",
    )
    assert 4 <= int(counted.stdout.splitlines()[1]) <= 12


@pytest.mark.parametrize("to", ["safetensors", "json", "gguf"])
def test_axes_are_exported(study, lake, tmp_path, to):
    output = tmp_path / f"axis.{to}"
    name = "universal/large/2/marked/lambda-held_out"
    result = ok("export", name, "--to", to, "-o", output, "--root", lake)
    assert result.stdout.strip() == str(output) and output.stat().st_size > 100


def test_fit_prints_every_layer(study, lake):
    fit = ["fit", "small", "--prompts", "marked", "--root", lake, "--format", "csv"]
    lines = ok(*fit).stdout
    assert [line.split(",")[2] for line in lines.splitlines()[1:]] == ["0", "1", "2", "3"]


def test_the_warehouse_passes_its_checks(study, lake):
    assert "activations_unique_key" in ok("warehouse", "check", "--root", lake).stdout


def test_a_broken_rule_exits_with_one(study, lake, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(lake, broken)
    part = next((broken / "activations" / "model=small").glob("*.parquet"))
    shutil.copy(part, part.with_name("again.parquet"))
    result = axes("warehouse", "check", "--root", broken, "--format", "csv")
    assert result.exit_code == 1
    assert "activations_unique_key,0" not in result.stdout


@pytest.mark.parametrize("output_format", ["table", "json", "csv", "markdown"])
def test_every_format_prints_to_stdout_and_progress_goes_elsewhere(study, lake, output_format):
    statement = "select model, d_model from models order by 1"
    result = ok("sql", statement, "--root", lake, "--format", output_format)
    assert "large" in result.stdout and "48" in result.stdout
    assert result.stderr == ""


def test_parquet_goes_to_a_file(study, lake, tmp_path):
    output = tmp_path / "models.parquet"
    ok("sql", "from models", "--root", lake, "--format", "parquet", "-o", output)
    assert pl.read_parquet(output).height == 2


@pytest.mark.parametrize(
    ("name", "start"),
    [("m.csv", b"model,"), ("m.JSON", b"[\n"), ("m.md", b"| model"), ("m.parquet", b"PAR1")],
)
def test_the_suffix_of_the_output_names_the_format(study, lake, tmp_path, name, start):
    statement = "select model, interval 2 days as age, [interval 1 hour] as ages from models"
    ok("sql", statement, "--root", lake, "-o", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    ok("sql", statement, "--root", lake, "-o", tmp_path / name, "--format", "csv")
    assert (tmp_path / name).read_bytes().startswith(b"model,age,ages\n")


def test_a_query_may_come_through_a_pipe(study, lake):
    piped = ["sql", "--root", str(lake), "--format", "csv"]
    result = CliRunner().invoke(cli, piped, input="select count(*) as n from models;")
    assert result.stdout == "n\n2\n"
    assert "give a statement" in CliRunner().invoke(cli, piped, input="").stderr


def test_the_warehouse_opens_for_plain_duckdb(study, lake, tmp_path):
    import duckdb

    path = tmp_path / "w.duckdb"
    assert ok("warehouse", "open", path, "--root", lake).stdout == f"{path}\n"
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.sql("select count(*) from v_study").fetchall() == [(2,)]


def test_a_query_may_come_from_a_file(study, lake, tmp_path):
    path = tmp_path / "query.sql"
    path.write_text("-- how many\nselect count(*) as models from models;\n")
    assert "2" in ok("sql", "-f", path, "--root", lake, "--format", "csv").stdout


def test_a_registry_name_with_local_weights_is_that_model(folder, tmp_path):
    """`make ingest MODEL=qwen2.5-7b SOURCE=folder`, on a tiny Qwen2."""
    root = tmp_path / "lake"
    ok("prompts", "import", "marked", folder / "marked.parquet", "--root", root)
    arguments = ["--source", folder / "large", "--prompts", "marked", "--root", root]
    ok("ingest", "activations", "qwen2.5-7b", *arguments)
    found = ok(
        "sql",
        "select model, architecture, model_group from models",
        "--root",
        root,
        "--format",
        "csv",
    )
    assert found.stdout.splitlines()[1] == "qwen2.5-7b,qwen2,aligned"


def test_bad_input_gets_one_line(folder, lake, study, tmp_path):
    at = ["--root", lake]
    small = folder / "small"
    assert "unknown model qwen2.5-7" in refused(
        "ingest", "activations", "qwen2.5-7", "--prompts", "marked", *at
    )
    assert "no prompt set nowhere" in refused(
        "ingest", "activations", small, "--prompts", "nowhere", *at
    )
    assert "layer 9 of small does not exist: it has 4 (0 to 3)" in refused(
        "ingest", "activations", small, "--prompts", "marked", "--layers", "0,9", *at
    )
    assert "a comma list of numbers" in refused(
        "ingest", "activations", small, "--prompts", "marked", "--layers", "top", *at
    )
    assert "cannot reach the hub for Qwen/Qwen2.5-7B-Instruct" in refused(
        "ingest", "activations", "qwen2.5-7b", "--prompts", "marked", *at
    )
    assert "no activations of pythia-1b" in refused("fit", "pythia-1b", "--prompts", "marked", *at)
    assert "is not a warehouse" in refused("sql", "select 1", "--root", tmp_path / "nowhere")
    assert "nonsense" in refused("sql", "select nonsense from prompts", *at)
    assert "unknown template blah: it is raw or chat" in refused(
        *study_arguments(folder, lake), "--template", "blah"
    )
    assert "does not exist" in refused(
        "ingest", "activations", "./nowhere.gguf", "--prompts", "marked", *at
    )
    assert "No such file or directory" in refused(
        "sql", "select 1", "-o", tmp_path / "no" / "where.csv", *at
    )
    assert "no axis nonsense" in refused("export", "nonsense", "--to", "json", *at)
    assert "unknown group" in refused(
        "study", "--group", "all", "--prompts", "marked", "--align", "benign", *at
    )


def test_bad_prompt_files_get_one_line(folder, lake, tmp_path):
    def written(name: str, **columns: list) -> Path:
        pl.DataFrame(columns).write_parquet(tmp_path / name)
        return tmp_path / name

    at = ["--root", lake]
    no_text = written("no_text.parquet", words=["a"], label=["safe"])
    assert "has no column 'text'" in refused("prompts", "import", "a", no_text, *at)
    empty = written("empty.parquet", text=["a", " "], label=["safe", "safe"])
    assert "row 1 is an empty prompt" in refused("prompts", "import", "b", empty, *at)
    nothing = written("nothing.parquet", text=[], label=[])
    assert "no rows for the set" in refused("prompts", "import", "none", nothing, *at)
    both = written("both.parquet", text=["a", "a"], label=["safe", "unsafe"])
    assert "carry both labels" in refused("prompts", "import", "c", both, *at)
    one = written("one.parquet", text=["one a", "one b"], label=["safe", "safe"])
    ok("prompts", "import", "one_class", one, *at)
    assert "all 2 labels of one_class are negative" in refused(
        "study",
        "--root",
        lake,
        "--prompts",
        "one_class",
        "--align",
        "benign",
        "--reference",
        folder / "large",
        "--model",
        folder / "small",
        "--model",
        folder / "large",
    )
    long = written("long.parquet", text=["word " * 400, "short"])
    ok("prompts", "import", "long", long, *at)
    small = folder / "small"
    message = refused("ingest", "activations", small, "--prompts", "long", *at)
    assert "the context is 512" in message and "--skip-unusable" in message
    ok("ingest", "activations", small, "--prompts", "long", "--skip-unusable", *at)
    recorded = ok(
        "sql", "select len(skipped) from runs order by started_at desc limit 1", *at
    ).stdout
    assert "1" in recorded.splitlines()[2]


def test_assumptions_without_an_estimate_are_refused_and_not_ignored():
    result = axes("models", "show", "qwen2.5-7b", "--tokens-per-second", "5")
    assert result.exit_code == 2 and "need --estimate" in result.stderr


def test_an_interrupted_command_says_how_to_go_on(lake, monkeypatch):
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("axes.warehouse.connection.connect", interrupted)
    result = axes("sql", "select 1", "--root", lake)
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr
