"""The one list of columns is complete: keys, comments, partitions, types that readers know."""

from __future__ import annotations

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from axes.warehouse.tables.columns import VECTOR, Table
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


def test_the_tables_are_those_of_the_design() -> None:
    assert list(TABLES) == [
        "prompts",
        "labels",
        "models",
        "runs",
        "activations",
        "prompt_tokens",
        "generations",
        "generation_tokens",
        "alignments",
        "axes",
        "projections",
        "token_projections",
        "evaluations",
        "steps",
        "variations",
        "calibrations",
        "diagnostics",
        "intervention_outcomes",
        "interventions",
        "trajectories",
        "drift_figures",
        "scored_answers",
        "answer_calibrations",
        "routings",
        "routing_evaluations",
        "comparisons",
    ]


@every_table
def test_a_table_is_filed_under_its_own_name(table: Table) -> None:
    assert TABLES[table.name] is table


@every_table
def test_every_column_has_a_comment_and_a_name_of_its_own(table: Table) -> None:
    assert len(set(table.schema.names)) == len(table.schema)
    for field in table.schema:
        assert field.metadata[b"comment"].strip(), field.name


@every_table
def test_keys_are_columns_that_are_always_filled(table: Table) -> None:
    assert table.key
    for name in table.key:
        nullable = table.schema.field(name).nullable
        assert nullable == ((table.name, name) in OPTIONAL_KEYS), name


@every_table
def test_every_row_can_be_traced_to_its_run(table: Table) -> None:
    field = table.schema.field("run_id")
    assert field.type == pa.string()
    assert not field.nullable


@every_table
def test_the_partition_is_a_filled_text_column_that_the_files_leave_out(table: Table) -> None:
    if table.partition is None:
        assert table.file_schema == table.schema
        return
    field = table.schema.field(table.partition)
    assert field.type == pa.string()
    assert not field.nullable
    assert table.file_schema.names == [name for name in table.schema.names if name != field.name]


@every_table
def test_vectors_are_float32_lists_without_nulls_and_all_found(table: Table) -> None:
    lists = [field for field in table.schema if pa.types.is_list(field.type)]
    of_numbers = [field.name for field in lists if pa.types.is_floating(field.type.value_type)]
    assert table.vector_columns == of_numbers
    for name in of_numbers:
        field = table.schema.field(name)
        assert field.type.value_type == pa.float32()
        assert field.nullable == ((table.name, name) in OPTIONAL_VECTORS)
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


@every_table
def test_duckdb_and_polars_know_every_type(table: Table) -> None:
    empty = table.schema.empty_table()
    assert duckdb.sql("from empty").columns == table.schema.names
    assert pl.DataFrame(empty).columns == table.schema.names
