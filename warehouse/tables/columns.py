"""What a table is, and the short syntax in which tables are written.

    model model_id                     columns that many tables share, by name (SHARED below)
    norm       float32     its Euclidean norm
    revision   text?       hub commit, where there is one; `?` is a column that may be null
    weights    vector      a comment that does not fit on the line
                           goes on below it

The comments become `comment on column` in DuckDB and the rows of `docs/tables.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False))


TEXT = pa.string()
TIME = pa.timestamp("us", tz="UTC")
VECTOR = _list(pa.float32())
STRINGS = _list(TEXT)
SKIPPED = _list(pa.struct([pa.field("prompt_id", TEXT), pa.field("reason", TEXT)]))
TOP_TOKENS = _list(pa.struct([pa.field("token_id", pa.int32()), pa.field("logprob", pa.float32())]))

_TYPES = {
    "bool": pa.bool_(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "text": TEXT,
    "texts": STRINGS,
    "time": TIME,
    "vector": VECTOR,
    "skipped": SKIPPED,
    "top_tokens": TOP_TOKENS,
}
_SQL_TYPES = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    TEXT: "varchar",
    STRINGS: "varchar[]",
    TIME: "timestamptz",
    VECTOR: "float[]",
    SKIPPED: "struct(prompt_id varchar, reason varchar)[]",
    TOP_TOKENS: "struct(token_id integer, logprob float)[]",
}
_COLUMN = re.compile(rf"(\w+) +({'|'.join(_TYPES)})(\??) +(.+)")


@dataclass(frozen=True)
class Table:
    """One data set: `grain` completes the sentence "one row per ...", `key` is unique.

    `also_unique` is one more set of columns that no two rows share; `references` names tables, and
    the columns that lead to a row of them (or are null).
    """

    name: str
    grain: str
    key: tuple[str, ...]
    schema: pa.Schema
    partition: str | None = None
    also_unique: tuple[str, ...] = ()
    references: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_schema(self) -> pa.Schema:
        """The columns inside the files: all but the partition, which is in the path."""
        return pa.schema([field for field in self.schema if field.name != self.partition])

    @property
    def comments(self) -> list[str]:
        """What each column holds, in order."""
        return [field.metadata[b"comment"].decode() for field in self.schema]

    @property
    def vector_columns(self) -> list[str]:
        return [field.name for field in self.schema if field.type == VECTOR]

    @property
    def empty_table(self) -> str:
        """SQL of a table without rows, which views can be made on before there are files."""
        columns = (f"{field.name} {_SQL_TYPES[field.type]}" for field in self.schema)
        return f"create table stg_{self.name} ({', '.join(columns)})"

    def staging_view(self, root: str) -> str:
        """SQL of the view over the table's files; `root` is a glob pattern inside SQL quotes.

        The partition is text whatever its values look like. Hidden files, as rsync and notebooks
        leave them, are not read.
        """
        files, hive = "[!.]*.parquet", "hive_partitioning = false"
        if self.partition is not None:
            files = f"{self.partition}=*/[!.]*.parquet"
            hive = f"hive_partitioning = true, hive_types = {{'{self.partition}': varchar}}"
        return (
            f"create view stg_{self.name} as select {', '.join(self.schema.names)} "
            f"from read_parquet('{root}/{self.name}/{files}', {hive})"
        )

    def checks(self) -> dict[str, str]:
        """Name -> SQL that lists the rows which break the rule, under a comment on it."""
        checks = {f"{self.name}_unique_key": self._unique_key_check()}
        for other, names in self.references.items():
            columns = names.split()
            checks[f"{self.name}_known_{columns[0].removesuffix('_id')}"] = (
                f"-- Rows of {self.name} whose {' and '.join(columns)} are not in {other}.\n"
                f"select {', '.join(columns)}, count(*) as row_count\n"
                f"from stg_{self.name}\n"
                f"anti join stg_{other} using ({', '.join(columns)})\n"
                f"where {columns[0]} is not null\n"
                "group by all"
            )
        return checks

    def _unique_key_check(self) -> str:
        keys = [key for key in (self.key, self.also_unique) if key]
        names = " or ".join(", ".join(key) for key in keys)
        return f"-- Rows of {self.name} that share {names}.\n" + "\nunion all by name\n".join(
            f"select {', '.join(key)}, count(*) as copies\n"
            f"from stg_{self.name}\n"
            "group by all\n"
            "having count(*) > 1"
            for key in keys
        )


def table(
    name: str,
    grain: str,
    key: str,
    columns: str,
    *,
    partition: str | None = None,
    also_unique: str = "",
    references: Mapping[str, str] | None = None,
) -> Table:
    """A table from its columns in the syntax above; `key` and `also_unique` are names."""
    schema = pa.schema(_fields(columns))
    unique = tuple(also_unique.split())
    return Table(name, grain, tuple(key.split()), schema, partition, unique, references or {})


def _fields(columns: str) -> list[pa.Field]:
    fields: list[pa.Field] = []
    for line in _joined_lines(columns):
        if match := _COLUMN.fullmatch(line):
            name, kind, null, comment = match.groups()
            metadata = {"comment": comment}
            fields.append(pa.field(name, _TYPES[kind], nullable=bool(null), metadata=metadata))
        else:
            fields += [SHARED[name] for name in line.split()]
    return fields


def _joined_lines(text: str) -> list[str]:
    """The lines, each with those that are indented deeper than the first and so belong to it."""
    lines: list[str] = []
    rows = [line for line in text.splitlines() if line.strip()]
    margin = len(rows[0]) - len(rows[0].lstrip())
    for line in rows:
        if line[margin].isspace():
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.strip())
    return lines


# Defined last: reading it needs the functions above.
SHARED = {
    field.name: field
    for field in _fields(
        """
        run_id         text      the job that wrote the row (runs.run_id)
        model          text      the model's name, as passed to the command
        model_id       text      the exact model: weights, tokenizer, numerics (models.model_id)
        prompt_id      text      hash of the normalised text (prompts.prompt_id)
        layer          int16     zero-based block index
        site           text      where in the block: resid_post (its output), resid_pre, attn_out,
                                 mlp_out; router: gate logits, one number for each expert
        pooling        text      how positions become one vector: last5_mean, ...
        template       text      how the prompt was rendered: raw, chat, or such as
                                 chat+system:HASH+enable_thinking=false
        rendered_hash  text      hash of the rendered text, template and all
        generation_id  text      the completion (generations.generation_id)
        scoring_id     text      hash of axis, completions, outcomes, split and calibration method
        drift_id       text      hash of the model, the axis, every completion in it, and settings
        estimate       float64   the value
        lower          float64?  lower end of the 95 % interval
        upper          float64?  upper end of the 95 % interval
        layers         text      comma list of the changed blocks; empty: none
        mode           text      add, ablate or clamp; none: the unsteered model
        alignment_id   text?     the map applied first; null for a native axis
        step           int32     0 is the first completion token, -1 the last of the prompt
        token_id       int32     the token's number in the vocabulary
        """
    )
}
