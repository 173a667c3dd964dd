"""Read activations as matrices: rows in a fixed order, an error where rows are missing.

Every analysis reads its activations here, so that the order and the count of rows are the same
everywhere. Matrices are processed in blocks of a few megabytes: a matrix of a few thousand rows is
one block, and one that lies on disk (`axes.warehouse.layers`) is never in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from axes.analysis.token_rows import (
    TokenRows,
    find_rows,
    text_array,
    token_layers,
    token_prompts,
)
from axes.warehouse.axes import Space
from axes.warehouse.connection import is_imported
from axes.warehouse.errors import (
    CoverageError,
    LabelError,
    ModelError,
    PromptError,
    QueryError,
)
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import (
    Rows,
    StoredRows,
    TokenPooling,
    allocate,
    layer_batches,
    stored_layers,
)
from axes.warehouse.names import RESID_POST, ROUTER, did_you_mean, sql_literal
from axes.warehouse.writer import content_key

_DESCRIPTION = "prompt_id, pair_id, text, is_positive"


@dataclass(frozen=True)
class Matrix:
    """Activations of a prompt set in the set's order, and what the rows are.

    `x` is `[row, d_model]`, in memory or, where that would be too much, on disk: go through it with
    `blocks`. It is read on first use, since many callers need only the ids and labels.
    `is_positive` is None where the set has no labels; `groups` numbers rows that belong together
    (a matched pair, else the row itself); `missing_count` rows of the set are not in the warehouse.
    """

    read: Callable[[], Rows]
    ids: pa.StringArray
    texts: pa.StringArray
    is_positive: Bool[np.ndarray, " row"] | None
    groups: Int[np.ndarray, " row"]
    missing_count: int
    query: str

    @cached_property
    def x(self) -> Rows:
        return self.read()

    @cached_property
    def prompt_ids(self) -> tuple[str, ...]:
        """The ids as Python strings, on first use: they take four times the memory."""
        return tuple(self.ids.to_pylist())

    @cached_property
    def row_set_hash(self) -> str:
        """Hash of the prompt ids in order, with their labels."""
        labels = [] if self.is_positive is None else self.is_positive.tolist()
        return content_key(self.prompt_ids, labels)

    @cached_property
    def grouped_hash(self) -> str:
        """The same, with which rows belong together."""
        return content_key(self.row_set_hash, self.groups.tolist())

    @property
    def labels(self) -> Bool[np.ndarray, " row"]:
        if self.is_positive is None:
            raise LabelError("these prompts have no labels")
        return self.is_positive

    def take(self, index: np.ndarray) -> Matrix:
        """The rows of `index`, in its order."""
        return replace(
            self,
            read=partial(take, self.x, index),
            ids=self.ids.take(pa.array(index)),
            texts=self.texts.take(pa.array(index)),
            is_positive=None if self.is_positive is None else self.is_positive[index],
            groups=self.groups[index],
        )


def find_space(
    warehouse: Warehouse,
    model: str,
    *,
    site: str = RESID_POST,
    pooling: str = "last5_mean",
    template: str = "raw",
) -> Space:
    """The space of a model at layer 0; `model` is a name, or NAME@ID where versions differ.

    `pooling` is a name, or NAME@HASH where several of a user's files have it.

    Raises `ModelError` where nothing, or more than one version, was ingested under the name, and
    for the site `router`.
    """
    if site == ROUTER:
        raise ModelError(f"{ROUTER} rows are gate logits, in no space of axes: read them with SQL")
    name, _, prefix = model.partition("@")
    of_tokens = TokenPooling.find(pooling)
    pooling = pooling if of_tokens is None else of_tokens.name
    found = warehouse.query(
        """
        select
            model_id, d_model, layer_count, concat_ws(', ', dtype, attention, source) as version
        from models
        where model = ? and starts_with(model_id, ?)
        order by model_id
        """,
        [name, prefix],
    ).to_pylist()
    if not found:
        stored = warehouse.column("select distinct model from models")
        raise ModelError(
            f"no activations of {model}{did_you_mean(name, stored)} "
            f"(stored: {', '.join(stored) or 'none'}): "
            f"run `axes ingest activations {name} --prompts SET` first"
        )
    if len(found) > 1:
        versions = "; ".join(f"{name}@{row['model_id'][:8]} ({row['version']})" for row in found)
        raise ModelError(f"{len(found)} versions of {name} are there, say which: {versions}")
    stored = warehouse.column(
        "select distinct pooling from v_stored where model = $1 and model_id = $2 "
        "and starts_with(pooling, $3 || '@')",
        [name, found[0]["model_id"], pooling],
    )
    if len(stored) > 1:
        raise ModelError(f"{len(stored)} poolings {pooling} are stored: {', '.join(stored)}")
    return Space(
        model=name,
        model_id=found[0]["model_id"],
        layer=0,
        site=site,
        pooling=stored[0] if stored else pooling,
        template=template,
        d_model=found[0]["d_model"],
        layer_count=found[0]["layer_count"],
    )


def load_matrix(
    warehouse: Warehouse,
    space: Space,
    prompt_set: str,
    *,
    limit: int | None = None,
    allow_missing: bool = False,
) -> Matrix:
    """The activations of a prompt set (its first `limit` prompts) at a space, in the set's order.

    Raises `PromptError` for an unknown set, `CoverageError` where rows are missing and that is not
    allowed, `LabelError` where only some of the prompts are labelled.
    """
    expected = count_prompts(warehouse, prompt_set, limit)
    table = warehouse.query(_index_query(space, prompt_set, limit))
    if table.num_rows < expected:
        # A file that cannot be read has no keys in the index: opening the files names it.
        table = warehouse.query(_rows_query(space, prompt_set, limit, _DESCRIPTION))
    missing_count = expected - table.num_rows
    if missing_count and not (allow_missing and table.num_rows):
        raise CoverageError(
            f"{space.model} has activations for {table.num_rows} of the {expected} prompts of "
            f"{prompt_set} at layer {space.layer} ({space.site}, {space.pooling}, "
            f"{space.template}): {_how_to_ingest(warehouse, space, prompt_set)}"
            + ("" if not table.num_rows else ", or go on without them with --allow-missing")
        )
    labels = table.column("is_positive")
    unlabelled_count = labels.null_count
    if 0 < unlabelled_count < len(labels):
        raise LabelError(
            f"{unlabelled_count} of {len(labels)} prompts of {prompt_set} have no label"
        )
    ids, pooling = text_array(table.column("prompt_id")), TokenPooling.find(space.pooling)
    read: Callable[[], Any] = partial(_read_vectors, warehouse, space, ids)
    if pooling is not None:
        read = partial(TokenRows, warehouse, space, pooling, ids)
    return Matrix(
        read=read,
        ids=table.column("prompt_id").combine_chunks(),
        texts=table.column("text").combine_chunks(),
        is_positive=None if unlabelled_count else labels.to_numpy().astype(bool),
        groups=number_groups(table.column("pair_id").combine_chunks()),
        missing_count=missing_count,
        query=_rows_query(space, prompt_set, limit, f"{_DESCRIPTION}, vector"),
    )


def load_layers(
    warehouse: Warehouse,
    space: Space,
    layers: Sequence[int],
    prompt_set: str,
    *,
    allow_missing: bool = False,
) -> Iterator[Matrix]:
    """What `load_matrix` gives at each layer; rows that all layers have are looked up once."""
    expected, described = count_prompts(warehouse, prompt_set), None
    is_pooled = TokenPooling.find(space.pooling) is None
    where = (warehouse.connection, space.model, space.columns, prompt_set)
    counts = stored_layers(*where) if is_pooled else {}
    for layer in layers:
        at_layer, is_complete = space.at(layer), counts.get(layer) == expected
        if described is None or not is_complete:
            matrix = load_matrix(warehouse, at_layer, prompt_set, allow_missing=allow_missing)
            if is_complete:
                described = replace(matrix)  # A copy: this one is to hold no vectors.
            yield matrix
            continue
        yield replace(
            described,
            read=partial(_read_vectors, warehouse, at_layer, text_array(described.ids)),
            query=_rows_query(at_layer, prompt_set, None, f"{_DESCRIPTION}, vector"),
        )


def read_together(
    warehouse: Warehouse, space: Space, matrices: Mapping[str, Matrix]
) -> dict[str, Matrix]:
    """The matrices of one space: whichever vectors are needed first, all are read in one pass."""
    ids = {name: text_array(matrix.ids) for name, matrix in matrices.items()}
    union = np.unique(np.concatenate(list(ids.values())))

    @cache
    def read() -> Rows:
        return _read_vectors(warehouse, space, union)

    def read_part(name: str) -> Rows:
        return take(read(), np.searchsorted(union, ids[name]))

    return {
        name: replace(matrix, read=partial(read_part, name)) for name, matrix in matrices.items()
    }


def _how_to_ingest(warehouse: Warehouse, space: Space, prompt_set: str) -> str:
    if is_imported(warehouse.connection, f"{space.model}@{space.model_id}"):
        return "this model's vectors were imported: import these too with `axes activations import`"
    kept = f"--pooling {space.pooling}"
    if TokenPooling.find(space.pooling) is not None:
        kept = f"--keep-tokens {space.layer}"
    return (
        f"run `axes ingest activations {space.model} --prompts {prompt_set} --site {space.site} "
        f"{kept} --template {space.template.partition('+')[0]}`"
    )


def layers_of(warehouse: Warehouse, space: Space, prompt_set: str) -> list[int]:
    """The layers at which vectors, or for a token pooling tokens, of a prompt set are stored."""
    if TokenPooling.find(space.pooling) is not None:
        return token_layers(warehouse, space, prompt_set)
    return list(stored_layers(warehouse.connection, space.model, space.columns, prompt_set))


def number_groups(pair_ids: pa.StringArray) -> Int[np.ndarray, " row"]:
    """A number for every pair, in the order of their names; a row without a pair is its own."""
    alone = pc.binary_join_element_wise(
        "row", pa.array(np.arange(len(pair_ids))).cast(pa.string()), " "
    )
    named = pc.if_else(pc.not_equal(pair_ids, ""), pair_ids, alone)
    encoded = pc.coalesce(named, alone).dictionary_encode()
    ranks = np.empty(len(encoded.dictionary), dtype=np.int64)
    ranks[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(len(ranks))
    return ranks[encoded.indices.to_numpy()]


def _read_vectors(warehouse: Warehouse, space: Space, prompt_ids: np.ndarray) -> Rows:
    """The vectors of these prompts in this order, streamed in the order of the files.

    Sorting vectors in the database would move every one of them twice.
    """
    x = allocate(warehouse.connection, len(prompt_ids), space.d_model)
    is_read = np.zeros(len(prompt_ids), dtype=bool)
    for is_last in (False, False, True):
        try:
            _place_vectors(warehouse, space, prompt_ids, x, is_read)
            break
        except FileNotFoundError:
            if is_last:
                raise
    if not is_read.all():
        raise CoverageError(
            f"{(~is_read).sum()} rows of {space.model} were removed while they were read, or are "
            "stored twice: run `axes warehouse check`"
        )
    return x


def _place_vectors(
    warehouse: Warehouse, space: Space, prompt_ids: np.ndarray, x: Rows, is_read: np.ndarray
) -> None:
    """Put each prompt's vector into its row of `x`, and mark it in `is_read`."""
    if not len(prompt_ids):
        return
    # Each block's ids are looked up in the sorted ids: `rows` [block] are their rows of `x`, and
    # ids that the set does not have are masked out.
    order = np.argsort(prompt_ids)
    sorted_ids = prompt_ids[order]
    batches = layer_batches(
        warehouse.connection,
        space.model,
        space.columns,
        space.layer,
        prompt_ids=pa.array(prompt_ids).cast(pa.string()),
    )
    for ids, block in batches:
        nearest, is_in_set = find_rows(sorted_ids, text_array(ids))
        rows = order[nearest]
        if block.shape[1] != space.d_model:
            raise QueryError(
                f"vectors of {block.shape[1]} numbers, {space.model} has {space.d_model}: "
                "run `axes warehouse check`"
            )
        if not is_in_set.all():
            block, rows = block[is_in_set], rows[is_in_set]
        x[rows] = block
        is_read[rows] = True


