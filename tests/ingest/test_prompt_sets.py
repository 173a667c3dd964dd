"""The sets that come with the code, and the ready entries for the source study's sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from axes.analysis.stats.auroc import auroc
from axes.analysis.stats.baselines import TEXT_BASELINES, text_scores
from axes.ingest.prompt_sources import (
    PromptSource,
    class_labels,
    prompt_source,
    read_source,
    ready_sets,
)
from axes.ingest.prompts import import_prompts, normalise
from axes.ingest.requests import PromptRequest
from axes.warehouse.errors import ImportFileError, PromptError
from axes.warehouse.tables.bounds import require_own_files
from tests.ingest.conftest import read


def hub_layout(folder: Path, **columns: list[Any]) -> str:
    """A data set as the hub would hold it, on the disk."""
    (folder / "data").mkdir(parents=True)
    pl.DataFrame(columns).write_parquet(folder / "data" / "train-00000-of-00001.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: data/train-*\n---\n# A data set\n"
    )
    return f"hf:{folder}"


@pytest.fixture(autouse=True)
def _own_data_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def stored(root: Path, prompt_set: str) -> list[dict[str, Any]]:
    return read(
        root,
        "select text, category, license, is_positive from prompts "
        "left join labels using (prompt_set, prompt_id) where prompt_set = ? order by position",
        [prompt_set],
    )


@pytest.fixture(scope="module")
def safety() -> pl.DataFrame:
    return read_source(ready_sets()["demo_safety"])


def test_demo_safety_is_300_and_300_distinct_prompts_in_complete_pairs(safety):
    assert dict(safety["label"].value_counts().iter_rows()) == {"unsafe": 300, "safe": 300}
    assert len({normalise(text) for text in safety["text"]}) == 600
    pairs = safety.group_by("pair_id").agg("label")["label"].to_list()
    assert len(pairs) == 300
    assert all(sorted(pair) == ["safe", "unsafe"] for pair in pairs)
    assert safety["category"].n_unique() >= 10
    assert safety.null_count().sum_horizontal().item() == 0


def test_the_words_of_demo_safety_alone_do_not_tell_its_classes_apart(safety: pl.DataFrame) -> None:
    labels = (safety["label"] == "unsafe").to_numpy()
    groups = safety["pair_id"].rank("dense").cast(pl.Int64).to_numpy()
    scores = text_scores(safety["text"].to_list(), labels, groups)
    assert roc_auc_score(labels, scores) < 0.80
    telltale = [
        f"{text} {'bad' if label else 'good'}"
        for text, label in zip(safety["text"], labels, strict=True)
    ]
    assert roc_auc_score(labels, text_scores(telltale, labels, groups)) > 0.99


def test_demo_alignment_is_1500_distinct_prompts_apart_from_demo_safety(safety):
    alignment = read_source(ready_sets()["demo_alignment"])
    texts = {normalise(text) for text in alignment["text"]}
    assert len(texts) == len(alignment) >= 1500
    assert "" not in texts
    assert not texts & {normalise(text) for text in safety["text"]}
    assert "label" not in alignment.columns


def test_the_built_in_sets_import_by_name(root: Path) -> None:
    summary = import_prompts(root, "demo_safety", prompt_source("demo_safety", None))
    assert (summary.prompt_count, summary.positive_count, summary.negative_count) == (600, 300, 300)
    assert (summary.duplicate_count, summary.skipped_count) == (0, 0)
    assert {row["license"] for row in stored(root, "demo_safety")} == {"MIT"}
    alignment = import_prompts(root, "demo_alignment", prompt_source("demo_alignment", None))
    assert alignment.prompt_count >= 1500
    assert (alignment.positive_count, alignment.negative_count) == (0, 0)


def test_demo_formality_is_60_pairs_of_formal_and_informal_requests(root: Path) -> None:
    summary = import_prompts(root, "demo_formality", prompt_source("demo_formality", None))
    assert (summary.prompt_count, summary.positive_count, summary.negative_count) == (120, 60, 60)
    assert (summary.duplicate_count, summary.changed_count) == (0, 0)
    found = read(
        root,
        "select pair_id, license, list(label order by label) as labels from v_prompts group by all",
    )
    assert len(found) == 60
    assert all(row["labels"] == ["formal", "informal"] for row in found)
    assert {row["license"] for row in found} == {"MIT"}
    others = read_source(ready_sets()["demo_alignment"])["text"]
    assert not {row["text"] for row in stored(root, "demo_formality")} & set(others)


CONCEPTS = [name for name in ready_sets() if name.startswith("concept_")]
PAGE = Path(__file__).parents[2] / "docs" / "many-concepts.md"


def test_six_concepts_are_built_in_and_share_no_prompt(safety):
    assert len(CONCEPTS) == 6
    frames = [read_source(ready_sets()[name]) for name in [*CONCEPTS, "demo_formality"]]
    texts = pl.concat([*(frame["text"] for frame in frames), safety["text"]])
    assert len({normalise(text).lower() for text in texts}) == len(texts) == 6 * 200 + 120 + 600


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_concept_is_100_pairs_with_the_surface_baseline_that_its_page_states(name: str) -> None:
    frame, labels = read_source(ready_sets()[name]), class_labels(ready_sets()[name])
    assert all(normalise(text) == text and 3 <= len(text.split()) <= 16 for text in frame["text"])
    pairs = frame.group_by("pair_id").agg("label", pl.col("text").n_unique())
    assert len(pairs) == 100 and (pairs["text"] == 2).all()
    assert all(sorted(each) == sorted(labels) for each in pairs["label"])
    is_positive = (frame["label"] == labels[0]).to_numpy()
    groups = frame["pair_id"].cast(pl.Int64).to_numpy()
    areas = {
        baseline: auroc(
            text_scores(frame["text"].to_list(), is_positive, groups, baseline=baseline),
            is_positive,
        )
        for baseline in TEXT_BASELINES
    }
    best = max(areas, key=lambda baseline: areas[baseline])
    assert areas[best] < 0.80
    (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}`"))
    example = [text.strip() for text in row.split("|")[3].split(" / ")]
    assert example in [part["text"].to_list() for part in frame.partition_by("pair_id")]
    assert ", ".join(labels) in row
    assert row.endswith(f"| `{best}` | {areas[best]:.3f} |")


def test_a_folder_in_the_hubs_layout_is_read_numbers_as_labels_too(root, tmp_path):
    source = hub_layout(tmp_path / "set", text=["b", "a"], label=[1, 0])
    import_prompts(root, "local", PromptSource(source))
    found = [(row["text"], row["is_positive"]) for row in stored(root, "local")]
    assert found == [("b", True), ("a", False)]
    source = hub_layout(tmp_path / "numbers", text=["x", "y", "z"], label=[2, 0, None])
    import_prompts(root, "numbers", PromptSource(source), PromptRequest(positive=["2"]))
    assert [row["is_positive"] for row in stored(root, "numbers")] == [True, False, None]


def test_the_alpaca_entry_takes_instructions_without_input(root: Path, tmp_path: Path) -> None:
    source = hub_layout(
        tmp_path / "alpaca",
        instruction=["Name three primes.", "Translate this.", "Say hi.", "Add these."],
        input=["", "bonjour", "  ", "1, 2"],
        output=["2, 3, 5", "hello", "hi", "3"],
    )
    import_prompts(root, "alpaca", prompt_source("alpaca", source, **entry("alpaca")))
    assert stored(root, "alpaca") == [
        {"text": text, "category": None, "license": "CC-BY-NC-4.0", "is_positive": None}
        for text in ("Name three primes.", "Say hi.")
    ]


def test_the_prompt_safety_entry_takes_300_of_each_label(root: Path, tmp_path: Path) -> None:
    count = 310
    source = hub_layout(
        tmp_path / "safety",
        text=[f"prompt {index}" for index in range(2 * count)],
        label=["unsafe" if index % 2 else "safe" for index in range(2 * count)],
        content_category=[f"topic {index % 7}" for index in range(2 * count)],
    )
    given = entry("prompt_safety")
    summary = import_prompts(root, "prompt_safety", prompt_source("x", source, **given))
    assert (summary.positive_count, summary.negative_count) == (300, 300)
    assert stored(root, "prompt_safety")[9] == {
        "text": "prompt 9",
        "category": "topic 2",
        "license": None,
        "is_positive": True,
    }


def entry(name: str) -> dict[str, Any]:
    """What a ready entry says, but for where it comes from."""
    return {key: value for key, value in vars(ready_sets()[name]).items() if key != "source"}


def test_the_ready_entries_name_their_places() -> None:
    places = {name: entry.source for name, entry in ready_sets().items() if "hf:" in entry.source}
    assert places == {
        "alpaca": "hf:tatsu-lab/alpaca",
        "prompt_safety": "hf:SalKhan12/prompt-safety-dataset",
    }


def test_a_hub_set_that_cannot_be_had_is_one_line(root: Path) -> None:
    for source in ("hf:", "hf:owner/nonesuch", "hf:owner/nonesuch:config@v1"):
        with pytest.raises(PromptError, match="hf:") as caught:
            import_prompts(root, "set", PromptSource(source))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["{outside}", "../secret.csv", "data/link.csv"])
def test_a_data_set_that_names_files_outside_its_folder_is_refused(
    tmp_path: Path, place: str
) -> None:
    outside = tmp_path / "secret.csv"
    outside.write_text("text,label\nmy own text,a\n")
    folder = Path(hub_layout(tmp_path / "theirs", text=["theirs"]).removeprefix("hf:"))
    (folder / "data" / "link.csv").symlink_to(outside)
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("data/train-*", place.format(outside=outside)))
    with pytest.raises(
        ImportFileError, match=r"names .*(secret|link)\.csv, which is outside of it"
    ):
        read_source(PromptSource(f"hf:{folder}"))


def test_a_data_set_of_the_hub_names_only_its_own_files() -> None:
    require_own_files("owner/name", ["hf://datasets/owner/name@0a1b/train.csv"])
    for file in ("/etc/passwd", "https://host/x.csv", "hf://datasets/other/name@0a1b/train.csv"):
        with pytest.raises(ImportFileError, match="outside of it"):
            require_own_files("owner/name", [file])
