"""Collects the vectors of batches and writes them, or projections, one file at a time.

A chunk becomes one file of `activations`, with a row group for each layer, site and pooling, and
where every token is kept one file of `prompt_tokens`; with axes, one of `projections` alone, with
a row group for each axis. Each is complete or absent.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from axes.ingest.forward.activation_keys import AxisItem, Item, Items
from axes.ingest.forward.templates import Template
from axes.ingest.models.load import LoadedModel
from axes.ingest.sinks import Outbox, StoredRows
from axes.warehouse.axes import AxisReadout
from axes.warehouse.runs import Run
from axes.warehouse.writer import CHUNK_BYTES, content_key, rows_table, vector_array

if TYPE_CHECKING:
    from axes.ingest.forward.forward import Batch

_FLUSH_BYTES = CHUNK_BYTES
_FLUSH_SECONDS = 20.0


@dataclass
class ChunkWriter:
    """A context manager: `add` batches; every 48 MB or 20 s, and at the end, they are written.

    Rows that other jobs have committed meanwhile, by `sink`, are left out.
    """

    run: Run
    loaded: LoadedModel
    template: Template
    items: Sequence[Item | AxisItem]
    readouts: Mapping[AxisItem, AxisReadout]
    sink: StoredRows | Outbox
    _batches: list[Batch] = field(default_factory=list)
    _bytes: int = 0
    _since: float = field(default_factory=time.monotonic)

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An interrupted job keeps what it has done; after an error the batch in hand is suspect.
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.flush()

    def add(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._bytes += sum(vectors.nbytes for vectors in batch.vectors.values())
        if self._bytes >= _FLUSH_BYTES or time.monotonic() - self._since >= _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has been added. Jobs on one model do this in turn."""
        if not self._batches:
            return
        model_id = self.loaded.identity.model_id
        names = [name for batch in self._batches for name in batch.prompt_ids]
        file_name = content_key(model_id, self.template.name, self.items, names)
        with self.run.stage("write"), self.sink.turn():
            by_others = self.sink.by_others()
            for table in ("activations", "prompt_tokens", "projections"):
                items = [item for item in self.items if item.table == table]
                sizes: list[int] = []
                groups = self._groups(table, items, by_others, sizes)
                encode = self.run.stage("encode")(partial(next, groups, None))
                if (first := encode()) is None:
                    continue
                every = itertools.chain([first], iter(encode, None))
                # A second Ctrl-C within a commit has it done again: the file replaces itself.
                if self.sink.write(table, every, file_name):
                    self.run.rows += sum(sizes)
        self._batches, self._bytes, self._since = [], 0, time.monotonic()

    def _groups(
        self,
        table: str,
        items: Sequence[Item | AxisItem],
        stored: Mapping[str, Items],
        sizes: list[int],
    ) -> Iterator[pa.Table]:
        """A row group for each item, without the rows that are stored; `sizes` gets their rows."""
        model_id = self.loaded.identity.model_id
        columns_of_pooling: dict[str, pa.Table] = {}
        for item in items:
            if item.pooling not in columns_of_pooling:
                columns_of_pooling[item.pooling] = pa.table(self._columns(item))
            columns = columns_of_pooling[item.pooling]
            matrix = np.concatenate([batch.vectors[Item(*item[:3])] for batch in self._batches])
            if stored:
                ids = columns["prompt_id"].to_pylist()
                is_new = np.array([item not in stored.get(name, ()) for name in ids])
                columns, matrix = columns.filter(pa.array(is_new)), matrix[is_new]
            if count := len(matrix):
                sizes.append(count)
                if isinstance(item, AxisItem):
                    scored = self.readouts[item].project(matrix)
                    yield scored.rows(columns["prompt_id"], model_id, self.run.run_id)
                    continue
                yield rows_table(
                    table,
                    [],
                    **dict(zip(columns.column_names, columns.columns, strict=True)),
                    **item._asdict() if item.pooling else {"layer": item.layer, "site": item.site},
                    model_id=model_id,
                    template=self.template.name,
                    run_id=self.run.run_id,
                    vector=vector_array(matrix),
                    norm=np.linalg.norm(matrix, axis=1).astype(np.float32),
                )

    def _columns(self, item: Item | AxisItem) -> dict[str, list[Any]]:
        """The columns that the rows of a pooling share over layers, sites and axes."""
        prompts = [
            (prompt_id, prompt)
            for batch in self._batches
            for prompt_id, prompt in zip(batch.prompt_ids, batch.rendered, strict=True)
        ]
        if isinstance(item, AxisItem):
            return {"prompt_id": [prompt_id for prompt_id, _ in prompts]}
        to_strings = self.loaded.tokenizer.convert_ids_to_tokens
        tokens = [list(to_strings(prompt.token_ids)) for _, prompt in prompts]
        columns: dict[str, list[Any]]
        if item.pooling:
            spans = [span for batch in self._batches for span in batch.spans[item.pooling]]
            columns = {
                "token_count": [len(prompt.token_ids) for _, prompt in prompts],
                "pooled_start": [start for start, _ in spans],
                "pooled_end": [end for _, end in spans],
                "pooled_tokens": [
                    strings[start:end] for strings, (start, end) in zip(tokens, spans, strict=True)
                ],
            }
        else:
            columns = {
                "position": [place for strings in tokens for place in range(len(strings))],
                "token_id": [token_id for _, prompt in prompts for token_id in prompt.token_ids],
                "token": [token for strings in tokens for token in strings],
            }
            # A row for each token of each prompt.
            prompts = [pair for pair in prompts for _ in pair[1].token_ids]
        return {
            "prompt_id": [prompt_id for prompt_id, _ in prompts],
            "rendered_hash": [prompt.text_hash for _, prompt in prompts],
            **columns,
        }
