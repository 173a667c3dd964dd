"""Each mart: given rows, expected rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from axes.warehouse.connection import connect, rows
from tests.rows import put, put_prompts

GIVEN = {"model": "m", "model_id": "m1"}


def ask(root: Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows as tuples."""
    return [tuple(row.values()) for row in rows(connect(root), sql)]


def put_overlapping_sets(root: Path) -> None:
    """`shared` is in both sets, positive in one and without a label in the other."""
    put_prompts(root, "one", {"shared": True, "a": False}, pair_id="pair", source="here")
    put_prompts(root, "two", {"b": True, "shared": None}, license="MIT", category="c")


# v_prompts


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


# v_prompt_sets


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


# v_activations


def test_an_activation_is_joined_to_every_set_of_its_prompt_and_to_its_model(root: Path) -> None:
    put_overlapping_sets(root)
    models = {"model_group": "demo", "dtype": "float32"}
    put(root, "models", {**models, **GIVEN, "layer_count": 5})
    put(root, "models", {**models, "model": "n", "model_id": "n1", "layer_count": 1})
    put(root, "activations", {**GIVEN, "prompt_id": "shared", "layer": 1, "vector": [3, 4]})
    put(root, "activations", {"model": "n", "model_id": "n1", "prompt_id": "b", "norm": 7.0})
    asked = """
        select model, prompt_set, prompt_id, layer, text, is_positive, pair_id, category,
            model_group, dtype, layer_count, depth_fraction, vector, norm
        from v_activations order by model, prompt_set
    """
    common = ("demo", "float32")
    assert ask(root, asked) == [
        ("m", "one", "shared", 1, "text shared", True, "pair", None, *common, 5, 0.25, [3, 4], 0),
        ("m", "two", "shared", 1, "text shared", None, None, "c", *common, 5, 0.25, [3, 4], 0),
        ("n", "two", "b", 0, "text b", True, None, "c", *common, 1, None, [1, 0], 7),
    ]


def test_activations_of_two_layers_sites_poolings_and_templates_stay_apart(root: Path) -> None:
    put_prompts(root, "one", {"a": True})
    put(root, "models", {**GIVEN, "layer_count": 3})
    variants = [{"layer": 2}, {"site": "y"}, {"pooling": "last"}, {"template": "chat"}, {}]
    put(root, "activations", *({**GIVEN, "prompt_id": "a", **variant} for variant in variants))
    asked = "select layer, site, pooling, template from v_activations"
    found = ask(root, asked)
    assert len(found) == len(set(found)) == 5


def test_activations_of_a_prompt_or_model_that_is_unknown_are_left_out(root: Path) -> None:
    put_prompts(root, "one", {"a": True})
    put(root, "models", GIVEN)
    put(root, "activations", {**GIVEN, "prompt_id": "a"}, {**GIVEN, "prompt_id": "nowhere"})
    put(root, "activations", {**GIVEN, "model_id": "another revision", "prompt_id": "a"})
    assert ask(root, "select model_id, prompt_id from v_activations") == [("m1", "a")]


# v_projections


def test_a_projection_of_a_prompt_its_axis_was_fitted_on_is_flagged_in_any_set(root: Path) -> None:
    put_overlapping_sets(root)
    axis = {"kind": "native", "method": "mean_diff", "template": "chat"}
    put(root, "axes", {**axis, "axis_id": "fit", "name": "native/m", "prompt_set": "one"})
    put(root, "axes", {**axis, "axis_id": "far", "name": "far/m", "prompt_set": "elsewhere"})
    for axis_id, projection in (("fit", 1.5), ("far", -2.5)):
        row = {**GIVEN, "axis_id": axis_id, "prompt_id": "shared", "projection": projection}
        put(root, "projections", {**row, "layer": 3})
    asked = """
        select axis_id, axis_name, kind, method, model, prompt_set, layer, template, label,
            projection, is_positive, is_in_sample
        from v_projections order by axis_id desc, prompt_set
    """
    fit = ("fit", "native/m", "native", "mean_diff", "m")
    far = ("far", "far/m", "native", "mean_diff", "m")
    assert ask(root, asked) == [
        (*fit, "one", 3, "chat", "unsafe", 1.5, True, True),
        (*fit, "two", 3, "chat", None, 1.5, None, True),
        (*far, "one", 3, "chat", "unsafe", -2.5, True, False),
        (*far, "two", 3, "chat", None, -2.5, None, False),
    ]


