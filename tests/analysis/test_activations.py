from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import axes.analysis.activations
from axes.analysis.activations import (
    count_prompts,
    find_space,
    is_covered,
    load_layers,
    load_matrix,
    read_together,
    require_classes,
)
from axes.warehouse.errors import (
    CoverageError,
    LabelError,
    LayerError,
    ModelError,
    PromptError,
    QueryError,
)
from axes.warehouse.handle import Warehouse
from tests.rows import put
from tests.worlds import make_world, write_activations, write_model, write_prompt_set


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    folder = tmp_path_factory.mktemp("world") / "lake"
    make_world(folder, widths={"small": 8, "large": 11}, benign_count=30, labelled={"marked": 10})
    return Warehouse.open(folder)


@pytest.fixture
def other(tmp_path: Path) -> Warehouse:
    """Another world, to be changed."""
    folder = tmp_path / "lake"
    make_world(folder, widths={"small": 4}, benign_count=10, labelled={"marked": 5})
    return Warehouse.open(folder)


def test_rows_come_in_the_order_of_the_set_with_their_labels(warehouse):
    matrix = load_matrix(warehouse, find_space(warehouse, "small").at(1), "marked")
    assert matrix.prompt_ids == tuple(f"marked-{row:05d}" for row in range(20))
    assert matrix.x.shape == (20, 8) and matrix.x.dtype == np.float32
    assert matrix.labels.tolist() == [True, False] * 10
    assert matrix.groups.tolist() == sorted(matrix.groups.tolist())
    assert len(set(matrix.groups)) == 10
    assert matrix.missing_count == 0


def test_the_stored_query_brings_the_same_rows(warehouse):
    matrix = load_matrix(warehouse, find_space(warehouse, "large").at(2), "marked")
    again = warehouse.query(matrix.query).to_pylist()
    assert [row["prompt_id"] for row in again] == list(matrix.prompt_ids)
    np.testing.assert_array_equal(np.array([row["vector"] for row in again]), matrix.x)


def test_layers_and_sets_read_together_are_those_read_alone(warehouse, monkeypatch):
    space, names = find_space(warehouse, "small"), ("marked", "benign")
    layers = {name: list(load_layers(warehouse, space, [2, 0], name)) for name in names}
    alone = {name: load_matrix(warehouse, space.at(0), name) for name in names}
    expected = {name: matrix.x for name, matrix in alone.items()}
    reads, read = [], axes.analysis.activations.layer_batches
    monkeypatch.setattr(
        axes.analysis.activations,
        "layer_batches",
        lambda *of, **options: reads.append(of) or read(*of, **options),
    )
    together = read_together(
        warehouse, space.at(0), {name: matrices[1] for name, matrices in layers.items()}
    )
    for name, matrix in together.items():
        np.testing.assert_array_equal(matrix.x, expected[name])
        assert matrix.row_set_hash == alone[name].row_set_hash
        assert matrix.query == alone[name].query
    assert len(reads) == 1


def test_a_layer_that_is_missing_a_prompt_is_not_taken_for_the_others(other):
    write_prompt_set(other.root, "partial", 4, np.arange(4) % 2 == 0)
    for layer, count in ((0, 4), (1, 3)):
        rows = np.full((count, 4), layer, dtype=np.float32)
        write_activations(other.root, "small", layer, "partial", rows)
    space = find_space(other, "small")
    with pytest.raises(CoverageError, match="3 of the 4 prompts"):
        list(load_layers(other, space, [0, 1], "partial"))
    taken = load_layers(other, space, [0, 1], "partial", allow_missing=True)
    assert [(len(matrix.prompt_ids), matrix.x.max()) for matrix in taken] == [(4, 0), (3, 1)]


def test_a_limit_takes_the_first_rows(warehouse):
    space = find_space(warehouse, "small")
    matrix = load_matrix(warehouse, space, "benign", limit=7)
    assert matrix.prompt_ids == tuple(f"benign-{row:05d}" for row in range(7))
    assert matrix.is_positive is None
    assert count_prompts(warehouse, "benign", 7) == 7
    assert count_prompts(warehouse, "benign", 1000) == 30


def test_taking_rows_keeps_everything_aligned(warehouse):
    matrix = load_matrix(warehouse, find_space(warehouse, "small"), "marked")
    part = matrix.take(np.array([3, 0]))
    assert part.prompt_ids == (matrix.prompt_ids[3], matrix.prompt_ids[0])
    np.testing.assert_array_equal(part.x, matrix.x[[3, 0]])
    np.testing.assert_array_equal(part.labels, matrix.labels[[3, 0]])


def test_the_row_set_hash_knows_order_and_labels(warehouse):
    space = find_space(warehouse, "small")
    matrix = load_matrix(warehouse, space, "marked")
    assert matrix.row_set_hash == load_matrix(warehouse, space.at(2), "marked").row_set_hash
    assert matrix.row_set_hash != matrix.take(np.arange(20)[::-1]).row_set_hash


