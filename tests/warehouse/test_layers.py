"""One layer straight from Parquet is what SQL says of it, wherever its rows lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import axes.warehouse.layers
from axes.warehouse.connection import Connection, connect, rows
from axes.warehouse.errors import QueryError
from axes.warehouse.layers import layer_batches
from tests.rows import put

KEYS = {"model_id": "id", "site": "resid_post", "pooling": "last", "template": "raw"}


def activation(prompt: str, layer: int, value: float, **changed: str) -> dict[str, object]:
    row = {"model": "owner/m", "prompt_id": prompt, "layer": layer, **KEYS, **changed}
    return {**row, "vector": [value, -value]}


def read(connection: Connection, layer: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for ids, block in layer_batches(connection, "owner/m", KEYS, layer):
        assert block.dtype == np.float32
        found |= dict(zip(ids.to_pylist(), block.tolist(), strict=True))
    return found


def asked(connection: Connection, layer: int) -> dict[str, list[float]]:
    conditions = " and ".join(f"{name} = '{value}'" for name, value in KEYS.items())
    found = rows(
        connection,
        f"select prompt_id, vector from activations where model = 'owner/m' and layer = {layer} "
        f"and {conditions}",
    )
    return {row["prompt_id"]: row["vector"] for row in found}


@pytest.fixture
def mixed(root: Path) -> Path:
    """Row groups that hold several layers and keys, as another tool may write them."""
    others = [{"model_id": "x"}, {"site": "mlp_out"}, {"pooling": "mean"}, {"template": "chat"}]
    put(
        root,
        "activations",
        *(activation(f"p{number}", number % 3, number) for number in range(30)),
        *(activation("p0", 1, 99.0, **changed) for changed in others),
        {**activation("p0", 1, 99.0), "model": "other"},
    )
    return root


@pytest.mark.parametrize("memory_limit", [None, 512_000_000])
@pytest.mark.parametrize("layer", [0, 1, 2, 7])
def test_the_rows_are_those_of_sql(mixed: Path, layer: int, memory_limit: int | None) -> None:
    connection = connect(mixed, memory_limit=memory_limit)
    found = read(connection, layer)
    assert found == asked(connection, layer)
    assert len(found) == (0 if layer == 7 else 10)


def test_files_that_came_after_the_connection_are_read(mixed: Path) -> None:
    connection = connect(mixed)
    put(mixed, "activations", activation("late", 1, 5.0))
    assert read(connection, 1)["late"] == [5.0, -5.0]


def test_files_without_the_layer_are_not_opened(mixed: Path) -> None:
    put(mixed, "activations", activation("p1", 9, 1.0))
    connection = connect(mixed)
    (path,) = [
        path
        for path in (mixed / "activations" / "model=owner%2Fm").glob("*.parquet")
        if path.stat().st_size
        == min(other.stat().st_size for other in path.parent.glob("*.parquet"))
    ]
    path.write_bytes(b"x" * path.stat().st_size)
    assert len(read(connection, 1)) == 10


def test_a_broken_file_is_one_line(mixed: Path) -> None:
    connection = connect(mixed)
    for path in (mixed / "activations" / "model=owner%2Fm").glob("*.parquet"):
        path.write_bytes(b"no parquet" * 100)
    with pytest.raises(QueryError, match="run `axes warehouse check`") as caught:
        read(connection, 1)
    assert "\n" not in str(caught.value)


def test_a_file_that_went_between_listing_and_reading_is_said_as_such(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a compaction: whoever reads can list again."""
    listed = axes.warehouse.layers._files

    def then_gone(*arguments: Any) -> list[Path]:
        paths = listed(*arguments)
        for path in paths:
            path.unlink()
        return paths

    monkeypatch.setattr(axes.warehouse.layers, "_files", then_gone)
    with pytest.raises(FileNotFoundError):
        read(connect(mixed), 1)
