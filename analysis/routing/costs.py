"""What an answer costs, or how good it is: a column of the models, of the answers, or a user's."""

from __future__ import annotations

import re

import numpy as np
import pyarrow.types as kinds
from jaxtyping import Float

from axes.analysis.routing.responses import Answers
from axes.warehouse.connection import Connection, query
from axes.warehouse.errors import CoverageError, QueryError
from axes.warehouse.tables.schemas import TABLES

TOKENS = "tokens"
_MODEL_COLUMNS = tuple(
    field.name
    for field in TABLES["models"].schema
    if kinds.is_integer(field.type) and not field.nullable
)


def read_values(
    connection: Connection, answers: Answers, named: str
) -> Float[np.ndarray, "prompt model"]:
    """The value of every answer.

    `named` is `tokens` (generated ones), a number of the table models such as `parameter_count`, or
    `RELATION:COLUMN`: a table or view of the warehouse, or a CSV, Parquet or JSON file, with the
    columns `model`, COLUMN and, where the value differs between prompts, `prompt_id`. Raises
    `QueryError` for anything else, `CoverageError` where a value is missing or there twice.
    """
    if named == TOKENS:
        return answers.token_count
    relation, _, column = named.rpartition(":")
    if not relation:
        if named not in _MODEL_COLUMNS:
            raise QueryError(
                f"no column {named} to weigh models by: give {TOKENS}, "
                f"{', '.join(_MODEL_COLUMNS)} or FILE:COLUMN"
            )
        table = query(
            connection,
            f"select model, {named}::double as value from models where list_contains(?, model_id)",
            [list(answers.model_ids)],
        )
        return _filled(answers, table.to_pylist(), named)
    place = relation if re.fullmatch(r"\w+", relation) else _quoted(relation, "'")
    found = query(connection, f"select * from {place}")
    for wanted in ("model", column):
        if wanted not in found.column_names:
            raise QueryError(f"{relation} has no column {wanted}: it needs model and {column}")
    value = _quoted(column, '"')
    prompt = "prompt_id" if "prompt_id" in found.column_names else "null"
    table = query(
        connection, f"select model, {prompt} as prompt_id, {value}::double as value from {place}"
    )
    return _filled(answers, table.to_pylist(), named)


def _filled(answers: Answers, found: list[dict], named: str) -> Float[np.ndarray, "prompt model"]:
    values: dict[tuple[str, str | None], float] = {}
    for row in found:
        key = (row["model"], row.get("prompt_id"))
        if key in values:
            raise CoverageError(f"{named} has two values for {' and '.join(filter(None, key))}")
        if row["value"] is not None:
            values[key] = row["value"]
    filled = np.array(
        [
            [
                values.get((model, prompt_id), values.get((model, None), np.nan))
                for model in answers.models
            ]
            for prompt_id in answers.prompt_ids
        ]
    )
    if np.isnan(filled).any():
        row, column = np.argwhere(np.isnan(filled))[0]
        raise CoverageError(
            f"{named} has no value for {answers.models[column]} (prompt {answers.prompt_ids[row]})"
        )
    return filled


def _quoted(name: str, mark: str) -> str:
    return mark + name.replace(mark, 2 * mark) + mark
