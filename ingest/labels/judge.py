"""A labeler out of a language model behind an OpenAI-compatible endpoint.

A template file (TOML) holds the question and the allowed labels. An answer in another form is not a
label: the completion stays unlabelled, and the run row says why.

Requests are paced and counted in tokens. Timeouts, broken connections, 429 and 5xx are retried with
growing pauses (`Retry-After` is respected). Any other refusal ends the job.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx2

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
    """The question: `user` holds `{prompt}` and `{completion}`; `labels` are the allowed labels."""

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
        """The label of an answer; raises `LabelError` unless it is one JSON object as requested.

        `confidence` is that of the label given; `score` becomes that of the positive class.
        """
        try:
            parsed = json.loads(answer)
        except ValueError as error:
            raise LabelError("the answer is not JSON") from error
        if not isinstance(parsed, dict) or parsed.get("label") not in self.labels:
            raise LabelError(f"the answer has no label of {', '.join(self.labels)}")
        is_positive = parsed["label"] in self.positive
        confidence = parsed.get("confidence")
        if confidence is None:
            return Label(generation_id, parsed["label"], is_positive)
        if isinstance(confidence, bool) or not isinstance(confidence, int | float):
            raise LabelError("the confidence is not a number")
        if not 0 <= confidence <= 1:
            raise LabelError("the confidence is not from 0 to 1")
        score = float(confidence if is_positive else 1 - confidence)
        return Label(generation_id, parsed["label"], is_positive, score)


@dataclass(frozen=True)
class JudgeSummary(LabelSummary):
    """A `LabelSummary` with requests, tokens and cost, which is None without prices."""

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
        raise LabelError(
            f"{path} is not a template: labels, positive and user are needed"
        ) from error
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
    """Ask the judge about each completion that it has not labelled yet.

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
            cost = client.usage.cost(price_in, price_out)
            run.parameters = {**run.parameters, "usage": {**asdict(client.usage), "cost": cost}}

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
    cost = client.usage.cost(price_in, price_out)
    return JudgeSummary(**asdict(summary), **asdict(client.usage), cost=cost)


KEY_VARIABLES = ("AXES_JUDGE_KEY", "OPENAI_API_KEY")
_OPENAI_HOST = "api.openai.com"

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass
class Usage:
    """Tokens of all answered requests, as the endpoint counts them."""

    requests: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def cost(self, price_in: float | None, price_out: float | None) -> float | None:
        """In the unit of the prices, which are for a million tokens; None without them.

        >>> Usage(input_tokens=2_000_000, output_tokens=500_000).cost(1.5, 4.0)
        5.0
        """
        if price_in is None or price_out is None:
            return None
        return (self.input_tokens * price_in + self.output_tokens * price_out) / 1e6


@dataclass
class JudgeClient:
    """Asks `model` at `url` (`https://host/v1`); safe to use from several threads.

    `rate` is the most requests a second. The key comes from `$AXES_JUDGE_KEY`, or for OpenAI's host
    from `$OPENAI_API_KEY`, and goes nowhere but into the request. Raises `LabelError` for an
    address that cannot be used, or would take the key over plain http to another machine.
    """

    url: str
    model: str
    rate: float | None = None
    timeout: float = 60.0
    max_tries: int = 6
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        # By the client's own parser, so that the host that is checked is the one that is sent to.
        try:
            url = httpx2.URL(self.url)
        except httpx2.InvalidURL as error:
            raise LabelError("the judge's address is not one such as https://host/v1") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise LabelError("the judge's address is not one such as https://host/v1")
        if url.userinfo or url.query:
            raise LabelError(
                f"the address of {url.host} holds more than host and path: "
                f"give a key in {KEY_VARIABLES[0]}"
            )
        self._key = key = _key(url.scheme, url.host)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx2.Client(headers=headers, timeout=self.timeout)
        self._lock = threading.Lock()
        self._is_stopped = threading.Event()
        self._next_start = 0.0

    def __enter__(self) -> JudgeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def stop(self) -> None:
        """Let no request wait for another try: the job has given up."""
        self._is_stopped.set()

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of the answer; raises `LabelError` where no try gets one."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "response_format": {"type": "json_object"},
        }
        reason = ""
        for attempt in range(self.max_tries):
            self._await_turn()
            pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
            try:
                response = self._http.post(f"{self.url.rstrip('/')}/chat/completions", json=body)
            except httpx2.TransportError as error:
                reason = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return self._take(response)
                reason = f"status {response.status_code}"
                if response.status_code != 429 and response.status_code < 500:
                    is_keyless = response.status_code == 401 and self._key is None
                    reason += f"; no key is in ${KEY_VARIABLES[0]}" if is_keyless else ""
                    raise LabelError(f"{self.url} refuses ({reason}): {self._excerpt(response)}")
                asked = response.headers.get("retry-after", "").strip()
                pause = min(int(asked), _LONGEST_PAUSE) if asked.isdecimal() else pause
            if attempt + 1 < self.max_tries:
                with self._lock:
                    self.usage.retries += 1
                # Requests that failed together must not come again together.
                if self._is_stopped.wait(pause * random.uniform(0.5, 1.0)):
                    break
        raise LabelError(
            f"{self.url} gave no answer in {attempt + 1} tries ({reason}): "
            "run the same command again to go on from here"
        )

    def _await_turn(self) -> None:
        """Wait until another request may start."""
        if self.rate is None:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + 1 / self.rate
        time.sleep(start - now)

    def _take(self, response: httpx2.Response) -> str:
        try:
            answer: Any = response.json()
            text = answer["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise LabelError(
                f"{self.url} does not answer as an OpenAI-compatible chat endpoint does: "
                f"{self._excerpt(response)}"
            ) from error
        usage = answer.get("usage") or {}
        with self._lock:
            self.usage.requests += 1
            self.usage.input_tokens += usage.get("prompt_tokens") or 0
            self.usage.output_tokens += usage.get("completion_tokens") or 0
        return text or ""

    def _excerpt(self, response: httpx2.Response) -> str:
        """The answer without the key: an error is stored, and some endpoints repeat the key."""
        text = response.text if self._key is None else response.text.replace(self._key, "***")
        return " ".join(text.split())[:200] or "an empty body"


def _key(scheme: str, host: str) -> str | None:
    """The key for a host: OpenAI's is for OpenAI, and none crosses a network in the clear."""
    own, openai = (os.environ.get(name) for name in KEY_VARIABLES)
    key = own or (openai if host == _OPENAI_HOST else None)
    if key and scheme == "http" and not _is_loopback(host):
        raise LabelError(
            f"http://{host} would take the key in the clear: use https, or unset {KEY_VARIABLES[0]}"
        )
    return key or None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
