"""What a column and a table are, and the columns that many tables share.

The comments kept here become `comment on column` in DuckDB and the rows of `docs/tables.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

TEXT = pa.string()
TIME = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.field("element", pa.float32(), nullable=False))
STRINGS = pa.list_(pa.field("element", pa.string(), nullable=False))
SKIPPED = pa.list_(
    pa.field(
        "element",
        pa.struct([pa.field("prompt_id", TEXT), pa.field("reason", TEXT)]),
        nullable=False,
    )
)
TOP_TOKENS = pa.list_(
    pa.field(
        "element",
        pa.struct([pa.field("token_id", pa.int32()), pa.field("logprob", pa.float32())]),
        nullable=False,
    )
)


@dataclass(frozen=True)
class Table:
    """One data set: `grain` completes the sentence "one row per ...", `key` is unique."""

    name: str
    grain: str
    key: tuple[str, ...]
    schema: pa.Schema
    partition: str | None = None

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


def column(name: str, kind: pa.DataType, comment: str, *, nullable: bool = False) -> pa.Field:
    """A column with what it holds in words."""
    return pa.field(name, kind, nullable=nullable, metadata={"comment": comment})


def optional(name: str, kind: pa.DataType, comment: str) -> pa.Field:
    """A column that may be null."""
    return column(name, kind, comment, nullable=True)


RUN = column("run_id", TEXT, "the job that wrote the row (runs.run_id)")
MODEL = column("model", TEXT, "the model's name, as given to the command")
MODEL_ID = column(
    "model_id", TEXT, "the exact model: weights, tokenizer, numerics (models.model_id)"
)
PROMPT_ID = column("prompt_id", TEXT, "hash of the normalised text (prompts.prompt_id)")
LAYER = column("layer", pa.int16(), "zero-based block index")
SITE = column(
    "site", TEXT, "where in the block: resid_post (its output), resid_pre, attn_out, mlp_out"
)
POOLING = column("pooling", TEXT, "how positions became one vector: last5_mean, ...")
TEMPLATE = column("template", TEXT, "how the prompt was rendered: raw, chat, or chat+system:HASH")
RENDERED_HASH = column("rendered_hash", TEXT, "hash of the rendered text, template and all")
