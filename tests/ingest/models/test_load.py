"""Names resolve, identities change exactly when rows would, blocks are found by shape."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig

import axes.ingest.models.load
from axes.ingest.models.config import context_length, default_dtype
from axes.ingest.models.identity import identify
from axes.ingest.models.load import find_blocks, load, model_row, require_layers
from axes.ingest.models.registry import ModelSpec, group_members, known_as, registry, resolve
from axes.warehouse.errors import LayerError, ModelError
from tests.ingest.conftest import identity_of, loaded_on_cpu
from tests.tiny_models import byte_tokenizer, save_tiny, tiny_model

DEMO = {"smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b"}


# Families with a chat model for every base model.
PAIRED = {
    "qwen2.5": 10,
    "qwen3": 10,
    "llama-3.1": 2,
    "llama-3.2": 4,
    "gemma-2": 4,
    "gemma-3": 4,
    "mistral": 6,
    "olmo-2": 6,
    "smollm2": 6,
    "smollm3": 2,
}


def test_the_registry_pins_the_study_and_states_a_licence_and_one_reference_of_each_group():
    specs = registry().values()
    revisions = [spec.revision for spec in specs if spec.group in ("pythia", "aligned")]
    assert all(re.fullmatch("[0-9a-f]{40}", revision or "") for revision in revisions)
    assert len(set(revisions)) == len(revisions) == 7
    demo = [spec for spec in specs if spec.source == "pypi"]
    assert {spec.name for spec in demo} == DEMO
    for spec in demo:
        assert re.fullmatch("[0-9a-f]{64}", spec.sha256)
        assert len(spec.wheels) == len(spec.parts) >= 1
        assert all(re.fullmatch(r"[\w.-]+==[\d.]+", wheel) for wheel in spec.wheels)
    assert all(spec.license for spec in specs)
    for group in {spec.group for spec in specs}:
        assert sum(spec.is_reference for spec in specs if spec.group == group) == 1, group


@pytest.mark.parametrize(("group", "count"), PAIRED.items())
def test_a_family_has_a_chat_model_for_each_base_model_and_the_largest_base_as_reference(
    group: str, count: int
) -> None:
    names, reference = group_members(group)
    specs = [registry()[name] for name in names]
    chats = {spec.base for spec in specs if spec.is_chat}
    assert chats == {spec.name for spec in specs if spec.is_chat is False}
    assert len(names) == count == 2 * len(chats)
    assert registry()[reference].is_chat is False and reference.endswith("-base")


def test_entries_of_the_registry_are_whole_and_name_one_repository_each() -> None:
    sources = [spec.source for spec in registry().values() if spec.source != "pypi"]
    assert len(set(sources)) == len(sources) == 66
    for spec in registry().values():
        assert spec.source == "pypi" or re.fullmatch(r"hf:[\w-]+/[\w.-]+", spec.source)
        assert spec.base is None or (spec.is_chat and registry()[spec.base].is_chat is False)
        assert spec.group and spec.license
        gated = ("hf:meta-llama/", "hf:google/")
        if spec.source.startswith(gated):
            assert spec.is_gated


def test_group_members_are_in_the_registrys_order() -> None:
    assert group_members("pythia") == (("pythia-160m", "pythia-410m", "pythia-1b"), "pythia-1b")
    assert group_members("aligned")[1] == "llama-3-8b-instruct"
    assert len(group_members("aligned")[0]) == 4
    assert "qwen2.5-7b" in group_members("qwen2.5")[0], "the chat model of one of its base models"
    with pytest.raises(ModelError, match=r"unknown group pythai \(did you mean pythia\?\): groups"):
        group_members("pythai")


def test_an_unknown_name_suggests_the_near_one() -> None:
    with pytest.raises(ModelError, match=r"^[^\n]*did you mean smollm2-135m\?[^\n]*$"):
        resolve("smolm2-135m")
    with pytest.raises(ModelError, match="^unknown model zzzzzz: axes list models has the names"):
        resolve("zzzzzz")


def test_names_folders_files_and_hub_ids_resolve(tmp_path, monkeypatch):
    folder = tmp_path / "my-model"
    folder.mkdir()
    gguf = tmp_path / "some.gguf"
    gguf.touch()
    assert resolve("pythia-1b") == registry()["pythia-1b"]
    assert resolve(str(folder)) == ModelSpec("my-model", str(folder))
    assert resolve(str(gguf)) == ModelSpec("some", str(gguf))
    assert resolve("owner/name") == ModelSpec("owner/name", "hf:owner/name")
    pinned = ModelSpec("owner/name", "hf:owner/name", revision="abc123")
    assert resolve("owner/name@abc123") == pinned
    monkeypatch.chdir(tmp_path)
    assert resolve("my-model") == resolve("./my-model/") == ModelSpec("my-model", str(folder))
    assert known_as("./some.gguf") == "some"
    assert known_as("pythia-1b") == "pythia-1b"
    assert known_as("owner/name") == "owner/name"


def test_a_source_replaces_where_weights_come_from_and_keeps_the_name(tmp_path: Path) -> None:
    given = resolve("qwen2.5-7b", str(tmp_path))
    assert (given.name, given.source, given.group) == ("qwen2.5-7b", str(tmp_path), "aligned")
    assert given.revision is None and given.license is None
    assert resolve("mine", "hf:owner/name") == ModelSpec("mine", "hf:owner/name")
    with pytest.raises(ModelError, match="a folder, a .gguf file or hf:OWNER/NAME is expected"):
        resolve("mine", str(tmp_path / "absent"))
    pickled = tmp_path / "model.bin"
    pickled.touch()
    with pytest.raises(ModelError, match="is not a model"):
        resolve(str(pickled))


def replaced(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def configure(folder: Path, file: str = "config.json", **changed: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def touch_everything(folder: Path) -> None:
    for path in folder.iterdir():
        path.touch()


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        (lambda folder: flip_last_bit(folder / "model.safetensors"), True),
        (lambda folder: replaced(folder / "tokenizer.json", b'"</s>"', b'"<end>"'), True),
        (lambda folder: replaced(folder / "chat_template.jinja", b"{{", b" {{"), True),
        (lambda folder: configure(folder, rms_norm_eps=1e-3), True),
        (lambda folder: configure(folder, transformers_version="5.0.1"), False),
        (touch_everything, False),
        (lambda folder: (folder / "README.md").write_text("notes"), False),
        # A second copy of the weights, in another format, is not read.
        (lambda folder: (folder / "consolidated.safetensors").write_bytes(b"other"), False),
    ],
)
def test_the_identity_changes_when_the_rows_would(llama, llama_folder, change, is_another):
    before = identity_of(llama)
    change(llama_folder)
    assert (identity_of(llama).model_id != before.model_id) is is_another


def test_an_adapter_within_a_model_folder_is_refused(llama: ModelSpec, llama_folder: Path) -> None:
    """transformers would load it over the weights, which the identity is of."""
    (llama_folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="adapter_config.json"):
        identity_of(llama)


def test_the_identity_depends_on_dtype_and_name_and_not_on_the_place(llama, llama_folder, tmp_path):
    identity = identity_of(llama)
    assert identity_of(llama, "bfloat16").model_id != identity.model_id
    other = ModelSpec("other", llama.source)
    assert identify(other, llama_folder, "float32").model_id != identity.model_id
    elsewhere = shutil.copytree(llama_folder, tmp_path / "elsewhere")
    assert identify(llama, elsewhere, "float32") == identity


def test_each_choice_of_how_a_model_is_run_is_another_identity(llama, llama_folder, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    choices: dict[str, Any] = {
        "revision": ["abc123", "def456"],
        "adapter": [str(adapter)],
        "quantization": ["4bit", "8bit"],
        "attention": ["eager"],
        "blocks": ["model.layers"],
    }

    def model_id(**chosen: Any) -> str:
        return identify(replace(llama, **chosen), llama_folder, "float32").model_id

    ids = [model_id()]
    ids += [model_id(**{name: value}) for name, values in choices.items() for value in values]
    ids.append(model_id(**{name: values[-1] for name, values in choices.items()}))
    assert len(set(ids)) == len(ids)
    # What is taken by default is the same when it is asked for, and so is all when asked again.
    assert identity_of(llama).attention == "sdpa"
    assert model_id(attention="sdpa") == ids[0] == model_id()
    plain = model_id(adapter=str(adapter))
    (adapter / "README.md").write_text("notes")
    assert model_id(adapter=str(adapter)) == plain
    elsewhere = shutil.copytree(adapter, tmp_path / "elsewhere")
    assert model_id(adapter=str(elsewhere)) == plain, "it is what it holds, not where it lies"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).write_text("other")
        assert model_id(adapter=str(adapter)) != plain
        shutil.copy(elsewhere / name, adapter / name)


def test_the_template_of_an_older_tokenizer_config_counts(llama, llama_folder):
    with_file = identity_of(llama).template_hash
    jinja = llama_folder / "chat_template.jinja"
    configure(llama_folder, "tokenizer_config.json", chat_template=jinja.read_text())
    jinja.unlink()
    assert identity_of(llama).template_hash == with_file


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    model = tiny_model("llama")
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    byte_tokenizer().save_pretrained(folder)
    with pytest.raises(ModelError, match="pickled weights are not read"):
        identify(ModelSpec("pickled", str(folder)), folder, "float32")


def test_a_folder_that_cannot_be_read_is_one_line(llama: ModelSpec, llama_folder: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(ModelError, match=match) as caught:
            identity_of(llama)
        assert "\n" not in str(caught.value)

    configure(llama_folder, model_type="nonesuch")
    refused(r"config\.json cannot be read")
    (llama_folder / "config.json").write_text("{")
    refused(r"config\.json cannot be read")
    for path in llama_folder.glob("tokenizer*"):
        path.unlink()
    refused("holds no tokenizer")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_model_folder_never_runs_even_for_a_user_who_says_yes(
    llama: ModelSpec, llama_folder: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    marker = llama_folder / "it_ran"
    (llama_folder / "hostile.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    auto_map = {"AutoConfig": "hostile.Config", "AutoTokenizer": ["hostile.Tokenizer", None]}
    kind = {"model_type": "hostile"} if file == "config.json" else {"tokenizer_class": "Hostile"}
    configure(llama_folder, file, auto_map=auto_map, **kind)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    # Whether transformers falls back to a tokenizer of its own is its choice.
    with contextlib.suppress(ModelError):
        loaded_on_cpu(llama)
    assert not marker.exists()


def test_torn_weights_are_one_line(llama: ModelSpec, llama_folder: Path) -> None:
    weights = llama_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    identity = identity_of(llama)
    with pytest.raises(ModelError, match="tiny-llama cannot be loaded") as caught:
        load(llama, llama_folder, identity, "cpu")
    assert "\n" not in str(caught.value)


Weights = dict[str, torch.Tensor]


def rewrite(path: Path, change: Callable[[Weights], Weights]) -> None:
    """Save other weights in place of those of a file."""
    weights = {name: tensor.clone() for name, tensor in change(load_file(path)).items()}
    save_file(weights, path, metadata={"format": "pt"})


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: weights[name] for name in weights if part not in name}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without("layers.1.mlp.up"), r"1 missing \(model\.layers\.1\.mlp\.up_proj\.weight\);"),
        (without("layers.1."), r"9 missing \(model\.layers\.1\.[^;]*, \.\.\.\);"),
        (without("lm_head"), r"1 missing \(lm_head\.weight\);"),
        (
            lambda weights: {**weights, "model.layers.4.x": torch.ones(1)},
            r"1 unexpected \(model\.layers\.4\.x\);",
        ),
        (
            lambda weights: {**weights, "model.norm.weight": torch.ones(31)},
            r"1 mismatched \(model\.norm\.weight\);",
        ),
        (
            lambda weights: {f"_orig_mod.{name}": weights[name] for name in list(weights)[1:]},
            r"1 missing \(lm_head\.weight\);",
        ),
    ],
)
def test_weights_that_are_not_the_models_are_named_and_never_drawn(
    llama, llama_folder, change, named
):
    rewrite(llama_folder / "model.safetensors", change)
    with pytest.raises(ModelError, match=named) as caught:
        loaded_on_cpu(llama)
    assert "\n" not in str(caught.value)


def test_the_prefix_of_a_compiled_model_is_taken_off(llama: ModelSpec, llama_folder: Path) -> None:
    expected = loaded_on_cpu(llama).model.state_dict()
    rewrite(
        llama_folder / "model.safetensors",
        lambda weights: {f"_orig_mod.{name}": weights[name] for name in weights},
    )
    found = loaded_on_cpu(llama).model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_loaded_model_is_described_as_it_is(llama: ModelSpec, llama_folder: Path) -> None:
    loaded = loaded_on_cpu(llama, "bfloat16")
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert not loaded.model.training
    row = model_row(loaded, "run")
    expected = {
        "model": "tiny-llama",
        "architecture": "llama",
        "d_model": 32,
        "layer_count": 4,
        "context_length": 512,
        "dtype": "bfloat16",
        "parameter_count": sum(weight.numel() for weight in tiny_model("llama").parameters()),
        "source": str(llama_folder),
        "is_reference": False,
    }
    assert expected.items() <= row.items()


def test_default_dtype_and_context_length_are_read_under_any_of_their_names(tmp_path: Path) -> None:
    def configured(content: dict) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(content))
        return tmp_path

    for stored, expected in (("bfloat16", "bfloat16"), ("int8", "float32"), (None, "float32")):
        folder = configured({"torch_dtype": stored})
        assert (default_dtype(folder, "cuda"), default_dtype(folder, "cpu")) == (
            expected,
            "float32",
        )
    for content, length in (
        ({"max_position_embeddings": 99}, 99),
        ({"n_positions": 77}, 77),
        ({"text_config": {"max_position_embeddings": 55}}, 55),
        ({}, None),
    ):
        assert context_length(configured(content)) == length


def listed(layer_count: int, **modules: torch.nn.Module) -> Any:
    model = torch.nn.ModuleDict(modules)
    model.config = PreTrainedConfig(num_hidden_layers=layer_count)
    return model


def test_blocks_are_the_outermost_list_of_that_many() -> None:
    nn = torch.nn
    inner = [nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(1, 1)] * 3)}) for _ in range(3)]
    model = listed(3, heads=nn.ModuleList([nn.Identity()]), stack=nn.ModuleList(inner))
    assert find_blocks(model) == inner
    assert len(find_blocks(tiny_model("gpt2", num_hidden_layers=2))) == 2


def test_ambiguous_and_repeated_blocks_name_the_candidates() -> None:
    nn = torch.nn
    lists = {name: nn.ModuleList([nn.Identity(), nn.Identity()]) for name in ("vision", "text")}
    assert find_blocks(listed(2, **lists), "text") == list(lists["text"])
    shared = {"shared": nn.ModuleList([nn.Identity()] * 3)}
    for model, path, message in (
        (listed(2, **lists), None, "of 2 blocks, found vision, text; name it with --blocks, one"),
        (listed(2, **lists), "audio", "has no list of blocks audio: it has vision, text"),
        (listed(5, **lists), None, "expected one list of 5 blocks, found none"),
        (listed(3, **shared), None, "shared runs one block several times"),
    ):
        with pytest.raises(ModelError, match=message):
            find_blocks(model, path)


def test_a_layer_out_of_range_says_which_there_are() -> None:
    require_layers("tiny", 4, [0, 3])
    for layer in (-1, 4, 40):
        with pytest.raises(LayerError, match=rf"layer {layer} of tiny .*: it has 4 \(0 to 3\)"):
            require_layers("tiny", 4, [0, layer])


def test_a_sharded_checkpoint_is_one_model(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "sharded", "llama")
    single = tiny_model("llama")
    (folder / "model.safetensors").unlink()
    single.save_pretrained(folder, max_shard_size="30KB")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    spec = resolve(str(folder))
    identity = identity_of(spec)
    loaded = load(spec, folder, identity, "cpu")
    for name, weight in single.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight)
    flip_last_bit(shards[-1])
    assert identity_of(spec).model_id != identity.model_id
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"{shards[1].name} missing"):
        identity_of(spec)


@pytest.mark.parametrize(("quantization", "kind"), [("8bit", torch.int8), ("4bit", torch.uint8)])
def test_quantisation_is_handed_to_transformers_and_registered(llama_folder, quantization, kind):
    spec = resolve(str(llama_folder), quantization=quantization)
    loaded = loaded_on_cpu(spec)
    assert loaded.blocks[1].mlp.up_proj.weight.dtype == kind
    assert model_row(loaded, "run")["quantization"] == quantization


def test_an_adapter_goes_on_top_of_the_weights_and_is_registered(llama, llama_folder, tmp_path):
    from peft import LoraConfig, get_peft_model  # Takes seconds, in each process of a run.

    plain = loaded_on_cpu(llama)
    tokens = torch.tensor([[3, 4, 5]])
    before = plain.model.base_model(tokens).last_hidden_state
    settings = LoraConfig(
        r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    adapted = get_peft_model(plain.model, settings)
    expected = adapted.base_model.model.model(tokens).last_hidden_state
    adapted.save_pretrained(tmp_path / "adapter")

    spec = resolve(str(llama_folder), adapter=str(tmp_path / "adapter"))
    loaded = loaded_on_cpu(spec)
    found = loaded.model.base_model(tokens).last_hidden_state
    torch.testing.assert_close(found, expected)
    assert (found - before).abs().max() > 1e-4
    row = model_row(loaded, "run")
    assert (row["adapter"], row["layer_count"]) == (str(tmp_path / "adapter"), 4)
    assert row["adapter_hash"] == identity_of(spec).adapter_hash

    rewrite(tmp_path / "adapter" / "adapter_model.safetensors", without("layers.2"))
    with pytest.raises(ModelError, match=r"adapter are not .*: 2 missing \(model\.layers\.2"):
        loaded_on_cpu(spec)


def test_a_pickled_adapter_and_a_missing_package_are_one_line(llama_folder, tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    spec = resolve(str(llama_folder), adapter=str(tmp_path))
    with pytest.raises(
        ModelError, match=r"is not an adapter: it has no adapter_model\.safetensors"
    ):
        identity_of(spec)
    spec = resolve(str(llama_folder), quantization="4bit")
    identity = identity_of(spec)
    monkeypatch.setattr(axes.ingest.models.load, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"pip install 'safety-axes\[quantization\]'"):
        load(spec, llama_folder, identity, "cpu")
