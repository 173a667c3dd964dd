"""Axes come back through a map as they should, and controls are what their names say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from axes.analysis.activations import find_space, load_matrix
from axes.analysis.exchange.import_axes import ImportRequest, import_axes
from axes.analysis.steering.controls import pull_back, register_directions
from axes.analysis.study.run import run_study
from axes.warehouse.axes import find_axis
from axes.warehouse.errors import AxisError, PromptError
from tests.rows import ask, opened
from tests.worlds import World, define_study, make_world

COUNTS = {"random": 4, "shuffled_labels": 3, "orthogonal": 2, "covariance": 3}
UNIVERSAL = "universal/greek/2/labelled/benign/lambda-held_out"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(
        tmp_path_factory.mktemp("controls") / "lake",
        widths={"alpha": 24, "gamma": 40},
        labelled={"labelled": 300},
    )
    definition = define_study(("alpha", "gamma"), label="greek")
    run_study(made.root, definition)
    return made


def axis_of(root: Path, axis_id: str) -> np.ndarray:
    return find_axis(opened(root), axis_id).vector


def registered(world: World, *axes: str, **options) -> dict[str, str]:
    """The roles of these axes of alpha and of their controls, by default none."""
    return register_directions(opened(world.root), "alpha", axes, **{"counts": {}, **options})[1]


def ids_of(roles: dict[str, str], role: str) -> list[str]:
    return [axis_id for axis_id, given in roles.items() if given == role]


def test_a_universal_axis_pulled_back_either_way_is_the_models_own_planted_axis(world):
    model_id, roles = register_directions(opened(world.root), "alpha", [UNIVERSAL], counts={})
    assert model_id == "id-alpha"
    assert list(roles.values()) == ["axis", "axis"]
    for axis_id in roles:
        assert axis_of(world.root, axis_id) @ world.planted("alpha") > 0.985
    found = ask(
        world.root,
        "select method, space_model, layer, source_axis_ids, alignment_id is not null as has_map "
        "from axes where kind = 'pulled_back' order by method",
    )
    (universal,) = ask(world.root, "select axis_id from axes where kind = 'universal'")
    for row, method in zip(found, ("pseudo_inverse", "transpose"), strict=True):
        assert (row["method"], row["space_model"], row["layer"]) == (method, "alpha", 2)
        assert row["source_axis_ids"] == [universal["axis_id"]] and row["has_map"]


def test_in_the_reference_a_universal_axis_is_itself(world):
    _, roles = register_directions(opened(world.root), "gamma", [UNIVERSAL], counts={})
    (universal,) = ask(world.root, "select axis_id from axes where kind = 'universal'")
    assert roles == {universal["axis_id"]: "axis"}


def test_the_transpose_moves_the_projection_most_and_the_pseudo_inverse_moves_nothing_else():
    random = np.random.default_rng(0)
    weights = random.standard_normal((30, 10)) * np.logspace(0, -0.3, 10)
    axis = np.eye(10)[3]
    gains, images = {}, {}
    for method in ("transpose", "pseudo_inverse"):
        direction = pull_back(axis, weights, method)
        image = direction / np.linalg.norm(direction) @ weights
        gains[method] = image @ axis
        images[method] = image @ axis / np.linalg.norm(image)
    assert gains["transpose"] == pytest.approx(np.linalg.norm(weights @ axis))
    assert gains["transpose"] > gains["pseudo_inverse"] > 0
    assert images["pseudo_inverse"] == pytest.approx(1.0)
    assert images["transpose"] < 0.99


def test_the_pseudo_inverse_leaves_out_what_the_map_hardly_carries():
    weights = np.diag([1.0, 1.0, 1e-6])
    axis = np.array([1.0, 0.0, 1.0]) / np.sqrt(2)
    direction = pull_back(axis, weights, "pseudo_inverse")
    np.testing.assert_allclose(direction, [1 / np.sqrt(2), 0, 0], atol=1e-12)


def test_controls_are_unit_vectors_of_their_kind_and_the_same_when_made_again(world):
    (native,) = ask(
        world.root,
        "select axis_id from axes where kind = 'native' and fitted_model = 'alpha' and layer = 2",
    )
    roles = registered(world, native["axis_id"], counts=COUNTS, seed=5)
    count = ask(world.root, "select count(*) as n from axes")
    assert registered(world, native["axis_id"], counts=COUNTS, seed=5) == roles
    assert ask(world.root, "select count(*) as n from axes") == count
    assert Counter(roles.values()) == {"axis": 1, **COUNTS}
    own = axis_of(world.root, native["axis_id"])
    controls = {name: axis_of(world.root, name) for name, role in roles.items() if role != "axis"}
    for vector in controls.values():
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-6)
        assert abs(vector @ own) < 0.9
    drawn = np.stack(list(controls.values()))
    assert (np.abs(np.triu(drawn @ drawn.T, 1)) < 0.999).all(), "no two are the same"
    for axis_id in ids_of(roles, "orthogonal"):
        assert abs(controls[axis_id] @ own) < 1e-6
    # Activations of a world lie in 12 of its 24 dimensions, but for a little noise: what is drawn
    # from them lies there too, what is drawn from the sphere does not.
    warehouse = opened(world.root)
    x = load_matrix(warehouse, find_space(warehouse, "alpha").at(2), "labelled").x
    basis = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:12]
    inside = {name: np.linalg.norm(basis @ vector) for name, vector in controls.items()}
    for axis_id in (*ids_of(roles, "shuffled_labels"), *ids_of(roles, "covariance")):
        assert inside[axis_id] > 0.95
    assert all(abs(controls[name] @ own) > 1e-3 for name in ids_of(roles, "covariance"))
    assert all(inside[axis_id] < 0.95 for axis_id in ids_of(roles, "random"))


def test_more_controls_keep_the_first(world):
    def made(count: int) -> list[str]:
        roles = registered(world, "native/alpha/2/labelled", counts={"random": count})
        return ids_of(roles, "random")

    assert made(6)[:2] == made(2)


def test_two_axes_at_a_layer_share_their_random_controls(world):
    roles = registered(world, "native/alpha/2/labelled", UNIVERSAL, counts=COUNTS)
    assert Counter(roles.values()) == {"axis": 3, **COUNTS, "orthogonal": 3 * 2}


def test_an_axis_without_a_map_is_refused(world):
    with pytest.raises(AxisError, match="no alignment of alpha leads to layer 0 of gamma"):
        registered(world, "native/gamma/0/labelled")
    with pytest.raises(AxisError, match="no axis nothing"):
        registered(world, "nothing")


def test_an_imported_axis_takes_its_controls_from_the_prompts_of_the_experiment(world, tmp_path):
    vector = np.random.default_rng(0).standard_normal(24).astype(np.float32)
    np.save(tmp_path / "axis.npy", vector)
    asked = ImportRequest(model="alpha", layer=1, name="brought")
    (axis,) = import_axes(opened(world.root), tmp_path / "axis.npy", asked).axes
    counts = {"shuffled_labels": 1}
    with pytest.raises(PromptError):
        registered(world, axis.name, counts=counts)
    roles = registered(world, axis.name, counts=counts, prompt_set="labelled")
    assert list(roles.values()) == ["axis", "shuffled_labels"] and axis.axis_id in roles
