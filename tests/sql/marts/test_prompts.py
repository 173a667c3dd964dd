"""Views of prompts, prompt sets and labels: given rows, expected rows."""

from __future__ import annotations

from pathlib import Path

from tests.rows import put, put_prompts
from tests.sql.marts.given import ask, put_overlapping_sets


def test_a_prompt_in_two_sets_is_a_row_of_each_with_the_label_of_that_set(root: Path) -> None:
    put_overlapping_sets(root)
    asked = "select prompt_set, prompt_id, position, label, is_positive from v_prompts order by all"
    assert ask(root, asked) == [
        ("one", "a", 1, "safe", False),
        ("one", "shared", 0, "unsafe", True),
        ("two", "b", 0, "unsafe", True),
        ("two", "shared", 1, None, None),
    ]


def test_labels_of_another_labeler_or_of_a_completion_are_not_mixed_in(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": None})
    label = {"prompt_set": "one", "label": "other"}
    put(root, "labels", {**label, "labeler": "refusal_substring", "prompt_id": "a"})
    put(root, "labels", {**label, "labeler": "refusal_substring", "prompt_id": "b"})
    put(root, "labels", {**label, "labeler": "dataset", "prompt_id": "a", "generation_id": "g"})
    put(root, "labels", {**label, "labeler": "dataset", "prompt_id": "b", "generation_id": "g"})
    asked = "select prompt_id, label, is_positive from v_prompts order by all"
    assert ask(root, asked) == [("a", "unsafe", True), ("b", None, None)]


def test_a_set_without_labels_of_its_own_has_those_of_its_only_labeler(root: Path) -> None:
    put_prompts(root, "one", {"a": None, "b": None})
    label = {"prompt_set": "one", "label": "bad", "is_positive": True, "labeler": "me"}
    put(root, "labels", {**label, "prompt_id": "a"})
    asked = "select prompt_id, label, is_positive from v_prompts order by all"
    assert ask(root, asked) == [("a", "bad", True), ("b", None, None)]


def test_a_prompt_set_is_counted_by_class_and_its_sources_are_named_once(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": True}, pair_id="p", source="z", license="MIT")
    put_prompts(root, "one", {"c": False}, pair_id="q", source="y", license="MIT")
    put_prompts(root, "one", {"d": None, "e": None}, source="z")
    put_prompts(root, "two", {"a": False})
    asked = """
        select prompt_set, sources, licenses, prompt_count, positive_count, negative_count,
            unlabelled_count, pair_count
        from v_prompt_sets order by all
    """
    assert ask(root, asked) == [
        ("one", "y, z", "MIT", 5, 2, 1, 2, 2),
        ("two", None, None, 1, 0, 1, 0, 0),
    ]


def test_what_every_labeler_says_of_a_prompt_stands_in_one_row(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": False, "c": None})
    label = {"prompt_set": "one", "label": "refused", "labeler": "refusal"}
    put(root, "labels", {**label, "prompt_id": "a", "is_positive": True})
    put(root, "labels", {**label, "prompt_id": "b", "is_positive": True})
    put(root, "labels", {**label, "prompt_id": "c", "generation_id": "of a completion"})
    asked = """
        select prompt_id, labels['dataset'], labels['refusal'], opinions['refusal'],
            labeler_count, positive_votes, negative_votes, is_contested
        from v_prompt_labels order by all
    """
    assert ask(root, asked) == [
        ("a", "unsafe", "refused", True, 2, 2, 0, False),
        ("b", "safe", "refused", True, 2, 1, 1, True),
        ("c", None, None, None, 0, 0, 0, None),
    ]