def is_covered(
    warehouse: Warehouse,
    model: str,
    limits: Mapping[str, int | None],
    site: str,
    pooling: str,
    template: str,
) -> bool:
    """Whether all blocks of a model are stored for the first so many prompts of every set."""
    name = model.partition("@")[0]
    if not warehouse.column("select model from models where model = ?", [name]):
        return False
    space = find_space(warehouse, model, site=site, pooling=pooling, template=template)
    return all(
        warehouse.column(
            """
            select coalesce(sum(len(layers)), 0)::bigint
            from v_stored
            where
                model = ? and model_id = ? and site = ? and pooling = ? and template = ?
                and prompt_id in (
                    select prompt_id from prompts where prompt_set = ? and position < ?
                )
            """,
            [*space.key, prompt_set, 2**31 - 1 if limit is None else limit],
        )[0]
        == count_prompts(warehouse, prompt_set, limit) * space.layer_count
        for prompt_set, limit in limits.items()
    )


def require_classes(matrix: Matrix, prompt_set: str) -> None:
    """Raise `LabelError` unless the matrix has rows of both classes."""
    if matrix.is_positive is None:
        raise LabelError(f"the prompt set {prompt_set} has no labels: import it with labels")
    positive_count = int(matrix.is_positive.sum())
    if positive_count in (0, len(matrix.is_positive)):
        only = "positive" if positive_count else "negative"
        raise LabelError(f"all {len(matrix.is_positive)} labels of {prompt_set} are {only}")