def test_a_layer_fraction_is_rounded_and_a_layer_out_of_range_named(warehouse):
    space = find_space(warehouse, "small")
    assert [space.at_fraction(part).layer for part in (0.0, 0.8, 1.0)] == [0, 2, 2]
    with pytest.raises(LayerError, match=r"layer 3 of small does not exist: it has 3 \(0 to 2\)"):
        space.at(3)


def test_an_unknown_model_or_set_is_named_with_what_to_do(warehouse):
    with pytest.raises(ModelError, match="no activations of absent .*axes ingest activations"):
        find_space(warehouse, "absent")
    with pytest.raises(PromptError, match="no prompt set absent .*axes prompts import absent"):
        load_matrix(warehouse, find_space(warehouse, "small"), "absent")


@pytest.mark.parametrize("allow_missing", [False, True])
def test_a_broken_file_is_named_and_not_taken_for_missing_rows(other, allow_missing):
    files = (other.root / "activations" / "model=small").glob("*.parquet")
    file = max(files, key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:200])
    broken, space = Warehouse.open(other.root), find_space(other, "small")
    with pytest.raises(QueryError, match=file.name):
        for name in ("marked", "benign"):
            load_matrix(broken, space.at(1), name, allow_missing=allow_missing)


def test_missing_rows_are_refused_or_counted(other):
    write_prompt_set(other.root, "marked", 14, np.arange(14) % 2 == 0)
    space = find_space(other, "small")
    with pytest.raises(CoverageError, match="10 of the 14 prompts of marked at layer 0"):
        load_matrix(other, space, "marked")
    matrix = load_matrix(other, space, "marked", allow_missing=True)
    assert (len(matrix.x), matrix.missing_count) == (10, 4)
    for model, count, template, expected in (
        ("small", None, "raw", False),
        ("small", 10, "raw", True),
        ("small", 10, "chat", False),
        ("absent", 10, "raw", False),
    ):
        key = ("resid_post", "last5_mean", template)
        assert is_covered(other, model, {"marked": count}, *key) == expected


def test_nothing_at_all_is_refused_even_where_missing_rows_are_allowed(warehouse):
    space = find_space(warehouse, "small", template="chat")
    with pytest.raises(CoverageError, match="0 of the 20"):
        load_matrix(warehouse, space, "marked", allow_missing=True)


def test_one_class_and_no_labels_are_refused(other):
    write_prompt_set(other.root, "marked", 10, np.ones(10, dtype=bool))
    space = find_space(other, "small")
    with pytest.raises(LabelError, match="all 10 labels of marked are positive"):
        require_classes(load_matrix(other, space, "marked"), "marked")
    with pytest.raises(LabelError, match="benign has no labels"):
        require_classes(load_matrix(other, space, "benign"), "benign")


def test_two_versions_of_a_model_have_to_be_told_apart(other):
    put(other.root, "models", {"model": "small", "model_id": "id-other"})
    with pytest.raises(ModelError, match="2 versions of small .*small@id-other.*small@id-small"):
        find_space(other, "small")
    assert find_space(other, "small@id-s").model_id == "id-small"


def test_a_compaction_between_listing_and_reading_is_read_again(warehouse, monkeypatch):
    real, calls = axes.analysis.activations.layer_batches, []

    def once_gone(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 1:
            raise FileNotFoundError("compacted")
        return real(*arguments, **options)

    write_prompt_set(warehouse.root, "marked", 10, np.arange(10) % 2 == 0)
    write_model(warehouse.root, "small", 8, 1)
    rows = np.random.default_rng(0).standard_normal((10, 8)).astype(np.float32)
    write_activations(warehouse.root, "small", 0, "marked", rows)
    monkeypatch.setattr(axes.analysis.activations, "layer_batches", once_gone)
    matrix = load_matrix(warehouse, find_space(warehouse, "small"), "marked")
    np.testing.assert_array_equal(matrix.x, rows)
    assert len(calls) == 2


def test_a_pooling_of_a_file_is_found_by_its_name(root):
    put(root, "models", {"model": "m", "model_id": "i"})
    place = {"model": "m", "model_id": "i", "vector": [1.0]}
    put(root, "activations", {**place, "pooling": "mine@1"})
    warehouse = Warehouse.open(root)
    assert find_space(warehouse, "m", pooling="mine").pooling == "mine@1"
    assert find_space(warehouse, "m", pooling="mean").pooling == "mean"
    put(root, "activations", {**place, "pooling": "mine@2"})
    with pytest.raises(ModelError, match="2 poolings mine are stored: mine@"):
        find_space(Warehouse.open(root), "m", pooling="mine")
