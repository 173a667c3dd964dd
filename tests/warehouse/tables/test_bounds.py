"""Crafted files end in one line: no traceback, and no memory for what they only claim."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.commands import refused


def _npz_of_zeros(path: Path) -> None:
    """0.1 MB that hold 120 MB."""
    np.savez_compressed(path, layer_0=np.zeros((30, 1_000_000), np.float32))


def _npz_that_lies(path: Path) -> None:
    """A header of 4 TiB, and nothing behind it."""
    header = io.BytesIO()
    described = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)}
    np.lib.format.write_array_header_1_0(header, described)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("layer_0.npy", header.getvalue())


def _parquet_of_one_letter(path: Path) -> None:
    text = pa.table({"text": ["x" * 120_000_000], "label": ["a"]})
    pq.write_table(text, path, compression="zstd", use_dictionary=False)


def _deep_json(path: Path) -> None:
    path.write_text('{"vector": ' + "[" * 200_000 + "]" * 200_000 + "}")


def _nested_gguf(path: Path) -> None:
    """One key whose value is an array of an array of ..."""
    key = b"a"
    nested = struct.pack("<IQ", 9, 1) * 5_000 + struct.pack("<IQ", 4, 1) + struct.pack("<I", 1)
    field = struct.pack("<Q", len(key)) + key + struct.pack("<I", 9) + nested
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + field)


def _card_that_nests(path: Path) -> None:
    """A safetensors file whose card is deep JSON."""
    described = {"__metadata__": {"card": "[" * 200_000}}
    described["direction"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps(described).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


IMPORT, PROMPTS = ("import", "{file}"), ("prompts", "import", "crafted", "{file}")
ACTIVATIONS = ("activations", "import", "{file}", "--model", "m")
CRAFTED: list[tuple[str, Callable[[Path], None], tuple[str, ...]]] = [
    ("a.npz", _npz_of_zeros, IMPORT),
    ("a.npz", _npz_of_zeros, ACTIVATIONS),
    ("a.npz", _npz_that_lies, IMPORT),
    ("a.npz", _npz_that_lies, ACTIVATIONS),
    ("a.parquet", _parquet_of_one_letter, PROMPTS),
    ("a.parquet", _parquet_of_one_letter, ACTIVATIONS),
    ("a.json", _deep_json, IMPORT),
    ("a.jsonl", _deep_json, PROMPTS),
    ("a.gguf", _nested_gguf, IMPORT),
    ("a.safetensors", _card_that_nests, IMPORT),
    ("a.safetensors", _card_that_nests, ACTIVATIONS),
]


@pytest.mark.parametrize(("name", "craft", "words"), CRAFTED)
def test_a_crafted_file_is_refused_in_one_line(root, tmp_path, name, craft, words):
    craft(tmp_path / name)
    (tmp_path / "a.index.txt").write_text("text\n")
    filled = [word.replace("{file}", str(tmp_path / name)) for word in words]
    message = refused(*filled, "--root", root)
    assert len(message) < 600
    # Refused by what it says of itself, before a row was read.
    is_large = craft in (_npz_of_zeros, _npz_that_lies, _parquet_of_one_letter)
    assert is_large == ("would fill the memory" in message), message
