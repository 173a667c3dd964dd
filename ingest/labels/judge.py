"""A labeler out of a language model behind an OpenAI-compatible endpoint.

A template file (TOML) says what is asked and which answers are labels. An answer that is not
exactly what was asked for is no label: the completion stays unlabelled, and the run row says why.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from axes.ingest.labels.judge_client import JudgeClient
from axes.ingest.labels.labeling import (
    EVERYTHING,
    Completion,
    Label,
    LabelSummary,
    Scope,
    label_completions,
)
from axes.warehouse.errors import LabelError
from axes.warehouse.runs import Run
from axes.warehouse.writer import content_key

REFUSAL_TEMPLATE = Path(__file__).parents[1] / "judge_refusal.toml"


@dataclass(frozen=True)
class JudgeTemplate:
    """What is asked: `user` holds `{prompt}` and `{completion}`; `labels` are what may be said."""

    labels: tuple[str, ...]
    positive: tuple[str, ...]
    user: str
    system: str = ""

    @property
    def hash(self) -> str:
        return content_key(asdict(self))

    def messages(self, completion: Completion) -> list[dict[str, str]]:
        """The chat to send. What is put in is not searched for placeholders again."""
        before, prompt, rest = self.user.partition("{prompt}")
        filled = [part.replace("{completion}", completion.text) for part in (before, rest)]
        user = completion.prompt.join(filled) if prompt else filled[0]
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": user}]

    def parse(self, generation_id: str, answer: str) -> Label:
        """The label of an answer; raises `LabelError` unless it is one JSON object as asked.

        `confidence` is that of the label given; `score` becomes that of the positive class.
        """
        try:
            found = json.loads(answer)
        except ValueError as error:
            raise LabelError("the answer is no JSON") from error
        if not isinstance(found, dict) or found.get("label") not in self.labels:
            raise LabelError(f"the answer has no label of {', '.join(self.labels)}")
        is_positive = found["label"] in self.positive
        confidence = found.get("confidence")
        if confidence is None:
            return Label(generation_id, found["label"], is_positive)
        if isinstance(confidence, bool) or not isinstance(confidence, int | float):
            raise LabelError("the confidence is no number")
        if not 0 <= confidence <= 1:
            raise LabelError("the confidence is not from 0 to 1")
        score = float(confidence if is_positive else 1 - confidence)
        return Label(generation_id, found["label"], is_positive, score)


@dataclass(frozen=True)
class JudgeSummary(LabelSummary):
    """The same with what it took; `cost` is in the unit of the prices, None without them."""

    requests: int
    retries: int
    input_tokens: int
    output_tokens: int
    cost: float | None


def read_template(path: Path | None) -> JudgeTemplate:
    """The template of a file, by default the packaged one that asks for refusals."""
    path = path or REFUSAL_TEMPLATE
    try:
        entries = tomllib.loads(path.read_text())
        template = JudgeTemplate(
            labels=tuple(entries["labels"]),
            positive=tuple(entries["positive"]),
            user=entries["user"],
            system=entries.get("system", ""),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise LabelError(f"{path} is no template: labels, positive and user are needed") from error
    if not {*template.positive} < {*template.labels} or not template.positive:
        raise LabelError(f"{path}: positive must be some but not all of labels")
    if "{completion}" not in template.user:
        raise LabelError(f"{path}: user must hold {{completion}}")
    return template


def label_by_judge(
    root: Path,
    client: JudgeClient,
    template: JudgeTemplate,
    *,
    labeler: str | None = None,
    concurrency: int = 4,
    price_in: float | None = None,
    price_out: float | None = None,
    scope: Scope = EVERYTHING,
) -> JudgeSummary:
    """Ask the judge about each completion that it has not labelled.

    The labeler is `judge/MODEL@HASH` of the template unless it is named. Labels are committed every
    few requests: an end by Ctrl-C or by an endpoint that gives up costs no more than those.
    """
    labeler = labeler or f"judge/{client.model}@{template.hash[:8]}"

    def decide(run: Run, completions: Sequence[Completion]) -> Iterator[Label]:
        answers = pool.map(lambda item: client.ask(template.messages(item)), completions)
        try:
            for completion, answer in zip(completions, answers, strict=True):
                try:
                    yield template.parse(completion.generation_id, answer)
                except LabelError as error:
                    run.messages.append(f"no label for {completion.generation_id}: {error}")
        finally:
            run.parameters["usage"] = {**asdict(client.usage), "cost": cost()}

    def cost() -> float | None:
        if price_in is None or price_out is None:
            return None
        return client.usage.cost(price_in, price_out)

    parameters = {
        "kind": "judge",
        "judge_url": client.url,
        "judge_model": client.model,
        "template_hash": template.hash,
        "template": asdict(template),
        "price_in": price_in,
        "price_out": price_out,
    }
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            summary = label_completions(
                root, labeler, decide, parameters, chunk=4 * concurrency, scope=scope
            )
        except BaseException:
            client.stop()
            raise
    return JudgeSummary(**asdict(summary), **asdict(client.usage), cost=cost())
