"""The command line from end to end on tiny models, and what it says to bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pytest

from tests.commands import axes, ok, printed, refused


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(tiny, tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture(scope="module")
def lake(folder: Path) -> Path:
    return folder / "lake"


@pytest.fixture(scope="module")
def study(folder: Path, lake: Path) -> dict:
    return printed(*study_words(folder, lake))


def study_words(folder: Path, lake: Path) -> list[str | Path]:
    words: list[str | Path] = ["study", "--root", lake, "--prompts", "marked", "--align", "benign"]
    models = ["--model", folder / "small", "--model", folder / "large"]
    return [*words, *models, "--reference", folder / "large"]


def asked(lake: Path, sql: str) -> list[dict]:
    return printed("sql", sql, "--root", lake)


def test_a_study_runs_the_models_that_are_missing_and_prints_the_documented_keys(study, lake):
    assert set(study["models"]) == {"small", "large"}
    figures = study["models"]["small"]
    assert figures["layer"] == 2
    assert study["baselines"]["marked"].keys() >= {"bag_of_words", "prompt_length"}
    for scorer in ("native", "universal", "leave_one_out"):
        assert 0 <= figures["auroc"]["marked"][scorer] <= 1
    sql = "select auroc from v_auroc where kind = 'universal' and model = 'small'"
    expected = figures["auroc"]["marked"]["universal"]
    assert asked(lake, sql)[0]["auroc"] == pytest.approx(expected, abs=1e-9)


def test_a_second_study_runs_no_model_and_prints_a_row_per_model(study, folder, lake, tmp_path):
    before = asked(lake, "select count(*) from runs")
    assert printed(*study_words(folder, lake)) == study
    assert asked(lake, "select count(*) from runs") == before
    report = tmp_path / "report.md"
    words = [*study_words(folder, lake), "--format", "csv", "--report", report]
    lines = ok(*words).stdout.splitlines()
    assert len(lines) == 3 and lines[0].startswith("model,prompt_set,layer,native,native_95")
    assert study["study_id"] in report.read_text()


def test_traces_are_projected_by_the_next_study(study, folder, lake):
    limits = ["--limit", "4", "--max-new-tokens", "3"]
    ok("ingest", "traces", folder / "small", "--prompts", "marked", *limits, "--root", lake)
    ok(*study_words(folder, lake))
    sql = "select count(*) as n from v_generation_projections where kind = 'universal'"
    assert 4 <= asked(lake, sql)[0]["n"] <= 12


def test_kept_tokens_without_the_first_are_rows_of_prompts(study, folder, lake):
    kept = ("--prompts", "marked", "--keep-tokens", "2", "--root", lake)
    ok("ingest", "activations", folder / "small", *kept)
    for pooling in ("tokens_mean", "tokens_max"):
        ok("fit", "small", "--prompts", "marked", "--pooling", pooling, "--root", lake)
    rows = asked(
        lake,
        """
        with means as (
            select prompt_id, avg(dot(tokens.vector, axes.vector)) as projection
            from prompt_tokens as tokens, axes
            where tokens.layer = 2 and position > 0 and axes.pooling = 'tokens_mean'
            group by all
        )

        select max(abs(means.projection - stored.projection)) as error, count(*) as count
        from means
        inner join projections as stored using (prompt_id)
        inner join axes using (axis_id)
        where axes.pooling = 'tokens_mean'
        """,
    )
    assert rows[0]["count"] > 10 and rows[0]["error"] < 1e-5


def test_the_warehouse_passes_its_checks(study, lake):
    words = ("warehouse", "check", "--root", lake)
    (summary,) = ok(*words).stdout.splitlines()
    assert summary.endswith("checks, 0 with findings")
    assert "activations_unique_key" in ok(*words, "--format", "json").stdout


def test_sql_prints_every_statement_and_knows_the_dot_commands(study, lake, tmp_path):
    two = "select 1 as a; create table mine as select 2 as b; from mine;"
    assert ok("sql", two, "--root", lake, "--format", "csv").stdout.endswith("b\n2\n")
    shown = ok("sql", ".schema v_studies", "--root", lake).stdout
    assert "study_id" in shown and "VARCHAR" in shown
    for words, message in (
        ([two, "-o", tmp_path / "x.csv"], "statements have rows"),
        (["select 1", "-o", tmp_path / "x.xlsx"], "no format has the suffix .xlsx"),
        ([".schema nowhere"], "no table nowhere"),
    ):
        assert message in axes("sql", *words, "--root", lake).stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("m.csv", b"model,"),
        ("m.JSON", b"[\n"),
        ("m.md", b"| model"),
        ("m.parquet", b"PAR1"),
        ("m.tsv", b"model\t"),
        ("m.jsonl", b'{"model": '),
        ("m.txt", b"model "),
    ],
)
def test_the_suffix_of_the_output_names_the_format(study, lake, tmp_path, name, start):
    statement = "select model, interval 2 days as age, [interval 1 hour] as ages from models"
    ok("sql", statement, "--root", lake, "-o", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    if name == "m.parquet":
        assert pl.read_parquet(tmp_path / name).height == 2
    ok("sql", statement, "--root", lake, "-o", tmp_path / name, "--format", "csv")
    assert (tmp_path / name).read_bytes().startswith(b"model,age,ages\n")


def test_a_query_may_come_from_a_file_or_through_a_pipe_and_stderr_stays_empty(
    study, lake, tmp_path
):
    piped = ["sql", "--root", lake, "--format", "csv"]
    assert axes(*piped, input="select count(*) as n from models;").stdout == "n\n2\n"
    assert "give a statement" in axes(*piped, input="").stderr
    path = tmp_path / "query.sql"
    path.write_text("-- how many\nselect count(*) as n from models;\n")
    result = ok(*piped, "-f", path)
    assert (result.stdout, result.stderr) == ("n\n2\n", "")


def test_comments_are_there_for_a_statement_that_reads_the_catalog(lake):
    sql = "select comment from duckdb_views() where view_name = 'v_auroc'"
    assert asked(lake, sql)[0]["comment"].startswith("One row per")


def test_the_warehouse_opens_for_plain_duckdb(study, lake, tmp_path):
    path = tmp_path / "w.duckdb"
    assert ok("warehouse", "open", path, "--root", lake).stdout == f"{path}\n"
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.sql("select count(*) from v_study").fetchall() == [(2,)]


def test_a_registry_name_with_local_weights_is_that_model(folder, tmp_path):
    """`make ingest MODEL=qwen2.5-7b SOURCE=folder`, on a tiny Qwen2."""
    at = ["--root", tmp_path / "lake"]
    ok("prompts", "import", "marked", folder / "marked.csv", *at)
    source = ["--source", folder / "large", "--prompts", "marked"]
    ok("ingest", "activations", "qwen2.5-7b", *source, *at)
    assert asked(tmp_path / "lake", "select model, architecture, model_group from models") == [
        {"model": "qwen2.5-7b", "architecture": "qwen2", "model_group": "aligned"}
    ]


BAD_INPUT = [
    ("ingest activations qwen2.5-7 --prompts marked", "unknown model qwen2.5-7"),
    ("ingest activations SMALL --prompts nowhere", "no prompt set nowhere"),
    (
        "ingest activations SMALL --prompts marked --layers 0,9",
        "layer 9 of small does not exist: it has 4 (0 to 3)",
    ),
    ("ingest activations SMALL --prompts marked --layers top", "a comma list of numbers"),
    (
        "ingest activations qwen2.5-7b --prompts marked",
        "cannot reach the hub for Qwen/Qwen2.5-7B-Instruct",
    ),
    ("ingest activations ./nowhere.gguf --prompts marked", "does not exist"),
    ("fit pythia-1b --prompts marked", "no activations of pythia-1b"),
    ("sql nonsense", "nonsense"),
    ("sql from+models -o no/where.csv", "No such file or directory"),
    ("export nonsense --to json", "no axis nonsense"),
    ("study --group all --prompts marked --align benign", "unknown group"),
]


@pytest.mark.parametrize(("words", "message"), BAD_INPUT)
def test_bad_input_gets_one_line(folder, lake, words, message):
    small = str(folder / "small")
    typed = [small if word == "SMALL" else word.replace("+", " ") for word in words.split()]
    assert message in refused(*typed, "--root", lake)


def test_a_study_of_bad_input_gets_one_line(folder, lake, tmp_path):
    words = study_words(folder, lake)
    assert "unknown template blah: it is raw or chat" in refused(*words, "--template", "blah")
    one = tmp_path / "one.csv"
    one.write_text("text,label\none a,safe\none b,safe\n")
    ok("prompts", "import", "one_class", one, "--root", lake)
    message = refused(*words, "--prompts", "one_class")
    assert "all 2 labels of one_class are negative" in message


def test_a_prompt_that_is_too_long_is_refused_or_left_out_and_recorded(folder, root, tmp_path):
    pl.DataFrame({"text": ["word " * 400, "short"]}).write_parquet(tmp_path / "long.parquet")
    ok("prompts", "import", "long", tmp_path / "long.parquet", "--root", root)
    words = ["ingest", "activations", folder / "small", "--prompts", "long", "--root", root]
    message = refused(*words)
    assert "the context is 512" in message and "--skip-unusable" in message
    ok(*words, "--skip-unusable")
    sql = "select len(skipped) as n from runs order by started_at desc limit 1"
    assert asked(root, sql) == [{"n": 1}]


def test_assumptions_without_an_estimate_are_refused_and_not_ignored():
    message = refused("models", "show", "qwen2.5-7b", "--tokens-per-second", "5")
    assert "need --estimate" in message


def test_a_study_of_a_template_variant_runs_the_models_under_it(study, folder, lake):
    words = [*study_words(folder, lake), "--template", "chat+enable_thinking=false"]
    result = ok(*words, "--format", "json")
    variant = json.loads(result.stdout)
    assert variant["study_id"] != study["study_id"]
    for name in ("small", "large"):
        assert f"the chat template of {name} ignores it" in result.stderr
    sql = "select distinct template from activations order by all"
    assert [row["template"] for row in asked(lake, sql)] == ["chat+enable_thinking=false", "raw"]
    assert printed(*words) == variant
    sql = "select distinct other_axis_name as name from v_axis_cosines where layer = 2"
    names = {row["name"] for row in asked(lake, f"{sql} and axis_name = 'native/small/2/marked'")}
    assert "native/small/2/marked/chat+enable_thinking=false" in names
    assert ", 0 with findings" in ok("warehouse", "check", "--root", lake).stdout
    words = [*words[:-1], "chat+system:b1cc2ec6"]
    assert "system:b1cc2ec6 is not a template option" in refused(*words)
