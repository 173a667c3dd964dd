"""Positive by any labeler in any set is hidden; what merely shares words with it is not."""

from __future__ import annotations

import json

import duckdb
import pytest

import axes.explore.hiding as hiding
from axes.explore.hiding import Hidden, answer, kind_of, plain, positive_cells, texts_in
from axes.warehouse.connection import Connection, connect, query
from axes.warehouse.storage.layout import init_root
from tests.rows import put

POSITIVE = "how would one do the wrong thing here"
NEGATIVE = "how would one do the right thing here"
ANSWER = "one would do the wrong thing like so"


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Connection:
    root = tmp_path_factory.mktemp("hiding") / "lake"
    init_root(root)
    for prompt_set, text in (("a", POSITIVE), ("b", NEGATIVE)):
        prompt = {"prompt_set": prompt_set, "prompt_id": prompt_set, "text": text, "run_id": "run"}
        put(root, "prompts", prompt)
    label = {"prompt_id": "a", "run_id": "run", "label": "x"}
    put(root, "labels", {**label, "labeler": "dataset", "prompt_set": "a", "is_positive": False})
    put(root, "labels", {**label, "labeler": "judge", "prompt_set": "c", "is_positive": True})
    put(root, "generations", {"generation_id": "g", "prompt_id": "a", "text": ANSWER, "model": "m"})
    refused = {"labeler": "refusals", "generation_id": "h", "is_positive": True, "label": "yes"}
    put(root, "labels", {**refused, "run_id": "run"})
    return connect(root)


@pytest.mark.parametrize(
    "cell", [POSITIVE, ANSWER, POSITIVE[:25], POSITIVE[5:], f"<{POSITIVE}>", f"a\n{ANSWER}"]
)
def test_a_positive_text_whole_or_in_part_is_known(connection: Connection, cell: str) -> None:
    assert positive_cells(connection, [cell, NEGATIVE]) == {cell}


@pytest.mark.parametrize(
    "cell", [NEGATIVE, "wrong thing", "", "how would one", "v_projections" * 3]
)
def test_other_texts_and_short_pieces_are_not(connection: Connection, cell: str) -> None:
    assert positive_cells(connection, [cell]) == set()


@pytest.mark.parametrize(
    "sql",
    [
        "select text from prompts where prompt_set = 'a'",
        "select upper(prompt_set) as p, list(text) as texts from prompts group by all",
        "select {'a': text} as s, left(text, 30) as start from prompts",
        "select 'before ' || text || ' after' as t from prompts",
        "select text from generations",
        "select map([text], [1]) as m from prompts",
    ],
)
def test_an_answer_holds_no_positive_text(connection: Connection, sql: str) -> None:
    hidden = Hidden()
    shown = answer(query(connection, sql), connection, hidden, row_limit=9)
    assert "wrong" not in json.dumps(shown)
    numbers = [cell["hidden"] for row in shown["rows"] for cell in row if isinstance(cell, dict)]
    assert numbers and all("wrong" in str(hidden.get(number)) for number in numbers)


def test_an_answer_has_the_first_rows_and_the_number_of_all(connection: Connection) -> None:
    table = query(connection, "select range as a, 'x' as b from range(700) order by 1")
    assert answer(table, connection, Hidden(), row_limit=2) == {
        "columns": [{"name": "a", "kind": "number"}, {"name": "b", "kind": "text"}],
        "rows": [[0, "x"], [1, "x"]],
        "row_count": 700,
    }


def test_with_too_much_to_compare_every_long_cell_is_taken_for_one(connection, monkeypatch):
    monkeypatch.setattr(hiding, "_MAX_COMPARISONS", 1)
    assert positive_cells(connection, [NEGATIVE, "short"]) == {NEGATIVE}


def test_texts_are_found_in_lists_and_structs() -> None:
    assert list(texts_in([{"a": ["b", 1, None]}, ("c",)])) == ["a", "b", "c"]


def test_the_oldest_texts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiding, "_MAX_TEXTS", 2)
    hidden = Hidden()
    numbers = [hidden.put(text)["hidden"] for text in ("a", "b", "c")]
    assert [hidden.get(number) for number in numbers] == [None, "b", "c"]
    assert len(set(numbers)) == 3
    # A text keeps its number, and counts as new where it is put again.
    assert hidden.put("b") == {"hidden": numbers[1]}
    hidden.put("d")
    assert [hidden.get(number) for number in numbers] == [None, "b", None]


CELLS = [
    ("1", "number", 1),
    ("9007199254740993", "number", "9007199254740993"),
    ("1.5::decimal(5, 2)", "number", 1.5),
    ("sum(2)", "number", 2),
    ("'nan'::double", "number", "nan"),
    ("'-inf'::float", "number", "-inf"),
    ("true", "boolean", True),
    ("null", "text", None),
    ("'a'", "text", "a"),
    ("date '2025-01-02'", "time", "2025-01-02"),
    ("timestamp '2025-01-02 03:04:05'", "time", "2025-01-02T03:04:05"),
    ("['a', null]", "text", "[a, None]"),
    ("{'a': 1, 'b': [2.5]}", "text", "{a: 1, b: [2.5]}"),
    ("range(20)", "text", "[0, 1, 2, 3, … 20 in all]"),
]


@pytest.mark.parametrize(("sql", "kind", "shown"), CELLS)
def test_a_cell_is_json_and_its_column_has_a_kind(sql: str, kind: str, shown: object) -> None:
    table = duckdb.connect().sql(f"select {sql} as a").to_arrow_table()
    value = plain(table.column("a").to_pylist()[0])
    assert json.loads(json.dumps(value, allow_nan=False)) == shown
    if sql != "null":
        assert kind_of(table.schema.field("a").type) == kind


@pytest.mark.parametrize("sql", ["interval 1 day", "'ab'::blob", "uuid()", "time '01:02:03'"])
def test_other_types_are_text(sql: str) -> None:
    table = duckdb.connect().sql(f"select {sql} as a").to_arrow_table()
    assert isinstance(plain(table.column("a").to_pylist()[0]), str)