def count_prompts(warehouse: Warehouse, prompt_set: str, limit: int | None = None) -> int:
    """Prompts of a set, `limit` at most; raises `PromptError` for an unknown set."""
    (count,) = warehouse.column("select count(*) from prompts where prompt_set = ?", [prompt_set])
    if not count:
        names = warehouse.column("select distinct prompt_set from prompts")
        raise PromptError(
            f"no prompt set {prompt_set} in the warehouse{did_you_mean(prompt_set, names)}: "
            f"import it with `axes prompts import {prompt_set} SOURCE`"
        )
    return count if limit is None else min(count, limit)


def _rows_query(space: Space, prompt_set: str, limit: int | None, columns: str) -> str:
    """The SQL that reads the rows of a matrix; it can be pasted into `axes sql`."""
    if TokenPooling.find(space.pooling) is not None:
        return _index_query(space, prompt_set, limit)
    where = _where(space, prompt_set, limit, f"layer = {space.layer}")
    return f"select {columns} from v_activations where {where}"


def _index_query(space: Space, prompt_set: str, limit: int | None) -> str:
    """The SQL that describes these rows from the index of keys: it opens no file of vectors."""
    if TokenPooling.find(space.pooling) is not None:
        of_set = f"prompt_set = {sql_literal(prompt_set)}{_first(limit)}"
        return (
            f"select {_DESCRIPTION} from v_prompts where {of_set} "
            f"and prompt_id in ({token_prompts(space)}) order by position"
        )
    where = _where(space, prompt_set, limit, f"list_contains(layers, {space.layer})")
    return f"select {_DESCRIPTION} from v_prompts join v_stored using (prompt_id) where {where}"


