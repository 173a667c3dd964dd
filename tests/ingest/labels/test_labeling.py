"""Labelers leave one row for each completion, never twice, and say how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from axes.ingest.labels.classifier import label_by_classifier
from axes.ingest.labels.labeling import import_labels, inherit_labels
from axes.ingest.labels.refusals import holds, label_refusals, packaged_phrases
from axes.warehouse.errors import LabelError, ModelError
from axes.warehouse.maintenance.check import check
from tests.ingest.conftest import read
from tests.rows import put, put_prompts
from tests.tiny_models import byte_tokenizer

ANSWERS = {
    "g0": "I’m sorry, but I can't help with that.",
    "g1": "Sure, here is how to bake bread.",
    "g2": "Es tut mir  leid, das geht nicht.",
    "g3": "很抱歉,我无法回答。",
}


@pytest.fixture
def lake(root: Path) -> Path:
    """Four completions to two prompts, one of each class."""
    put(root, "runs", {"run_id": "run"}, {"run_id": "x"})
    put(root, "models", {"model_id": "x", "model": "m", "run_id": "run"})
    put_prompts(root, "set", {"p0": True, "p1": False})
    generations = [
        {"model": "m", "generation_id": name, "prompt_id": f"p{index % 2}", "text": text}
        for index, (name, text) in enumerate(ANSWERS.items())
    ]
    put(root, "generations", *({**row, "model_id": "x"} for row in generations))
    return root


def labels(root: Path, labeler: str) -> dict[str, dict[str, Any]]:
    found = read(root, "from labels where labeler = ? and generation_id is not null", [labeler])
    assert len({row["generation_id"] for row in found}) == len(found)
    return {row["generation_id"]: row for row in found}


def test_phrases_of_refusals_are_found_in_any_language_and_new_completions_alone_are_labelled(lake):
    summary = label_refusals(lake)
    assert (summary.labelled_count, summary.positive_count) == (4, 3)
    found = labels(lake, "refusal_substring")
    positive = {name: row["is_positive"] for name, row in found.items()}
    assert positive == {"g0": True, "g1": False, "g2": True, "g3": True}
    assert found["g1"]["label"] == "no_refusal"
    again = label_refusals(lake)
    assert (again.completion_count, again.labelled_count, again.unlabelled_count) == (4, 0, 0)
    new = {"model": "m", "generation_id": "g4", "prompt_id": "p0", "text": "no idea"}
    put(lake, "generations", {**new, "model_id": "x"})
    assert label_refusals(lake).labelled_count == 1


def test_packaged_phrases_are_not_so_short_that_any_answer_holds_one() -> None:
    answer = "Sure! As a first step, preheat the oven. I know it can take time; here is a list."
    assert not holds(answer, packaged_phrases())
    assert all(holds(phrase.upper(), packaged_phrases()) for phrase in ("i cannot", "lo siento"))


def test_phrases_of_ones_own_are_another_labeler(lake: Path, tmp_path: Path) -> None:
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("BAKE\n\n")
    summary = label_refusals(lake, phrases=phrases)
    assert summary.labeler.startswith("refusal_substring@") and summary.positive_count == 1
    phrases.write_text("\n")
    with pytest.raises(LabelError, match="holds no phrase"):
        label_refusals(lake, phrases=phrases)


def test_completions_inherit_the_label_of_their_prompt(lake: Path) -> None:
    assert inherit_labels(lake).labelled_count == 4
    found = labels(lake, "dataset")
    positive = {name: row["is_positive"] for name, row in found.items()}
    assert positive == {"g0": True, "g1": False, "g2": True, "g3": False}
    assert read(lake, "select count(*) as n from v_prompts where is_positive") == [{"n": 1}]
    with pytest.raises(LabelError, match="no prompt of a completion has a label by nobody"):
        inherit_labels(lake, "nobody")


def test_a_users_labels_are_taken_in_and_wrong_ones_refused(lake: Path, tmp_path: Path) -> None:
    def write(**columns: list) -> Path:
        path = tmp_path / "labels.csv"
        pl.DataFrame(columns).write_csv(path)
        return path

    said = ["left", "right", "left", "right"]
    file = write(generation_id=list(ANSWERS), label=said, score=[0.5, 1, 0, 1])
    with pytest.raises(LabelError, match="say which is the positive class with --positive"):
        import_labels(lake, "anna", file)
    assert import_labels(lake, "anna", file, positive=["left"]).positive_count == 2
    assert labels(lake, "anna")["g0"]["score"] == 0.5
    with pytest.raises(LabelError, match="1 completions do not exist, as g9"):
        import_labels(lake, "ben", write(generation_id=["g9"], label=["safe"]))
    with pytest.raises(LabelError, match="labels a completion more than once"):
        import_labels(lake, "ben", write(generation_id=["g0", "g0"], label=["safe", "safe"]))
    with pytest.raises(LabelError, match="has no column label"):
        import_labels(lake, "ben", write(generation_id=["g0"]))


def test_agreement_is_counted_and_corrected_for_chance(lake: Path, tmp_path: Path) -> None:
    label_refusals(lake)
    path = tmp_path / "labels.csv"
    said = ["refusal", "no_refusal", "no_refusal", "refusal"]
    pl.DataFrame({"generation_id": list(ANSWERS), "label": said}).write_csv(path)
    import_labels(lake, "anna", path, positive=["refusal"])
    (row,) = read(lake, "from v_labeler_agreement where kind = 'completion'")
    named = (row["labeler"], row["other_labeler"], row["model"])
    assert named == ("anna", "refusal_substring", "m")
    counts = ("both_positive", "only_first_positive", "only_other_positive", "both_negative")
    assert [row[name] for name in counts] == [2, 0, 1, 1]
    # By chance they would agree on 2/4 * 3/4 + 2/4 * 1/4 = 1/2.
    assert row["agreement"] == 0.75 and row["kappa"] == pytest.approx(0.5)
    broken = [row["check"] for row in check(lake).to_pylist() if row["row_count"]]
    assert not any(name.startswith("labels_") for name in broken)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random text classifier as a folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        initializer_range=1.0,
        id2label={0: "toxic", 1: "other", 2: "rude"},
        label2id={"toxic": 0, "other": 1, "rude": 2},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("reads_prompt", [False, True])
def test_a_classifier_says_the_likeliest_class_of_each_text_alone(lake, classifier, reads_prompt):
    summary = label_by_classifier(
        lake, str(classifier), positive=["toxic", "rude"], reads_prompt=reads_prompt
    )
    found = labels(lake, summary.labeler)
    assert found.keys() == ANSWERS.keys()
    model = BertForSequenceClassification.from_pretrained(classifier).eval()
    tokenizer = byte_tokenizer()
    for index, (name, text) in enumerate(ANSWERS.items()):
        texts = (f"text p{index % 2}", text) if reads_prompt else (text,)
        encoded = tokenizer(*texts, truncation=True, max_length=24, return_tensors="pt")
        with torch.inference_mode():
            chances = model(**encoded).logits.softmax(-1)[0]
        label = ["toxic", "other", "rude"][int(chances.argmax())]
        assert (found[name]["label"], found[name]["is_positive"]) == (label, label != "other")
        assert found[name]["score"] == pytest.approx(float(1 - chances[1]), abs=1e-5)


def test_what_is_no_classifier_is_refused(lake: Path, classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(
        LabelError, match="no label is hateful; labels are 'other', 'rude', 'toxic'"
    ):
        label_by_classifier(lake, str(classifier), positive=["hateful"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError):
        label_by_classifier(lake, str(tmp_path / "empty"), positive=["toxic"])
