"""One question to an OpenAI-compatible chat endpoint: paced, retried, and counted in tokens.

Tried again, ever later: timeouts, broken connections, 429 and 5xx (a `Retry-After` is kept to).
Everything else that is refused is the user's to mend, and ends the job.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from axes.warehouse.errors import LabelError

KEY_VARIABLES = ("AXES_JUDGE_KEY", "OPENAI_API_KEY")

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass
class Usage:
    """Tokens of all answered requests, as the endpoint counts them."""

    requests: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def cost(self, price_in: float, price_out: float) -> float:
        """In the unit of the prices, which are for a million tokens.

        >>> Usage(input_tokens=2_000_000, output_tokens=500_000).cost(1.5, 4.0)
        5.0
        """
        return (self.input_tokens * price_in + self.output_tokens * price_out) / 1e6


@dataclass
class JudgeClient:
    """Asks `model` at `url` (`https://host/v1`); safe to use from several threads.

    `rate` is the most requests a second. The key comes from `$AXES_JUDGE_KEY` or `$OPENAI_API_KEY`
    and goes nowhere but into the request.
    """

    url: str
    model: str
    rate: float | None = None
    timeout: float = 60.0
    most_tries: int = 6
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LabelError(f"{self.url} is no address such as https://host/v1")
        if parts.username or parts.password or parts.query:
            raise LabelError(
                f"the address of {parts.hostname} holds more than host and path: "
                f"give a key in {KEY_VARIABLES[0]}"
            )
        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
        self._key = key
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
        """Let no request wait for another try: whoever asked has given up."""
        self._is_stopped.set()

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of the answer; raises `LabelError` where there is none in the end."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "response_format": {"type": "json_object"},
        }
        reason = ""
        for attempt in range(self.most_tries):
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
                    raise LabelError(f"{self.url} refuses ({reason}): {self._excerpt(response)}")
                pause = _asked_pause(response, pause)
            if attempt + 1 < self.most_tries:
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
        """What the endpoint says; an error is stored, and some of them repeat the key."""
        said = response.text if self._key is None else response.text.replace(self._key, "***")
        return " ".join(said.split())[:200] or "an empty body"


def _asked_pause(response: httpx2.Response, pause: float) -> float:
    """Seconds to wait: what the endpoint asks for, where it says so in seconds."""
    asked = response.headers.get("retry-after", "").strip()
    return min(int(asked), _LONGEST_PAUSE) if asked.isdecimal() else pause