def _where(space: Space, prompt_set: str, limit: int | None, has_layer: str) -> str:
    model, model_id, *others = space.key
    # This order is part of the stored query.
    values = [model, model_id, prompt_set, *others]
    names = ("model", "model_id", "prompt_set", "site", "pooling", "template")
    conditions = zip(names, values, strict=True)
    where = " and ".join(f"{name} = {sql_literal(value)}" for name, value in conditions)
    return f"{where} and {has_layer}{_first(limit)} order by position"


def _first(limit: int | None) -> str:
    return "" if limit is None else f" and position < {limit}"


BLOCK_BYTES = 8 << 20
# A product with one vector is bound by memory: what it converts has to stay in the cache.
_PRODUCT_BYTES = 1 << 20


def blocks(
    *matrices: Any,
    where: Bool[np.ndarray, " row"] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[tuple]:
    """The same rows of every matrix (or vector) at a time, only those `where` is true.

    >>> [len(x) for (x,) in blocks(np.ones((5, 2)), where=np.array([1, 1, 0, 1, 0], dtype=bool))]
    [3]
    """
    widest = max(matrix.shape[-1] if len(matrix.shape) > 1 else 1 for matrix in matrices)
    step = max(block_bytes // (4 * widest), 1)
    for start in range(0, len(matrices[0]), step):
        part = slice(start, start + step)
        if where is None:
            yield tuple(matrix[part] for matrix in matrices)
        elif where[part].any():
            yield tuple(matrix[part][where[part]] for matrix in matrices)


def project(
    x: Rows, vector: Float[np.ndarray, " d_model"], offset: float = 0.0
) -> Float[np.ndarray, " row"]:
    """`x @ vector + offset`; of a token pooling that is not linear, the scores on `vector`."""
    if isinstance(x, TokenRows) and not x.pooling.is_linear:
        return x.project(vector[:, None])[:, 0] + offset
    parts = blocks(x, block_bytes=_PRODUCT_BYTES)
    return np.concatenate([block @ vector for (block,) in parts]) + offset


def project_centred(
    x: Rows,
    directions: Float[np.ndarray, "d_model axis"],
    centre: Float[np.ndarray, " d_model"],
) -> Float[np.ndarray, "row axis"]:
    """Every row's projection on several directions, as `project` does, about a centre."""
    if isinstance(x, TokenRows) and not x.pooling.is_linear:
        return x.project(directions) - centre @ directions
    return np.concatenate([(block - centre) @ directions for (block,) in blocks(x)])


def row_norms(x: Rows) -> Float[np.ndarray, " row"]:
    """The length of every row."""
    return np.concatenate([np.linalg.norm(block, axis=1) for (block,) in blocks(x)])


def mean(x: Rows, where: Bool[np.ndarray, " row"] | None = None) -> Float[np.ndarray, " d_model"]:
    """The mean of the rows, in float64."""
    total, count = np.zeros(x.shape[1]), 0
    for (block,) in blocks(x, where=where):
        total += block.sum(axis=0, dtype=np.float64)
        count += len(block)
    return total / count


def take(x: Rows, index: Int[np.ndarray, " part"]) -> Rows:
    """The rows of `index`, in its order; of a matrix on disk, without reading them."""
    return x.take(index) if isinstance(x, StoredRows | TokenRows) else x[index]


def concatenate(parts: Sequence[Any]) -> Any:
    """The rows of several matrices of one space; no prompt may be in two of them."""
    if isinstance(parts[0], TokenRows):
        return replace(parts[0], ids=np.concatenate([part.ids for part in parts]))
    return np.concatenate([part[:] for part in parts])
