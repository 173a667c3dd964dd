"""The index of keys says what the activation files hold, whoever wrote or removed them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.storage.layout import partition_folder
from axes.warehouse.tables.index import INDEX, refresh_index
from axes.warehouse.tables.schemas import TABLES
from tests.rows import put, put_prompts

STORED = "select model, model_id, prompt_id, site, pooling, template, layers from v_stored"
BY_OPENING = """
select model, model_id, prompt_id, site, pooling, template, list(layer order by layer) as layers
from activations group by all
"""


def keys(model: str, prompt_id: str, *layers: int, **columns: str) -> list[dict]:
    common = {"model": model, "model_id": f"id-{model}", "prompt_id": prompt_id, **columns}
    return [{**common, "layer": layer, "token_count": len(prompt_id)} for layer in layers]


def stored(root: Path, sql: str = STORED) -> list[dict]:
    return rows(connect(root), f"{sql} order by all")


def files(root: Path, model: str) -> list[Path]:
    return sorted(partition_folder(root, TABLES["activations"], model).glob("*.parquet"))


@pytest.fixture
def filled(root: Path) -> Path:
    put(root, "activations", *keys("a", "p", 0, 1, 2), *keys("a", "q", 0, 1, 2))
    put(root, "activations", *keys("a", "p", 1, pooling="last"), *keys("owner/b", "p", 5))
    return root


def test_it_holds_the_keys_of_all_files(filled: Path) -> None:
    found = stored(filled)
    assert len(found) == 4
    assert found == stored(filled, BY_OPENING)


def test_an_open_connection_sees_what_a_writer_adds(filled: Path) -> None:
    connection = connect(filled)
    put(filled, "activations", *keys("a", "new", 0))
    assert rows(connection, "select prompt_id from v_stored where prompt_id = 'new'")


def test_files_that_another_tool_brings_or_takes_are_noticed_when_the_root_is_opened(filled):
    source, removed = files(filled, "a")
    target = partition_folder(filled, TABLES["activations"], "c")
    target.mkdir()
    shutil.copy(source, target / "other.parquet")
    removed.unlink()
    shutil.rmtree(files(filled, "owner/b")[0].parent)
    found = stored(filled)
    assert {row["model"] for row in found} == {"a", "c"}
    assert found == stored(filled, BY_OPENING)


def test_a_file_replaced_by_another_of_its_name_is_read_again(filled: Path) -> None:
    shutil.copy(files(filled, "owner/b")[0], files(filled, "a")[0])
    assert stored(filled) == stored(filled, BY_OPENING)


def test_a_lost_or_torn_index_is_made_again_byte_for_byte(filled: Path) -> None:
    connect(filled)
    before = {path: path.read_bytes() for path in (filled / INDEX).rglob("*.parquet")}
    first, *others = before
    first.write_bytes(b"PAR1")
    for path in others:
        path.unlink()
    connect(filled)
    assert {path: path.read_bytes() for path in (filled / INDEX).rglob("*.parquet")} == before


def test_counting_opens_no_vector_file(filled: Path) -> None:
    put_prompts(filled, "set", {"p": True, "q": False, "r": None})
    put(filled, "models", {"model_id": "id-a", "model": "a", "layer_count": 3})
    before = stored(filled), rows(connect(filled), "from v_coverage order by all")
    for path in [*files(filled, "a"), *files(filled, "owner/b")]:
        path.write_bytes(bytes(path.stat().st_size))
    assert (stored(filled), rows(connect(filled), "from v_coverage order by all")) == before
    assert len(before[1]) == 6


def test_a_file_that_cannot_be_read_keeps_nobody_from_opening_the_root(filled: Path) -> None:
    before = stored(filled)
    (files(filled, "a")[0].parent / "damaged.parquet").write_bytes(b"PAR1 damaged")
    assert stored(filled) == before


def test_where_the_disk_refuses_the_index_the_files_are_opened(filled: Path) -> None:
    before = stored(filled)
    shutil.rmtree(filled / INDEX)
    (filled / INDEX).write_text("in the way: as good as a disk that refuses")
    assert not refresh_index(filled)
    assert stored(filled) == before
