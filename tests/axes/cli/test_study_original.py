"""`axes study original` from the hub to the report, with a tiny model in place of each real one.

The two prompt sets of the source study are imported under their names from the built-in ones.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from axes.analysis.study.definition import FOLDER
from axes.ingest.forward.templates import Template, render
from axes.ingest.models.load import load_tokenizer
from axes.ingest.models.registry import registry
from axes.ingest.prompt_sources import BUILTIN
from axes.study_estimate import ModelNeeds, in_words
from axes.warehouse.connection import connect, rows
from axes.warehouse.progress import byte_text
from tests import commands
from tests.ingest.hub_server import TOKEN, Client, Hub, ServedRepository, serve
from tests.once import made_once
from tests.study_models import CHATS, FAMILIES, save_family

ALIGN_ROWS = 40
PAIRS = 15
GROUPS = {
    "pythia": ("pythia-1b", {"pythia-160m", "pythia-410m", "pythia-1b"}),
    "aligned": ("llama-3-8b-instruct", set(CHATS)),
}
GATED = ("llama-2-13b-chat", "llama-3-8b-instruct")
PUBLISHED = tomllib.loads((FOLDER / "original.toml").read_text())["published"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each model; not to be changed."""

    def save(folder: Path) -> None:
        for seed, name in enumerate(FAMILIES):
            save_family(folder / name, name, seed=seed)

    return made_once(tmp_path_factory, "study-models", save)


@pytest.fixture
def hub(served: Path) -> Iterator[Hub]:
    repositories = {
        repository_id(name): ServedRepository(
            served / name, str(registry()[name].revision), is_gated=name in GATED
        )
        for name in FAMILIES
    }
    with serve(repositories) as running:
        yield running


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub.endpoint, tmp_path / "home")


@pytest.fixture
def prompts(root: Path, tmp_path: Path) -> Path:
    """The warehouse with sets of the names that the study gives, more alignment rows than used."""
    safety = pl.read_csv(BUILTIN / "demo_safety.csv")
    pairs = safety["pair_id"].unique(maintain_order=True).head(PAIRS)
    safety.filter(pl.col("pair_id").is_in(pairs.implode())).write_csv(tmp_path / "safety.csv")
    alignment = pl.read_csv(BUILTIN / "demo_alignment.csv").head(ALIGN_ROWS + 20)
    alignment.write_csv(tmp_path / "alignment.csv")
    for name, file in (("prompt_safety", "safety.csv"), ("alpaca", "alignment.csv")):
        commands.ok("prompts", "import", name, tmp_path / file, "--root", root)
    return root


def repository_id(name: str) -> str:
    return registry()[name].source.removeprefix("hf:")


def study(*words: str | Path) -> tuple[str | Path, ...]:
    return ("study", "original", "--align-rows", str(ALIGN_ROWS), *words)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tokenizers_have_the_manners_of_the_real_ones(served: Path, name: str):
    family, tokenizer = FAMILIES[name], load_tokenizer(served / name)
    (raw,) = render(tokenizer, ["Hello"], Template("raw"), name)
    start = f"{family.bos} " if family.is_sentence_piece else str(family.bos)
    assert tokenizer.decode(raw.token_ids) == (start if family.adds_bos else "") + "Hello"
    if name in CHATS:
        (chat,) = render(tokenizer, ["Hello"], Template("chat"), name)
        assert tokenizer.decode(chat.token_ids) == CHATS[name]


