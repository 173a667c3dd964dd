"""Stored tokens as rows of prompts: fitted on token means, scored token by token.

A token probe evaluates a prompt by its tokens' projections (`TokenPooling`) in the place of a
pooled vector. Directions are fitted on each prompt's mean token, in which every prompt counts
alike, however long. The first token is left out: models park attention there, and its activations,
alike in all prompts, are many times longer than others (Sun et al. 2024, arXiv 2402.17762), so that
it could be the maximum of every prompt. Tokens pass through in blocks: no more than one block of
them is in memory, and one number for each token of a block and each direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from axes.warehouse.axes import Space, read_axes
from axes.warehouse.errors import QueryError
from axes.warehouse.handle import Warehouse
from axes.warehouse.layers import Rows, TokenPooling, allocate, layer_batches
from axes.warehouse.names import sql_literal

# Rows of the prompts, their first token and one past the last, and tokens `[token, d_model]`.
Block = tuple[Int[np.ndarray, " prompt"], Int[np.ndarray, "prompt 2"], np.ndarray]

_PRODUCT_BYTES = 1 << 19


@dataclass(frozen=True)
class TokenRows:
    """The prompts `ids` at a space of tokens; `rows[start:stop]` are weighted means of the tokens.

    Nothing is read before it is needed.
    """

    warehouse: Warehouse
    space: Space
    pooling: TokenPooling
    ids: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.ids), self.space.d_model

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.means[rows]

    def take(self, index: np.ndarray) -> TokenRows:
        """The rows of `index`, in its order."""
        return replace(self, ids=self.ids[index])

    @cached_property
    def means(self) -> Rows:
        """The mean of each prompt's tokens, weighted by attention where the pooling says so."""
        query = None
        if self.pooling.kind == "tokens_attention" and self.pooling.argument:
            (axis,) = read_axes(self.warehouse, [self.pooling.argument])
            query = axis.vector * axis.raw_norm
        means = allocate(self.warehouse.connection, *self.shape)
        for rows, spans, tokens in self.blocks():
            means[rows] = np.stack([_mean(tokens[start:end], query) for start, end in spans])
        return means

    def project(self, directions: Float[np.ndarray, "d_model axis"]) -> np.ndarray:
        """Scores `[row, axis]` of the prompts on each direction."""
        scores = np.empty((len(self), directions.shape[1]))
        for rows, spans, along in self.blocks(directions):
            scores[rows] = np.stack([self.pooling.score(along[start:end]) for start, end in spans])
        return scores

    def blocks(self, directions: np.ndarray | None = None) -> Iterator[Block]:
        """All prompts, some at a time, each with its tokens but the first, by the order of files.

        With `directions` `[d_model, axis]`, projections `[token, axis]` are in the tokens' place.
        Raises `QueryError` where the tokens of a prompt are missing or do not lie together.
        """
        order = np.argsort(self.ids)
        sorted_ids, is_read = self.ids[order], np.zeros(len(self), dtype=bool)
        batches = layer_batches(
            self.warehouse.connection,
            self.space.model,
            _token_columns(self.space),
            self.space.layer,
            "prompt_tokens",
        )
        # The last prompt of a batch may go on in the next one.
        rows, tokens = np.empty(0, np.int64), np.empty((0, self.space.d_model), np.float32)
        for ids, vectors in batches:
            if directions is not None:
                vectors = _projected(vectors, directions)
            # A prompt's tokens lie together: each run of an id is looked up once.
            runs = pc.run_end_encode(ids)
            lengths = np.diff(runs.run_ends.to_numpy(), prepend=0)
            found = find_rows(sorted_ids, text_array(runs.values))
            places, is_in_set = (np.repeat(each, lengths) for each in found)
            if not is_in_set.all():
                places, vectors = places[is_in_set], vectors[is_in_set]
            if len(rows) and len(places) and rows[0] != order[places[0]]:
                yield _block(is_read, rows[:1], np.zeros(1, np.int64), tokens)
                rows, tokens = rows[:0], tokens[:0]
            rows = np.concatenate([rows, order[places]])
            tokens = np.concatenate([tokens, vectors]) if len(tokens) else vectors
            starts = np.flatnonzero(np.diff(rows, prepend=-1))
            if len(starts) > 1:
                end = starts[-1]
                yield _block(is_read, rows[starts[:-1]], starts[:-1], tokens[:end])
                rows, tokens = rows[end:], tokens[end:]
        if len(rows):
            yield _block(is_read, rows[:1], np.zeros(1, np.int64), tokens)
        if not is_read.all():
            raise QueryError(f"{(~is_read).sum()} prompts lost their tokens while they were read")


