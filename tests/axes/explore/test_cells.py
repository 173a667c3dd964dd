"""Whatever DuckDB answers is JSON that a browser reads, and says the same."""

from __future__ import annotations

import json

import duckdb
import pytest

from axes.explore.hiding import kind_of, plain

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
