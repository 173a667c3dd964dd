"""A folder to upload to the Hugging Face hub: direction.safetensors, card.json, and README.md, a
model card with the hub's front matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from axes.analysis.exchange.formats.array_files import SAFETENSORS
from axes.analysis.exchange.formats.contents import Card, Contents, FileKind, write_sidecar
from axes.warehouse.render import render

_DIRECTION = "direction.safetensors"
# What the hub calls the licences of the registry's models; it takes lower-case SPDX names.
_HUB_LICENSES = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "llama 2 community license": "llama2",
    "meta llama 3 community license": "llama3",
    "gemma": "gemma",
}


def _is_hub_folder(path: Path) -> bool:
    return (path / _DIRECTION).is_file()


def _write(contents: Contents, path: Path) -> None:
    path.mkdir(exist_ok=True)
    SAFETENSORS.write(contents, path / _DIRECTION)
    write_sidecar(path, contents.cards)
    (path / "README.md").write_text(_readme(contents.cards))


def _read(path: Path) -> Contents:
    """What counts is in the safetensors file."""
    return SAFETENSORS.read(path / _DIRECTION)


def _readme(cards: Sequence[Card]) -> str:
    from huggingface_hub import ModelCardData

    card = cards[0]
    space = card["space"] or {}
    weights = space.get("license")
    hub_license = _HUB_LICENSES.get((weights or "").lower(), "other")
    source = (space.get("source") or "").removeprefix("hf:")
    data = ModelCardData(
        license=hub_license,
        license_name=weights if hub_license == "other" and weights else None,
        # The hub wants OWNER/NAME; a path or a wheel is none.
        base_model=source if source.count("/") == 1 and not source.startswith("/") else None,
        library_name="safety-axes",
        tags=["activation-steering", "steering-vector", "interpretability", "safety-axes"],
    )
    lines = ["---", data.to_yaml(), "---", "", f"# {card['name']}", ""]
    lines += _described(cards)
    lines += ["", "## Evaluation", "", *_table(_evaluations(cards))]
    lines += ["", "## Thresholds", "", *_table(_thresholds(cards))]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in card["limits"])]
    lines += ["", "## Use", "", *_use(cards)]
    return "\n".join(lines) + "\n"


def write_dataset_card(folder: Path, card: Card, prompts: pa.Table) -> None:
    """README.md of exported activations; `prompts` has `is_positive` and `license` of each."""
    from huggingface_hub import DatasetCardData

    model, labels = card["model"], prompts["is_positive"].to_pylist()
    licenses = sorted({each for each in prompts["license"].to_pylist() if each})
    facts = {
        "model": f"{model['name']} ({card['model_id']}), revision {model['revision'] or 'none'}",
        "layers": f"{', '.join(map(str, card['layers']))}: {card['layer_convention']}",
        "site, pooling, template": f"{card['site']}, {card['pooling']}, {card['template']}",
        "prompts": f"{len(labels)} of {card['prompt_set']}: {labels.count(True)} positive, "
        f"{labels.count(False)} negative",
        "licence of the weights": model["license"] or "not stated",
        "licence of the prompts": ", ".join(licenses) or "not stated",
    }
    data = DatasetCardData(license="other", tags=["activations", "interpretability", "safety-axes"])
    lines = ["---", data.to_yaml(), "---", "", f"# {model['name']} on {card['prompt_set']}", ""]
    lines += _table([{"": name, "what": fact} for name, fact in facts.items()])
    lines += [
        "",
        "A row for each prompt and layer, with the text of the prompt: positive prompts ask",
    ]
    lines += ["for what the concept names, such as unsafe content.", ""]
    lines += ["`axes activations import hf:OWNER/NAME` reads it, as it does activations.parquet."]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def _described(cards: Sequence[Card]) -> Iterator[str]:
    card = cards[0]
    layers = ", ".join(str(one["layer"]) for one in cards)
    licenses = card["license"]
    facts = {
        "kind, method": f"{card['kind']}, {card['method']}",
        "model": f"{card['space_model']} ({card['space_model_id']})",
        "revision": (card["space"] or {}).get("revision") or "none",
        "layer": f"{layers}: {card['layer_convention']}",
        "site, pooling, template": f"{card['site']}, {card['pooling']}, {card['template']}",
        "fitted on": f"{card['prompt_set'] or 'not known'}: {card['positive_count']} positive and "
        f"{card['negative_count']} negative prompts, rows {card['row_set_hash'] or 'not known'}",
        "licence of the weights": licenses["weights"] or "not stated",
        "licence of the prompts": ", ".join(licenses["prompts"]) or "not stated",
    }
    yield from _table([{"": name, "what": fact} for name, fact in facts.items()])


def _evaluations(cards: Sequence[Card]) -> list[dict[str, object]]:
    return [
        {
            "layer": card["layer"],
            "model": row["model"],
            "prompts": row["prompt_set"],
            "scorer": row["scorer"],
            "metric": row["metric"],
            "estimate": _figure(row["estimate"]),
            "95 % interval": _interval(row["lower"], row["upper"]),
            "in sample": {True: "yes", False: "no", None: ""}[row["is_in_sample"]],
        }
        for card in cards
        for row in card["evaluation"]
    ]


def _thresholds(cards: Sequence[Card]) -> list[dict[str, object]]:
    return [
        {
            "layer": card["layer"],
            "model": row["model"],
            "method": row["method"],
            "target": row["target"],
            "threshold": _figure(row["threshold"]),
            "fitted on": row["prompt_set"],
        }
        for card in cards
        for row in card["calibration"]
    ]


def _table(rows: Sequence[dict[str, object]]) -> list[str]:
    if not rows:
        return ["None is stored."]
    texts = [{name: str(cell) for name, cell in row.items()} for row in rows]
    return [render(pa.Table.from_pylist(texts), "markdown", cell_width=None).decode().rstrip()]


def _interval(lower: float | None, upper: float | None) -> str:
    return "none" if lower is None or upper is None else f"{lower:.4g} to {upper:.4g}"


def _figure(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"


def _use(cards: Sequence[Card]) -> list[str]:
    name = "direction" if len(cards) == 1 else f"direction.{cards[0]['layer']}"
    return [
        "```python",
        "import json",
        "from safetensors.numpy import load_file",
        "",
        f'direction = load_file("{_DIRECTION}")["{name}"]  # [d_model], float32',
        'card = json.load(open("card.json"))',
        "projection = activation @ direction  # higher: the positive class",
        "```",
        "",
        f"`axes import FOLDER --model {json.dumps(cards[0]['space_model'])}` brings it into a "
        "warehouse of safety-axes.",
    ]


HUB = FileKind(_is_hub_folder, _read, _write)