def test_one_command_runs_both_groups_and_prints_published_values_next_to_ours(
    client: Client, prompts: Path, tmp_path: Path
):
    report = tmp_path / "original.md"
    done = client.axes(*study("--root", prompts, "--report", report), HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    connection = connect(prompts)

    models = rows(connection, "select model, architecture, dtype, model_group from models")
    assert {row["model"]: row["architecture"] for row in models} == {
        name: family.architecture for name, family in FAMILIES.items()
    }
    stored = rows(
        connection,
        """
        select model, prompt_set, count(distinct prompt_id) as prompt_count, template
        from v_stored inner join prompts using (prompt_id)
        group by all
        """,
    )
    counts = {"prompt_safety": 2 * PAIRS, "alpaca": ALIGN_ROWS}
    assert {(row["model"], row["prompt_set"], row["prompt_count"]) for row in stored} == {
        (name, prompt_set, count) for name in FAMILIES for prompt_set, count in counts.items()
    }
    assert {row["template"] for row in stored} == {"raw"}

    assert references(prompts) == GROUPS
    assert_published(prompts, done.stdout, tmp_path)


def references(root: Path) -> dict[str, tuple[str, set[str]]]:
    """Label -> reference and models of each study."""
    found = rows(connect(root), "select distinct study_id, parameters from evaluations")
    definitions = [json.loads(row["parameters"]) for row in found if "models" in row["parameters"]]
    return {each["label"]: (each["reference"], set(each["models"])) for each in definitions}


def assert_published(root: Path, stdout: str, folder: Path) -> None:
    """Every published value is a row with ours, printed, and in the report of its group."""
    found = rows(connect(root), "from v_published")
    expected = {
        (model, metric): value
        for model, values in PUBLISHED.items()
        if model != "*"
        for metric, value in {**values, **PUBLISHED["*"]}.items()
    }
    assert {(row["model"], row["metric"]): row["published"] for row in found} == expected
    assert len(found) == len(expected) == 21
    reports = {
        model: (folder / f"original-{group}.md").read_text().partition("published values")[2]
        for group, (_, models) in GROUPS.items()
        for model in models
    }
    for row in found:
        assert row["difference"] == pytest.approx(row["ours"] - row["published"])
        shown = f"{row['difference']:.4f}"
        assert shown in stdout and shown in reports[row["model"]]


def test_chat_models_run_in_their_templates(client: Client, prompts: Path):
    options = ("--group", "aligned", "--template", "chat", "--alignment-shuffles", "0")
    words = study(*options, "--root", prompts)
    done = client.axes(*words, "--format", "json", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["definition"]["template"] == "chat"
    for name, values in result["models"].items():
        assert values["published"]["native"] == PUBLISHED[name]["native"]
    stored = rows(connect(prompts), "select distinct model, template from v_stored")
    assert {(row["model"], row["template"]) for row in stored} == {(n, "chat") for n in CHATS}


def test_a_licence_that_is_not_accepted_is_one_line_before_any_weights_are_fetched(
    hub: Hub, client: Client, prompts: Path
):
    done = client.axes(*study("--root", prompts))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: " + "; ".join(
        f"{repository_id(name)} is gated: accept its licence on "
        f"{hub.endpoint}/{repository_id(name)} and set HF_TOKEN"
        for name in GATED
    )
    assert {request.name for request in hub.fetched()} == {"config.json"}
    assert not rows(connect(prompts), "from models")


def test_an_estimate_names_what_each_model_needs_and_which_the_hub_refuses(
    hub: Hub, client: Client, prompts: Path
):
    words = study("--estimate", "--root", prompts, "--format", "json")
    done = client.axes(*words)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "is gated" in line] == [
        f"warning: {repository_id(name)} is gated: accept its licence on "
        f"{hub.endpoint}/{repository_id(name)} and set HF_TOKEN"
        for name in GATED
    ]
    needs = {row["model"]: row for row in json.loads(done.stdout)}
    assert list(needs) == [name for name in FAMILIES if name not in GATED]
    for row in needs.values():
        assert row["prompt_count"] == 2 * PAIRS + ALIGN_ROWS
        assert row["memory_bfloat16_bytes"] == 2 * row["parameter_count"]
        assert row["download_bytes"] > 2 * row["parameter_count"]
    qwen = needs["qwen2.5-7b"]
    blocks = 4 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48)
    assert qwen["seconds"] == pytest.approx(2 * blocks * qwen["token_count"] / 1e12)
    *_, together = in_words([ModelNeeds(**row) for row in needs.values()])
    assert together["download"] == byte_text(sum(row["download_bytes"] for row in needs.values()))
    largest = max(row["memory_float32_bytes"] for row in needs.values())
    assert together["in float32"] == byte_text(largest)
    assert not rows(connect(prompts), "from models")
    assert {request.name for request in hub.fetched()} == {"config.json"}
