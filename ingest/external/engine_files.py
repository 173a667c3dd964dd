"""Folders of hidden states that a serving engine leaves, a file for each request, pooled as read.

*vLLM* (`extract_hidden_states` with `ExampleHiddenStatesConnector`): a .safetensors with
`hidden_states` `[token, layer, d_model]` and `token_ids`. Number N is the input of block N, and the
number of blocks is the last block's output before the final norm. The file does not say the
numbers, and holds them in ascending order whatever order they were listed in.
*vLLM-Lens*: the .json of each response, whose `activations.residual_stream` is
`[layer, token, d_model]`, zstd in base64. Number N is the output of block N; tokens after
`usage.prompt_tokens` were generated and are left out.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from axes.ingest.external.files import PART_BYTES, Card, ExternalFile, Part
from axes.ingest.forward.activation_keys import Item
from axes.ingest.forward.pooling import Pooling, find_pooling
from axes.ingest.forward.templates import Rendered
from axes.warehouse.errors import ImportFileError, LayerError
from axes.warehouse.names import RESID_POST, UNKNOWN
from axes.warehouse.tables.bounds import require_bounded

# Suffix of the files -> how the engine numbers layers.
CONVENTIONS = {".safetensors": "block_inputs", ".json": "blocks"}
_LENS_DTYPES = {"int16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

Hidden = Float[Tensor, "layer token d_model"]


def engine_suffix(path: Path) -> str | None:
    """The suffix of an engine's files in a folder; None where the folder is not an engine's."""
    if not path.is_dir() or (path / "dataset_info.json").exists():
        return None
    found = [suffix for suffix in CONVENTIONS if next(path.glob(f"*{suffix}"), None)]
    return found[0] if found else None


def open_engine_folder(
    path: Path, index: pl.DataFrame, layers: Sequence[int], pooling_name: str | None
) -> ExternalFile:
    """The requests of a folder, pooled to one vector at each of `layers`, in the engine's numbers.

    `index` has a row for each request: the columns of an import, and `file`. Raises
    `ImportFileError` for a file that is missing, broken or of another shape, `LayerError` where the
    number of layers differs.
    """
    suffix = str(engine_suffix(path))
    if "file" not in index.columns or index.is_empty():
        raise ImportFileError(
            f"the index of {path} needs a row for each prompt, with a column file: vLLM gives its "
            "name as kv_transfer_params['hidden_states_path'] of an output"
        )
    if pooling_name is None:
        raise ImportFileError(f"{path} has the vectors of all tokens: --pooling last, mean, ...")
    suffix, pooling = str(engine_suffix(path)), find_pooling(pooling_name)
    stems = (Path(str(name)).name.removesuffix(suffix) for name in index["file"])
    files = [path / f"{stem}{suffix}" for stem in stems]
    shapes = [_open(file).shape for file in files]
    width, layers = shapes[0][2], sorted(layers)
    for file, shape in zip(files, shapes, strict=True):
        if (shape[0], shape[2]) != (len(layers), width):
            raise LayerError(
                f"{file} has {shape[0]} layers of {shape[2]} numbers, and --layer-ids has "
                f"{len(layers)}, of {width}: list those that the engine was asked for"
            )
    tokens = {count: Rendered([0] * count, UNKNOWN, None, None) for _, count, _ in shapes}
    spans = [pooling.positions(tokens[count]) if count else None for _, count, _ in shapes]
    if None in spans:
        file = files[spans.index(None)]
        raise ImportFileError(f"{file} does not say which positions {pooling.name} reads")
    items = [Item(layer, RESID_POST, pooling.name) for layer in layers]

    def parts() -> Iterator[Part]:
        step = max(PART_BYTES // (4 * len(layers) * width), 1)
        for start in range(0, len(files), step):
            taken = slice(start, start + step)
            read = zip(files[taken], spans[taken], strict=True)
            pooled = torch.stack([_pooled(file, span, pooling) for file, span in read]).numpy()
            places = np.arange(start, start + len(pooled))
            for number, item in enumerate(items):
                yield Part(item, places, pooled[:, number])

    card: Card = {"layers_are": CONVENTIONS[suffix], "site": RESID_POST}
    # How many tokens were pooled is known, their strings are not.
    described = index.drop("file").with_columns(
        pl.Series("token_count", [count for _, count, _ in shapes], pl.Int32),
        pl.Series("pooled_start", [span[0] for span in spans if span], pl.Int32),
        pl.Series("pooled_end", [span[1] for span in spans if span], pl.Int32),
        pl.Series("pooled_tokens", [[UNKNOWN] * (span[1] - span[0]) for span in spans if span]),
        pl.lit(UNKNOWN).alias("rendered_hash"),
    )
    return ExternalFile(card, described, items, None, width, parts)


def _pooled(
    file: Path, span: tuple[int, int] | None, pooling: Pooling
) -> Float[Tensor, "layer d_model"]:
    hidden = _open(file).read()[:, slice(*span or ())].float()
    return pooling.reduce(hidden, torch.ones(hidden.shape[:2], dtype=torch.bool))


def _open(file: Path) -> _Vllm | _Lens:
    return _Vllm(file) if file.suffix == ".safetensors" else _Lens(file)


class _Vllm:
    """A request's file; `shape` is that of `read`: layers, tokens, d_model."""

    def __init__(self, file: Path) -> None:
        self._file = safe_open(file, framework="pt")
        if missing := {"hidden_states", "token_ids"} - {*self._file.keys()}:
            raise ImportFileError(f"{file} has no {' and no '.join(sorted(missing))}")
        shape = self._file.get_slice("hidden_states").get_shape()
        token_shape = self._file.get_slice("token_ids").get_shape()
        if len(shape) != 3 or token_shape != shape[:1]:
            raise ImportFileError(
                f"{file} has hidden_states {shape} and token_ids {token_shape}: [token, layer, "
                "d_model] and [token] are expected"
            )
        self.shape = (shape[1], shape[0], shape[2])

    def read(self) -> Hidden:
        return self._file.get_tensor("hidden_states").transpose(0, 1)


class _Lens:
    """A response; `shape` is that of `read`, without generated tokens: layers, tokens, d_model."""

    def __init__(self, file: Path) -> None:
        self._path = file
        try:
            response = json.loads(file.read_text())
            self._entry = response["activations"]["residual_stream"]
            layers, tokens, width = self._entry["shape"]
            self._dtype = _LENS_DTYPES[self._entry["dtype"]]
            self.shape = (layers, min(response["usage"]["prompt_tokens"], tokens), width)
            self._data = base64.b64decode(self._entry["data"])
        except (KeyError, TypeError) as error:
            raise ImportFileError(f"{file} is not a response of vLLM-Lens: {error!r}") from error
        require_bounded(file, math.prod(self._entry["shape"]) * self._dtype.itemsize)

    def read(self) -> Hidden:
        data, shape = self._data, self._entry["shape"]
        try:
            if self._entry.get("compression") == "zstd":
                size = math.prod(shape) * self._dtype.itemsize
                data = pa.decompress(data, size, codec="zstd").to_pybytes()
            numbers = torch.frombuffer(bytearray(data), dtype=self._dtype).reshape(shape)
        except (OSError, ValueError, RuntimeError) as error:
            raise ImportFileError(f"{self._path} cannot be read: {error}") from error
        return numbers[:, : self.shape[1]]