# v_auroc


def test_auroc_is_given_for_each_axis_model_and_labelled_set(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": True, "c": False, "d": False, "e": None})
    put_prompts(root, "two", {"a": True, "c": False})
    put_prompts(root, "positives", {"a": True, "b": True})
    put_prompts(root, "unlabelled", {"a": None})
    put_prompts(root, "unseen", {"b": True, "d": False})
    axis = {"name": "name", "kind": "universal", "method": "svd", "prompt_set": "two"}
    put(root, "axes", {**axis, "axis_id": "x"}, {**axis, "axis_id": "y"})
    scores = {
        ("x", "m"): {"a": 3.0, "b": 1.0, "c": 1.0, "d": 0.0, "e": 99.0},
        ("x", "n"): {"a": 0.0, "b": 9.0, "c": 1.0, "d": 2.0, "e": 99.0},
        ("y", "m"): {"a": -1.0, "b": -1.0, "c": 1.0, "d": 1.0, "e": 99.0},
    }
    for (axis_id, model), by_prompt in scores.items():
        row = {"axis_id": axis_id, "model": model, "model_id": f"{model}1", "layer": 2}
        put(
            root,
            "projections",
            *({**row, "prompt_id": name, "projection": p} for name, p in by_prompt.items()),
        )
    asked = """
        select axis_id, model_id, prompt_set, auroc, positive_count, negative_count, is_in_sample
        from v_auroc order by all
    """
    assert ask(root, asked) == [
        ("x", "m1", "one", 0.875, 2, 2, True),
        ("x", "m1", "positives", None, 2, 0, True),
        ("x", "m1", "two", 1.0, 1, 1, True),
        ("x", "m1", "unseen", 1.0, 1, 1, False),
        ("x", "n1", "one", 0.5, 2, 2, True),
        ("x", "n1", "positives", None, 2, 0, True),
        ("x", "n1", "two", 0.0, 1, 1, True),
        ("x", "n1", "unseen", 1.0, 1, 1, False),
        ("y", "m1", "one", 0.0, 2, 2, True),
        ("y", "m1", "positives", None, 2, 0, True),
        ("y", "m1", "two", 0.0, 1, 1, True),
        ("y", "m1", "unseen", 0.0, 1, 1, False),
    ]
    described = "select distinct axis_name, kind, method, layer from v_auroc"
    assert ask(root, described) == [("name", "universal", "svd", 2)]


# v_axis_cosines


def test_cosines_are_of_ordered_pairs_of_different_axes_in_one_space(root: Path) -> None:
    space = {"space_model": "r", "space_model_id": "r1", "layer": 4}
    put(
        root,
        "axes",
        {**space, "axis_id": "a", "kind": "native", "fitted_model": "m", "vector": [1, 0]},
        {**space, "axis_id": "b", "kind": "aligned", "fitted_model": "n", "vector": [-0.6, 0.8]},
        {**space, "axis_id": "other layer", "layer": 5},
        {**space, "axis_id": "other site", "site": "resid_mid"},
        {**space, "axis_id": "other revision", "space_model_id": "r2"},
    )
    asked = """
        select axis_id, other_axis_id, kind, other_kind, model, other_model, space_model, layer,
            round(cosine, 6)
        from v_axis_cosines order by all
    """
    assert ask(root, asked) == [
        ("a", "b", "native", "aligned", "m", "n", "r", 4, -0.6),
        ("b", "a", "aligned", "native", "n", "m", "r", 4, -0.6),
    ]


# v_generation_projections


def put_generation(
    root: Path, generation_id: str, prompt_id: str, projections: list[float]
) -> None:
    """A completion with tokens at layers 1 and 2, projected on the axis at layer 2."""
    common = {"model": "m", "generation_id": generation_id}
    count = len(projections)
    put(root, "generations", {**common, "prompt_id": prompt_id, "token_count": count})
    steps = [(step, layer) for layer in (1, 2) for step in reversed(range(count))]
    put(
        root,
        "generation_tokens",
        *(
            {**common, "step": step, "layer": layer, "token": f"t{step}", "logprob": -step}
            for step, layer in steps
        ),
    )
    scored = [
        {**common, "axis_id": "x", "layer": 2, "step": step, "projection": projection}
        for step, projection in enumerate(projections)
    ]
    put(root, "token_projections", *reversed(scored))


def test_a_completion_is_told_step_by_step_with_a_running_mean(root: Path) -> None:
    put_prompts(root, "one", {"a": True, "b": False})
    put(root, "axes", {"axis_id": "x", "name": "name", "kind": "universal"})
    put_generation(root, "g", "a", [4.0, 0.0, -1.0])
    put_generation(root, "h", "b", [10.0])
    asked = """
        select generation_id, step, prompt_id, layer, token, projection, running_mean, logprob,
            token_count, is_positive, axis_name, kind
        from v_generation_projections order by generation_id, step
    """
    named = ("name", "universal")
    assert ask(root, asked) == [
        ("g", 0, "a", 2, "t0", 4.0, 4.0, 0.0, 3, True, *named),
        ("g", 1, "a", 2, "t1", 0.0, 2.0, -1.0, 3, True, *named),
        ("g", 2, "a", 2, "t2", -1.0, 1.0, -2.0, 3, True, *named),
        ("h", 0, "b", 2, "t0", 10.0, 10.0, 0.0, 1, False, *named),
    ]


def test_a_running_mean_is_not_shaken_by_other_axes_or_overlapping_sets(root: Path) -> None:
    put_overlapping_sets(root)
    put(root, "axes", {"axis_id": "x"}, {"axis_id": "y"})
    put_generation(root, "g", "shared", [2.0, 4.0])
    other = {"model": "m", "axis_id": "y", "generation_id": "g", "layer": 1}
    put(root, "token_projections", {**other, "step": 0, "projection": 100.0})
    asked = """
        select axis_id, prompt_set, step, running_mean, is_positive
        from v_generation_projections order by all
    """
    assert ask(root, asked) == [
        ("x", "one", 0, 2.0, True),
        ("x", "one", 1, 3.0, True),
        ("x", "two", 0, 2.0, None),
        ("x", "two", 1, 3.0, None),
        ("y", "one", 0, 100.0, True),
        ("y", "two", 0, 100.0, None),
    ]


@pytest.mark.parametrize("view", ["v_activations", "v_projections"])
def test_a_prompt_of_no_set_is_in_no_mart(root: Path, view: str) -> None:
    put(root, "models", GIVEN)
    put(root, "axes", {"axis_id": "x"})
    put(root, "activations", {**GIVEN, "prompt_id": "orphan"})
    put(root, "projections", {**GIVEN, "prompt_id": "orphan", "axis_id": "x"})
    assert ask(root, f"from {view}") == []


def test_coverage_counts_what_is_there_and_what_is_missing(root: Path) -> None:
    put_prompts(root, "a", {"p": True, "q": False})
    put_prompts(root, "b", {"q": None, "r": None, "s": None})
    put(root, "models", {"model": "m", "model_id": "id", "layer_count": 2})
    common = {"model": "m", "model_id": "id", "site": "resid_post", "template": "raw"}
    put(
        root,
        "activations",
        *(
            {**common, "prompt_id": prompt_id, "layer": layer, "pooling": "mean"}
            for prompt_id, layer in (("p", 0), ("q", 0), ("q", 1), ("r", 1), ("elsewhere", 0))
        ),
    )
    found = rows(
        connect(root),
        "select prompt_set, layer, prompt_count, row_count, missing_count "
        "from v_coverage order by all",
    )
    assert [tuple(row.values()) for row in found] == [
        ("a", 0, 2, 2, 0),
        ("a", 1, 2, 1, 1),
        ("b", 0, 3, 1, 2),
        ("b", 1, 3, 2, 1),
    ]
