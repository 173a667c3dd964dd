"""Completions as trajectories: their projections on one axis, step by step, with a label for each.

Every analysis of drift reads its rows here, so that which completions it rests on, and in which
order, is the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from axes.warehouse.axes import Axis, AxisReadout
from axes.warehouse.errors import AxisError, CoverageError, LabelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.storage.files import replacing
from axes.warehouse.writer import content_key

# In `generations.source`: the text was generated under this id, for another prompt.
OTHER_TEXT = "generation:"


@dataclass(frozen=True)
class Selection:
    """Which completions of a model, and who says which class they are of.

    Without a `labeler` it is the label of the prompt (`v_prompts`); else the labeler's label of the
    completion or, where it has none, of the prompt. What is None is not narrowed down.
    """

    prompt_set: str | None = None
    labeler: str | None = None
    template: str | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class Trajectories:
    """Completions of one model on one axis, in the order of their ids.

    `values` is NaN past a completion's last step. `start` is the projection of the prompt (NaN
    where it was not projected), `groups` numbers completions that belong together (of one prompt,
    or of a matched pair of prompts). `sampling` is how all of them were made; `unlabelled_count`
    completions were left out.
    """

    prompt_set: str
    sampling: dict[str, str | float]
    generation_ids: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    is_positive: Bool[np.ndarray, " row"]
    groups: Int[np.ndarray, " row"]
    start: Float[np.ndarray, " row"]
    values: Float[np.ndarray, "row step"]
    unlabelled_count: int = 0

    @property
    def lengths(self) -> Int[np.ndarray, " row"]:
        """Steps of each completion."""
        return (~np.isnan(self.values)).sum(axis=1)

    @property
    def row_set_hash(self) -> str:
        """Hash of the completions in order, with their labels and their lengths."""
        return content_key(self.generation_ids, self.is_positive.tolist(), self.lengths.tolist())

    def take(self, index: np.ndarray) -> Trajectories:
        """The completions of `index`, in its order."""
        return replace(
            self,
            generation_ids=tuple(self.generation_ids[i] for i in index),
            prompt_ids=tuple(self.prompt_ids[i] for i in index),
            texts=tuple(self.texts[i] for i in index),
            is_positive=self.is_positive[index],
            groups=self.groups[index],
            start=self.start[index],
            values=self.values[index],
        )


def traced_models(
    warehouse: Warehouse, axis: Axis, models: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Names and ids of the models with traces: those named, or those projected on the axis.

    A model is NAME, or NAME@ID where versions differ. Raises `AxisError` where there are none.
    """
    traced = warehouse.query(
        """
        select
            model,
            model_id,
            model_id = $space_model_id
            or model_id in (select model_id from projections where axis_id = $axis_id)
                as is_projected
        from models
        where model_id in (select model_id from generations)
        order by all
        """,
        {"axis_id": axis.axis_id, "space_model_id": axis.space.model_id},
    ).to_pylist()
    chosen = []
    for wanted in models or [""]:
        name, _, prefix = wanted.partition("@")
        fitting = [
            (row["model"], row["model_id"])
            for row in traced
            if (row["model"] == name if name else row["is_projected"])
            and row["model_id"].startswith(prefix)
        ]
        if not fitting:
            stored = ", ".join(sorted({row["model"] for row in traced})) or "none"
            model = wanted or f"a model that is projected on {axis.name}"
            raise AxisError(f"no traces of {model} (stored: {stored}): run `axes ingest traces`")
        chosen += fitting
    return chosen


@dataclass(frozen=True)
class _Completion:
    """A row of `_COMPLETIONS`; completions of one `group_name` belong together."""

    generation_id: str
    prompt_id: str
    prompt_set: str
    template: str
    max_new_tokens: int
    temperature: float
    top_p: float
    group_name: str
    start: float | None
    is_positive: bool | None

    @property
    def sampling(self) -> dict[str, str | float]:
        """What completions may not differ in: they would not be draws of one distribution."""
        names = ("template", "max_new_tokens", "temperature", "top_p")
        return {name: getattr(self, name) for name in names}


