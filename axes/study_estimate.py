"""A study before it is run: download, memory, storage and time of its models; what it can show.

The hub gives configurations and file sizes. The time is that of the forward passes alone, at the
speed that the user gives (`axes.ingest.cost`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from axes.analysis.activations import count_prompts
from axes.analysis.stats.power import smallest_effects
from axes.ingest.cost import TERAFLOPS, cost_of, estimated_tokens
from axes.ingest.model_estimate import Estimate, estimate_needs
from axes.ingest.models.hub import is_gated
from axes.ingest.models.registry import resolve
from axes.ingest.prompts import Prompt, read_prompts
from axes.ingest.requests import PlanRequest
from axes.study_plan import PlannedStudy, import_sets, prompt_limits
from axes.warehouse.errors import LabelError, ModelError
from axes.warehouse.handle import Warehouse
from axes.warehouse.progress import byte_text

_CLASSES = """
select
    count(*) filter (is_positive) as positive_count,
    count(*) filter (not is_positive) as negative_count
from v_prompts
where prompt_set = ?
"""
_TOGETHER = "all, one at a time"


@dataclass(frozen=True)
class ModelNeeds:
    """What a model of a study takes, sizes in bytes; None where only fetching it can tell."""

    study: str
    model: str
    is_reference: bool
    parameter_count: int | None
    download_bytes: int
    memory_bfloat16_bytes: int | None
    memory_float32_bytes: int | None
    stored_bytes: int | None
    prompt_count: int
    token_count: int
    seconds: float | None


def estimate_studies(
    root: Path, studies: Sequence[PlannedStudy], *, teraflops: float = TERAFLOPS
) -> tuple[list[ModelNeeds], list[str]]:
    """The needs of the studies' models, and a line for each gated model that cannot be had yet.

    Imports the studies' prompt sets and runs no model. `teraflops` is in 10^12 operations per
    second. Raises `ModelError` or `PromptError` where the hub cannot be reached or knows no such
    model or set.
    """
    import_sets(root, studies)
    needs, refusals = [], []
    for planned in studies:
        prompts = read_prompts(root, prompt_limits(planned.definition))
        for model, origin in planned.origins.items():
            try:
                estimate = estimate_needs(resolve(origin))
            except ModelError as error:
                if not is_gated(error):
                    raise
                refusals.append(str(error))
            else:
                needs.append(_needs(planned, model, estimate, prompts, teraflops))
    return needs, refusals


def in_words(needs: Sequence[ModelNeeds]) -> list[dict[str, str | None]]:
    """The needs as rows for people; the last one has sums, and of the memory the largest."""
    rows = [asdict(each) for each in needs]
    distinct = list({row["model"]: row for row in rows}.values())
    together = {"study": "", "model": _TOGETHER, "is_reference": False, "parameter_count": None}
    for name in ("download_bytes", "stored_bytes", "seconds"):
        together[name] = sum(row[name] or 0 for row in distinct)
    for name in ("memory_bfloat16_bytes", "memory_float32_bytes"):
        together[name] = max((row[name] or 0 for row in distinct), default=0)
    return [
        {
            "study": row["study"],
            "model": row["model"] + (" (reference)" if row["is_reference"] else ""),
            "parameters": row["parameter_count"] and f"{row['parameter_count']:,}",
            "download": byte_text(row["download_bytes"]),
            "memory in 16 bits": _size(row["memory_bfloat16_bytes"]),
            "in float32": _size(row["memory_float32_bytes"]),
            "stored": _size(row["stored_bytes"]),
            "time": row["seconds"] and str(timedelta(seconds=round(row["seconds"]))),
        }
        for row in [*rows, together]
    ]


def study_power(root: Path, studies: Sequence[PlannedStudy]) -> list[dict[str, object]]:
    """The smallest effects that the labelled sets of the studies can show (`smallest_effects`).

    Imports the studies' prompt sets and runs no model. Raises `PromptError` or `LabelError`.
    """
    import_sets(root, studies)
    warehouse, rows = Warehouse.open(root), []
    for planned in studies:
        fitted_on = planned.definition.prompts
        for name in planned.definition.labelled_sets:
            count_prompts(warehouse, name)
            (counts,) = warehouse.query(_CLASSES, [name]).to_pylist()
            if not all(counts.values()):
                raise LabelError(f"{name} needs labelled prompts of both classes")
            effects = smallest_effects(*counts.values(), is_out_of_fold=name == fitted_on)
            of_set = {"study": planned.definition.label, "prompt_set": name, **counts}
            rows.append({**of_set, "is_out_of_fold": name == fitted_on, **asdict(effects)})
    return rows


def _size(count: int | None) -> str | None:
    return None if count is None else byte_text(count)


def _needs(
    planned: PlannedStudy,
    model: str,
    estimate: Estimate,
    prompts: Sequence[Prompt],
    teraflops: float,
) -> ModelNeeds:
    request = PlanRequest(teraflops=teraflops)
    cost = cost_of(estimate, request, len(prompts), estimated_tokens(prompts))
    return ModelNeeds(
        study=planned.definition.label,
        model=model,
        is_reference=model == planned.definition.reference,
        parameter_count=estimate.parameter_count,
        download_bytes=estimate.download_bytes,
        memory_bfloat16_bytes=estimate.memory_bfloat16_bytes,
        memory_float32_bytes=estimate.memory_float32_bytes,
        stored_bytes=cost.bytes,
        prompt_count=cost.prompt_count,
        token_count=cost.token_count,
        seconds=cost.seconds,
    )
