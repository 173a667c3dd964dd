"""The one list of columns is complete: keys, comments, partitions, types that readers know."""

from __future__ import annotations

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from axes.warehouse.tables.columns import VECTOR
from axes.warehouse.tables.schemas import TABLES

# What only some alignments have, in the order of their columns.
OF_SOME_ALIGNMENTS = [
    "hidden_weights",
    "hidden_intercept",
    "hidden_output",
    "hidden_rates",
    "r2_dimensions",
]

# The optional key columns: a label is for a prompt or for a completion; a figure may be of a group,
# or of no step.
# A long trace may keep projections only.
OPTIONAL_VECTORS = {
    ("generation_tokens", "vector"),
    *(("alignments", name) for name in OF_SOME_ALIGNMENTS),
}

OPTIONAL_KEYS = {
    ("labels", "prompt_set"),
    ("labels", "prompt_id"),
    ("labels", "generation_id"),
    ("evaluations", "model"),
    ("evaluations", "prompt_set"),
    ("evaluations", "component"),
    ("interventions", "strength"),
    ("interventions", "is_positive"),
    ("evaluations", "layer"),
    ("evaluations", "fitted_on"),
    ("evaluations", "judged_on"),
    ("variations", "prompt_set"),
    ("drift_figures", "step"),
}

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


@every_table
def test_columns_are_named_once_and_commented_and_those_of_the_key_are_filled(table):
    assert TABLES[table.name] is table
    assert len(set(table.schema.names)) == len(table.schema)
    for field in table.schema:
        assert field.metadata[b"comment"].strip(), field.name
    assert table.key
    for name in table.key:
        nullable = table.schema.field(name).nullable
        assert nullable == ((table.name, name) in OPTIONAL_KEYS), name
    run_id = table.schema.field("run_id")
    assert run_id.type == pa.string() and not run_id.nullable
    names = [name for name in table.schema.names if name != table.partition]
    assert table.file_schema.names == names
    if table.partition is not None:
        partition = table.schema.field(table.partition)
        assert partition.type == pa.string() and not partition.nullable


@every_table
def test_types_are_known_to_duckdb_and_polars_and_vectors_are_float32_without_nulls(table):
    empty = table.schema.empty_table()
    assert duckdb.sql("from empty").columns == table.schema.names
    assert pl.DataFrame(empty).columns == table.schema.names
    lists = [field for field in table.schema if pa.types.is_list(field.type)]
    of_numbers = [field for field in lists if pa.types.is_floating(field.type.value_type)]
    assert table.vector_columns == [field.name for field in of_numbers]
    for field in of_numbers:
        assert field.type.value_type == pa.float32()
        assert field.nullable == ((table.name, field.name) in OPTIONAL_VECTORS)
        assert not field.type.value_field.nullable


def test_the_tables_with_vectors_are_these() -> None:
    found = {name: table.vector_columns for name, table in TABLES.items()}
    assert {name: columns for name, columns in found.items() if columns} == {
        "activations": ["vector"],
        "prompt_tokens": ["vector"],
        "generation_tokens": ["vector"],
        "alignments": ["weights", "intercept", *OF_SOME_ALIGNMENTS],
        "axes": ["vector"],
    }
    assert TABLES["axes"].schema.field("vector").type == VECTOR
