"""A tiny model on the disk, made once, and short ways to import prompts and to read rows back."""

from __future__ import annotations

import multiprocessing
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import axes.ingest.activations
from axes.ingest.jobs import IngestSummary
from axes.ingest.models.identity import ModelIdentity, identify
from axes.ingest.models.load import LoadedModel, load
from axes.ingest.models.registry import ModelSpec, resolve
from axes.ingest.prompts import prompt_id
from axes.ingest.requests import ActivationRequest
from axes.warehouse.connection import connect, connect_tables, rows
from axes.warehouse.maintenance.check import check
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import rows_table, write_rows
from tests.once import made_once
from tests.rows import put
from tests.tiny_models import save_tiny

ImportTexts = Callable[..., None]


@pytest.fixture(scope="session")
def saved_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with a chat template; not to be changed."""
    return made_once(tmp_path_factory, "tiny-llama", lambda folder: save_tiny(folder, "llama"))


@pytest.fixture
def llama_folder(saved_llama: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(saved_llama, tmp_path / "tiny-llama")


@pytest.fixture
def llama(llama_folder: Path) -> ModelSpec:
    return resolve(str(llama_folder))


@pytest.fixture
def import_texts(root: Path) -> ImportTexts:
    """`put_texts` into the test's warehouse."""
    return partial(put_texts, root)


def put_texts(root: Path, texts: Sequence[str], name: str = "texts") -> None:
    """Put texts into a warehouse as a set, in place of those there under its name."""
    described = [
        {"prompt_id": prompt_id(text), "position": position, "text": text, "run_id": "none"}
        for position, text in enumerate(texts)
    ]
    write_rows(root, "prompts", rows_table("prompts", described), name=name, partition=name)


def read(root: Path, sql: str, parameters: list[Any] | None = None) -> list[dict[str, Any]]:
    """The rows of a query; where it names no view, only its tables are opened, which is quick."""
    if re.search(r"\bv_", sql):
        return rows(connect(root), sql, parameters)
    named = [table for table in TABLES if re.search(rf"\b{table}\b", sql)]
    return rows(connect_tables(root, *named), sql, parameters)


def for_texts(**options: Any) -> ActivationRequest:
    """A request for the set `texts`."""
    return ActivationRequest(prompt_sets={"texts": None}, **options)


def ingest_texts(root: Path, spec: ModelSpec, **options: Any) -> IngestSummary:
    """Store activations of the set `texts`."""
    return axes.ingest.activations.ingest_activations(root, spec, for_texts(**options))


def forked(target: Callable[..., Any], *args: Any, **options: Any) -> multiprocessing.Process:
    """A process to start, forked from one that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "tests.ingest.processes",
            "pandas",
            "transformers.generation.utils",
            "transformers.models.auto.modeling_auto",
            "transformers.models.auto.tokenization_auto",
            "transformers.models.llama.modeling_llama",
        ]
    )
    return context.Process(target=target, args=args, kwargs=options)


def identity_of(spec: ModelSpec, dtype: str = "float32") -> ModelIdentity:
    return identify(spec, Path(spec.source), dtype)


def loaded_on_cpu(spec: ModelSpec, dtype: str = "float32") -> LoadedModel:
    """A model of a local folder."""
    return load(spec, Path(spec.source), identity_of(spec, dtype), "cpu")


def exit_codes(processes: Sequence[multiprocessing.Process]) -> list[int | None]:
    """Run processes beside each other to their ends."""
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def overflow_in_half_precision(folder: Path) -> None:
    """Let the third block of the tiny llama give numbers that float16 cannot hold, float32 can."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.2.mlp.up_proj.weight"] *= 10_000
    weights["model.layers.2.mlp.down_proj.weight"] *= 1e5
    assert all(weight.abs().max() < 65504 for weight in weights.values()), "the weights fit"
    save_file(weights, path, metadata={"format": "pt"})


def put_axis(root: Path, spec: ModelSpec, name: str, layer: int, **columns: Any) -> np.ndarray:
    """A native axis of the tiny model, drawn from its name and layer; returns its vector."""
    vector = np.random.default_rng([layer, *name.encode()]).normal(size=32)
    vector /= np.linalg.norm(vector)
    axis = {
        "axis_id": f"id-{name}",
        "name": name,
        "kind": "native",
        "space_model": spec.name,
        "space_model_id": identity_of(spec).model_id,
        "layer": layer,
        "site": "resid_post",
        "pooling": "last5_mean",
        "template": "raw",
        "vector": vector.tolist(),
        "run_id": "none",
    }
    put(root, "axes", {**axis, **columns})
    return vector


def activation_rows(root: Path) -> dict[tuple, np.ndarray]:
    """Key (but for the model's name) -> vector; two rows of one key are an error."""
    found = read(
        root,
        "select model_id, text, layer, pooling, template, vector "
        "from activations inner join (select distinct prompt_id, text from prompts) "
        "using (prompt_id)",
    )
    keyed = {
        (row["model_id"], row["text"], row["layer"], row["pooling"], row["template"]): np.array(
            row["vector"], dtype=np.float32
        )
        for row in found
    }
    assert len(keyed) == len(found), "two activations share a key"
    return keyed


def assert_checks_pass(root: Path) -> None:
    """Every rule holds, once the job that `import_texts` names as its own is registered."""
    put(root, "runs", {"run_id": "none"})
    assert [row for row in check(root).to_pylist() if row["row_count"]] == []


def last_run(root: Path) -> dict[str, Any]:
    """The newest row of `runs`."""
    return read(root, "from runs order by started_at desc limit 1")[0]