def _projected(
    tokens: np.ndarray, directions: Float[np.ndarray, "d_model axis"]
) -> Float[np.ndarray, "token axis"]:
    # As many tokens at a time as stay in the cache when they are converted to float64.
    step = max(_PRODUCT_BYTES // tokens.itemsize // max(tokens.shape[1], 1), 1)
    starts = range(0, len(tokens), step)
    return np.concatenate([tokens[start : start + step] @ directions for start in starts])


def _mean(tokens: np.ndarray, query: np.ndarray | None) -> Float[np.ndarray, " d_model"]:
    logits = np.zeros(len(tokens)) if query is None else tokens @ query
    weights = np.exp(logits - logits.max())
    return weights @ tokens / weights.sum()


def _block(is_read: np.ndarray, rows: np.ndarray, starts: np.ndarray, tokens: np.ndarray) -> Block:
    """Prompts marked as read, without their first tokens, unless these are all they have."""
    if is_read[rows].any() or len(np.unique(rows)) < len(rows):
        raise QueryError("tokens of a prompt are stored twice or apart: run `axes warehouse check`")
    is_read[rows] = True
    ends = np.append(starts[1:], len(tokens))
    return rows, np.stack([starts + (ends - starts > 1), ends], axis=1), tokens


def find_rows(sorted_ids: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of each id in the sorted ones, and whether it is one of them."""
    places = np.searchsorted(sorted_ids, ids).clip(max=len(sorted_ids) - 1)
    return places, sorted_ids[places] == ids


def text_array(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Texts as an array of bytes, which numpy sorts and finds fast; no Python object per text."""
    texts = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    texts = texts.cast(pa.large_binary())
    _, offsets_buffer, data_buffer = texts.buffers()
    if not len(texts) or data_buffer is None:
        return np.zeros(len(texts), dtype=bytes)
    offsets = np.frombuffer(offsets_buffer, np.int64)[texts.offset :][: len(texts) + 1]
    data = np.frombuffer(data_buffer, np.uint8)[offsets[0] : offsets[-1]]
    lengths = np.diff(offsets)
    padded = np.zeros((len(texts), max(int(lengths.max()), 1)), np.uint8)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = data
    return padded.view(f"S{padded.shape[1]}")[:, 0]


def _token_columns(space: Space) -> dict[str, str]:
    columns = space.columns
    del columns["pooling"]
    return columns


def token_prompts(space: Space) -> str:
    """A SELECT of the ids of the prompts whose tokens are stored at a space."""
    values = {"model": space.model, **_token_columns(space)}
    where = " and ".join(f"{name} = {sql_literal(value)}" for name, value in values.items())
    return f"select distinct prompt_id from prompt_tokens where {where} and layer = {space.layer}"


def token_layers(warehouse: Warehouse, space: Space, prompt_set: str) -> list[int]:
    """The layers at which tokens of a prompt set are stored."""
    values = {"model": space.model, **_token_columns(space)}
    return warehouse.column(
        f"""
        select distinct layer
        from prompt_tokens
        where
            {" and ".join(f"{name} = ${name}" for name in values)}
            and prompt_id in (select prompt_id from prompts where prompt_set = $prompt_set)
        order by layer
        """,
        {**values, "prompt_set": prompt_set},
    )