def read_trajectories(
    warehouse: Warehouse, readout: AxisReadout, selection: Selection
) -> Trajectories:
    """The completions that a model generated, unsteered, and that are projected on the axis.

    Raises `CoverageError` where there are none or those of several kinds, `LabelError` where a
    class is missing.
    """
    keys = {**vars(selection), **readout.columns}
    completions = warehouse.rows(_Completion, _COMPLETIONS, keys)
    _require_one_kind(readout, completions)
    labelled = [row for row in completions if row.is_positive is not None]
    is_positive = np.array([row.is_positive for row in labelled], dtype=bool)
    positive_count = int(is_positive.sum())
    if min(positive_count, len(labelled) - positive_count) < 2:
        raise LabelError(
            f"{positive_count} positive and {len(labelled) - positive_count} negative of "
            f"{len(completions)} completions of {readout.model} by "
            f"{selection.labeler or 'the labels of their prompts'}: each class needs two"
        )
    values, texts = _values(warehouse, readout, [row.generation_id for row in labelled])
    trajectories = Trajectories(
        prompt_set=labelled[0].prompt_set,
        sampling=labelled[0].sampling,
        generation_ids=tuple(row.generation_id for row in labelled),
        prompt_ids=tuple(row.prompt_id for row in labelled),
        texts=texts,
        is_positive=is_positive,
        groups=np.unique([row.group_name for row in labelled], return_inverse=True)[1],
        start=np.array([row.start for row in labelled], dtype=np.float64),
        values=values,
        unlabelled_count=len(completions) - len(labelled),
    )
    lengths = trajectories.lengths
    if min(lengths[is_positive].max(), lengths[~is_positive].max()) < 2:
        raise CoverageError(
            f"every completion of {readout.model} in a class has a single token, and so no slope: "
            "run `axes ingest traces` with a larger --max-new-tokens"
        )
    return trajectories


def read_other_texts(
    warehouse: Warehouse, readout: AxisReadout, trajectories: Trajectories
) -> Trajectories | None:
    """The same model reading, after each prompt, a text that it wrote for one of the other class.

    The rows that `axes ingest traces --completions` made of the file of `write_cross_completions`,
    labelled by the class of the prompt; None where there are none.
    """
    read = warehouse.query(
        """
        select generation_id, prompt_id, source
        from generations
        where
            model = $model and model_id = $model_id and finish_reason = 'given'
            and starts_with(source, $mark)
            and generation_id in (
                select generation_id from token_projections
                where
                    model = $model and axis_id = $axis_id and layer = $layer
                    and alignment_id is not distinct from $alignment_id
            )
        order by generation_id
        """,
        {**readout.columns, "mark": OTHER_TEXT},
    ).to_pydict()
    row_of_prompt = {prompt_id: row for row, prompt_id in enumerate(trajectories.prompt_ids)}
    row_of_text = {name: row for row, name in enumerate(trajectories.generation_ids)}
    row_of_reader = {}
    for generation_id, prompt_id, source in zip(*read.values(), strict=True):
        reader = row_of_prompt.get(prompt_id)
        writer = row_of_text.get(source.removeprefix(OTHER_TEXT))
        classes = {trajectories.is_positive[row] for row in (reader, writer) if row is not None}
        if len(classes) == 2:
            row_of_reader[generation_id] = reader
    if not row_of_reader:
        return None
    values, texts = _values(warehouse, readout, list(row_of_reader))
    readers = trajectories.take(np.array(list(row_of_reader.values())))
    return replace(readers, generation_ids=tuple(row_of_reader), texts=texts, values=values)


def write_cross_completions(
    warehouse: Warehouse, trajectories: Trajectories, path: Path, *, seed: int = 0
) -> Path:
    """Write JSONL pairs of each prompt with a random completion of the other class; the path.

    `axes ingest traces MODEL --completions FILE` scores them, and the next analysis reads them.
    """
    random = np.random.default_rng(seed)
    written = warehouse.query(
        "select generation_id, text from generations where list_contains(?, generation_id)",
        [list(trajectories.generation_ids)],
    ).to_pydict()
    texts = dict(zip(written["generation_id"], written["text"], strict=True))
    lines = []
    for of_class in (True, False):
        readers = np.flatnonzero(trajectories.is_positive == of_class)
        writers = np.flatnonzero(trajectories.is_positive != of_class)
        drawn = np.resize(random.permutation(writers), len(readers))
        for reader, writer in zip(readers, drawn, strict=True):
            name = trajectories.generation_ids[writer]
            if texts[name]:
                line = {"prompt_id": trajectories.prompt_ids[reader], "completion": texts[name]}
                lines.append(json.dumps({**line, "source": f"{OTHER_TEXT}{name}"}))
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    return path


