"""Any Parquet tool reads the warehouse without this code: before and after a compaction."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from axes.warehouse.connection import connect, rows
from axes.warehouse.maintenance.compaction import compact
from axes.warehouse.tables.schemas import TABLES

# Each prints, as JSON, the rows of every table, and the sum of one model's vectors at one layer.
READERS = {
    "pyarrow": """
import pyarrow as pa, pyarrow.compute as pc, pyarrow.dataset as ds
def data(table, partition):
    if partition is None:
        return ds.dataset(f"{root}/{table}")
    hive = ds.partitioning(pa.schema([(partition, pa.string())]), flavor="hive")
    return ds.dataset(f"{root}/{table}", partitioning=hive)
counts = {table: data(table, partition).count_rows() for table, partition in tables.items()}
wanted = (ds.field("model") == "owner/n") & (ds.field("layer") == 1)
vectors = data("activations", "model").to_table(columns=["vector"], filter=wanted).column("vector")
total = pc.sum(pc.list_flatten(vectors).cast("float64")).as_py()
""",
    "polars": """
import polars as pl
def data(table, partition):
    glob = f"{root}/{table}/*/*.parquet" if partition else f"{root}/{table}/*.parquet"
    schema = {partition: pl.String} if partition else None
    return pl.scan_parquet(glob, hive_partitioning=bool(partition), hive_schema=schema)
counts = {
    table: data(table, partition).select(pl.len()).collect().item()
    for table, partition in tables.items()
}
wanted = data("activations", "model").filter(model="owner/n", layer=1).select("vector").collect()
total = wanted["vector"].explode().cast(pl.Float64).sum()
""",
    "duckdb": """
import duckdb
def data(table, partition):
    glob = f"{root}/{table}/*/*.parquet" if partition else f"{root}/{table}/*.parquet"
    types = f", hive_types = {{'{partition}': varchar}}" if partition else ""
    return f"read_parquet('{glob}', hive_partitioning = {bool(partition)}{types})"
def ask(sql):
    return duckdb.connect().execute(sql).fetchall()[0][0]
counts = {t: ask(f"select count(*) from {data(t, partition)}") for t, partition in tables.items()}
total = ask("select sum(list_sum(vector::double[])) from " + data("activations", "model")
    + " where model = 'owner/n' and layer = 1")
""",
}
SCRIPT = """
import json, sys
root, tables = sys.argv[1], json.loads(sys.argv[2])
{read}
assert not {{"warehouse", "axes", "ingest", "analysis"}} & set(sys.modules)
print(json.dumps([counts, total]))
"""


@pytest.fixture(scope="module", params=["as written", "compacted"])
def either(
    request: pytest.FixtureRequest, sound: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if request.param == "as written":
        return sound
    root = shutil.copytree(sound, tmp_path_factory.mktemp("foreign") / "lake")
    assert compact(root)
    return root


@pytest.mark.parametrize("reader", READERS)
def test_a_tool_that_knows_nothing_of_this_code_reads_the_same_rows(either, reader):
    tables = {table.name: table.partition for table in TABLES.values()}
    script = SCRIPT.format(read=READERS[reader])
    done = subprocess.run(
        [sys.executable, "-c", script, str(either), json.dumps(tables)],
        capture_output=True,
        text=True,
        cwd=either.parent,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    counts, total = json.loads(done.stdout)
    connection = connect(either)
    for table in TABLES:
        assert counts[table] == rows(connection, f"select count(*) as n from {table}")[0]["n"]
    asked = (
        "select sum(list_sum(vector::double[])) as s from activations "
        "where model = 'owner/n' and layer = 1"
    )
    assert total == pytest.approx(rows(connection, asked)[0]["s"], abs=1e-9)
    assert counts["activations"] == 120 and counts["alignments"] == 0