_COMPLETIONS = """
with completions as (
    select generations.*
    from generations
    where
        generations.model = $model and generations.model_id = $model_id
        and generations.axis_id is null and generations.finish_reason != 'given'
        and template = coalesce($template, template)
        and max_new_tokens = coalesce($max_new_tokens, max_new_tokens)
        and exists (
            from token_projections as projected
            where
                projected.model = $model and projected.axis_id = $axis_id
                and projected.layer = $layer
                and projected.alignment_id is not distinct from $alignment_id
                and projected.generation_id = generations.generation_id
        )
)

select
    completions.generation_id,
    completions.prompt_id,
    prompts.prompt_set,
    completions.template,
    completions.max_new_tokens,
    completions.temperature,
    completions.top_p,
    coalesce('pair ' || nullif(prompts.pair_id, ''), 'prompt ' || prompts.prompt_id)
        as group_name,
    projections.projection as start,
    case
        when $labeler is null then prompts.is_positive
        else coalesce(of_completions.is_positive, of_prompts.is_positive)
    end as is_positive
from completions
inner join v_prompts as prompts
    on
        completions.prompt_id = prompts.prompt_id
        and prompts.prompt_set = coalesce($prompt_set, prompts.prompt_set)
left join labels as of_completions
    on
        of_completions.labeler = $labeler
        and completions.generation_id = of_completions.generation_id
left join labels as of_prompts
    on
        of_prompts.labeler = $labeler and of_prompts.generation_id is null
        and prompts.prompt_set = of_prompts.prompt_set
        and prompts.prompt_id = of_prompts.prompt_id
left join projections
    on
        projections.model = $model and projections.model_id = $model_id
        and projections.axis_id = $axis_id
        and completions.prompt_id = projections.prompt_id
order by completions.generation_id, prompts.prompt_set
"""


def _require_one_kind(readout: AxisReadout, completions: Sequence[_Completion]) -> None:
    if not completions:
        raise CoverageError(
            f"no completions of {readout.model} are projected on {readout.axis_name} at layer "
            f"{readout.layer}: run `axes ingest traces {readout.model} --prompts SET "
            f"--layers {readout.layer}` first"
        )
    prompt_sets = sorted({row.prompt_set for row in completions})
    if len(prompt_sets) > 1:
        raise CoverageError(
            f"completions of {readout.model} are of the prompt sets {', '.join(prompt_sets)}: "
            "say which with --prompts"
        )
    kinds = sorted(
        {
            ", ".join(f"{name} {value}" for name, value in row.sampling.items())
            for row in completions
        }
    )
    if len(kinds) > 1:
        raise CoverageError(
            f"completions of {readout.model} are of several kinds: say which with --template and "
            f"--max-new-tokens ({'; '.join(kinds)})"
        )


def _values(
    warehouse: Warehouse, readout: AxisReadout, generation_ids: list[str]
) -> tuple[Float[np.ndarray, "row step"], tuple[tuple[str, ...], ...]]:
    """Projections `[row, step]`, NaN past the end, and each completion's tokens as text."""
    table = warehouse.query(
        """
        select projected.generation_id, projected.step, projected.projection, tokens.token
        from token_projections as projected
        inner join generation_tokens as tokens using (model, generation_id, step, layer)
        where
            projected.model = $model and projected.axis_id = $axis_id
            and projected.layer = $layer and projected.step >= 0
            and projected.alignment_id is not distinct from $alignment_id
            and list_contains($generation_ids, projected.generation_id)
        order by projected.generation_id, projected.step
        """,
        {
            **{name: value for name, value in readout.columns.items() if name != "model_id"},
            "generation_ids": generation_ids,
        },
    )
    row_of = {name: row for row, name in enumerate(generation_ids)}
    steps = table.column("step").to_numpy()
    at = np.array([row_of[name] for name in table.column("generation_id").to_pylist()])
    values = np.full((len(generation_ids), int(steps.max()) + 1), np.nan)
    values[at, steps] = table.column("projection").to_numpy()
    texts: list[list[str]] = [[] for _ in generation_ids]
    for row, token in zip(at, table.column("token").to_pylist(), strict=True):
        texts[row].append(token)
    return values, tuple(tuple(tokens) for tokens in texts)
