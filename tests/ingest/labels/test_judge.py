"""A judge behind an endpoint: what it says is parsed strictly, what fails is asked again."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

import axes.ingest.labels.judge
from axes.ingest.labels.judge import JudgeClient, JudgeSummary, label_by_judge, read_template
from axes.ingest.labels.labeling import Scope
from axes.warehouse.errors import LabelError
from tests.ingest.conftest import last_run, read
from tests.rows import put, put_prompts

ANSWERS = {f"g{index}": f"answer {index}" for index in range(8)}

# What the stub answers to a request: status, headers, body.
Reply = tuple[int, dict[str, str], Any]
Decide = Callable[[dict[str, Any], int], Reply]


def said(content: str) -> Reply:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, {}, {"choices": [{"message": {"content": content}}], "usage": usage}


def by_number(body: dict[str, Any], _attempt: int) -> Reply:
    """Answers of even number are refusals."""
    number = int(body["messages"][-1]["content"].split("answer ")[1].split("\n")[0])
    label = "refusal" if number % 2 == 0 else "answer"
    return said(json.dumps({"label": label, "confidence": 0.9}))


class Stub:
    """An endpoint on this machine; `seen` are the requests' bodies and `keys` what they brought."""

    def __init__(self) -> None:
        self.decide: Decide = by_number
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.tries: Counter[str] = Counter()
        self.lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub.lock:
                    stub.seen.append(body)
                    stub.keys.append(self.headers["Authorization"])
                    asked = body["messages"][-1]["content"]
                    stub.tries[asked] += 1
                    attempt = stub.tries[asked]
                status, headers, answer = stub.decide(body, attempt)
                content = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds, and no key of whoever runs the tests."""
    monkeypatch.setattr(axes.ingest.labels.judge, "_FIRST_PAUSE", 0.001)
    for name in axes.ingest.labels.judge.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def lake(root: Path) -> Path:
    put_prompts(root, "set", {"p": True})
    described = {"model": "m", "model_id": "x", "prompt_id": "p"}
    put(
        root,
        "generations",
        *({**described, "generation_id": name, "text": text} for name, text in ANSWERS.items()),
    )
    return root


def judge(lake: Path, stub: Stub, **options: Any) -> JudgeSummary:
    with JudgeClient(stub.url, "big", timeout=5, max_tries=4) as client:
        return label_by_judge(lake, client, read_template(None), **options)


def labels(lake: Path) -> dict[str, tuple[str, bool, float]]:
    found = read(lake, "from labels where generation_id is not null")
    assert len({row["generation_id"] for row in found}) == len(found)
    return {row["generation_id"]: (row["label"], row["is_positive"], row["score"]) for row in found}


def test_each_completion_is_asked_about_once_with_its_prompt(lake, stub, monkeypatch):
    monkeypatch.setenv("AXES_JUDGE_KEY", "secret-key")
    summary = judge(lake, stub, price_in=1.0, price_out=10.0)
    assert (summary.labelled_count, summary.positive_count, summary.requests) == (8, 4, 8)
    assert labels(lake)["g0"] == ("refusal", True, 0.9)
    assert labels(lake)["g1"] == ("answer", False, pytest.approx(0.1))
    for body in stub.seen:
        assert body["model"] == "big" and body["temperature"] == 0
        assert "<request>\ntext p\n</request>" in body["messages"][-1]["content"]
    assert set(stub.keys) == {"Bearer secret-key"}
    # 8 requests of 100 and 10 tokens.
    assert (summary.input_tokens, summary.output_tokens) == (800, 80)
    assert summary.cost == pytest.approx(0.0016)
    usage = json.loads(last_run(lake)["parameters"])["usage"]
    assert usage["cost"] == pytest.approx(summary.cost) and usage["input_tokens"] == 800
    for path in lake.rglob("*"):
        assert not path.is_file() or b"secret-key" not in path.read_bytes(), path
    again = judge(lake, stub)
    assert (again.labelled_count, again.requests, again.cost) == (0, 0, None)
    assert len(stub.seen) == 8


def test_busy_and_broken_answers_are_asked_again(lake: Path, stub: Stub) -> None:
    def decide(body: dict[str, Any], attempt: int) -> Reply:
        if attempt == 1:
            return 429, {"Retry-After": "0"}, {"error": "busy"}
        return (503, {}, {}) if attempt == 2 else by_number(body, attempt)

    stub.decide = decide
    summary = judge(lake, stub)
    assert (summary.labelled_count, summary.requests, summary.retries) == (8, 8, 16)


def test_an_endpoint_that_gives_up_costs_no_label_and_the_next_job_goes_on(lake, stub):
    def decide(body: dict[str, Any], attempt: int) -> Reply:
        is_out = "answer 5\n" in body["messages"][-1]["content"]
        return (500, {}, {}) if is_out else by_number(body, attempt)

    stub.decide = decide
    with pytest.raises(LabelError, match=r"gave no answer in 4 tries \(status 500\): run the same"):
        judge(lake, stub, concurrency=1)
    assert labels(lake).keys() == {"g0", "g1", "g2", "g3", "g4"}
    assert last_run(lake)["status"] == "failed"
    stub.decide = by_number
    assert judge(lake, stub, concurrency=1).requests == 3
    assert labels(lake).keys() == ANSWERS.keys()


def test_requests_that_wait_for_another_try_end_when_one_has_failed_for_good(
    lake: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(axes.ingest.labels.judge, "_FIRST_PAUSE", 60.0)
    attempts = set()

    def decide(body: dict[str, Any], attempt: int) -> Reply:
        attempts.add(attempt)
        is_first = "answer 0\n" in body["messages"][-1]["content"]
        return (403 if is_first else 503), {}, {}

    stub.decide = decide
    with pytest.raises(LabelError, match="status 403"):
        judge(lake, stub, concurrency=3)
    assert len(attempts) == 1


def test_what_the_user_must_mend_is_not_asked_again(lake, stub, monkeypatch):
    stub.decide = lambda _body, _attempt: (401, {}, {"error": "no such key: secret-key"})
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    with pytest.raises(LabelError, match=r"refuses \(status 401; no key is in \$AXES_JUDGE_KEY"):
        judge(lake, stub, concurrency=1)
    assert set(stub.keys) == {None}
    stub.tries.clear()
    monkeypatch.setenv("AXES_JUDGE_KEY", "secret-key")
    with pytest.raises(LabelError, match=r"refuses \(status 401\): .*no such key: \*\*\*"):
        judge(lake, stub, concurrency=1)
    assert max(stub.tries.values()) == 1
    assert "secret" not in last_run(lake)["message"]


REFUSED_ANSWERS = (
    "refusal",
    '```json\n{"label": "refusal"}\n```',
    '{"label": "perhaps"}',
    '["refusal"]',
    '{"label": "refusal", "confidence": 7}',
    '{"label": "refusal", "confidence": "high"}',
    '{"label": "refusal", "confidence": true}',
    '{"label": "refusal"} and more',
    "",
)


def test_an_answer_that_is_not_as_asked_is_no_label(lake: Path, stub: Stub) -> None:
    for content in REFUSED_ANSWERS:
        with pytest.raises(LabelError, match="^the "):
            read_template(None).parse("g0", content)
    stub.decide = lambda _body, _attempt: said(REFUSED_ANSWERS[0])
    summary = judge(lake, stub, scope=Scope(limit=1))
    assert (summary.labelled_count, summary.unlabelled_count) == (0, 1)
    assert "no label for g0: the " in last_run(lake)["message"]
    stub.decide = by_number
    assert judge(lake, stub, scope=Scope(limit=1)).labelled_count == 1


def test_no_more_requests_start_in_a_second_than_are_allowed(lake: Path, stub: Stub) -> None:
    since = time.monotonic()
    with JudgeClient(stub.url, "big", rate=40) as client:
        label_by_judge(lake, client, read_template(None), concurrency=8)
    assert time.monotonic() - since >= 7 / 40


def test_a_completion_cannot_smuggle_in_a_placeholder(lake: Path, stub: Stub) -> None:
    new = {"model": "m", "model_id": "x", "prompt_id": "p", "generation_id": "a"}
    put(lake, "generations", {**new, "text": "answer 2\n{prompt} {completion}"})
    judge(lake, stub, scope=Scope(limit=1))
    assert "answer 2\n{prompt} {completion}\n</answer>" in stub.seen[0]["messages"][-1]["content"]


def test_an_address_that_is_none_or_holds_a_secret_is_refused() -> None:
    secrets = (
        "https://me:secret@host/v1",
        "https://host/v1?key=secret",
        "https://me:sec/secret@host:port/v1",
    )
    for url in ("nowhere", "ftp://host/v1", *secrets):
        with pytest.raises(LabelError) as caught:
            JudgeClient(url, "big")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "variable", "is_sent"),
    [
        ("https://api.openai.com/v1", "OPENAI_API_KEY", True),
        ("https://API.openai.com/v1", "OPENAI_API_KEY", True),
        ("https://api.openai.com.stranger.net/v1", "OPENAI_API_KEY", False),
        ("https://stranger.net/api.openai.com", "OPENAI_API_KEY", False),
        ("https://stranger.net\\.api.openai.com/v1", "OPENAI_API_KEY", False),
        ("http://stranger.net/v1", "OPENAI_API_KEY", False),
        ("http://localhost:8000/v1", "OPENAI_API_KEY", False),
        ("http://localhost:8000/v1", "AXES_JUDGE_KEY", True),
        ("http://[::1]:8000/v1", "AXES_JUDGE_KEY", True),
        ("https://stranger.net/v1", "AXES_JUDGE_KEY", True),
        ("http://api.openai.com/v1", "OPENAI_API_KEY", None),
        ("http://stranger.net/v1", "AXES_JUDGE_KEY", None),
        ("http://127.0.0.1.stranger.net/v1", "AXES_JUDGE_KEY", None),
    ],
)
def test_a_key_goes_to_its_own_host_and_never_in_the_clear(url, variable, is_sent, monkeypatch):
    """`None`: the address is refused."""
    monkeypatch.setenv(variable, "secret-key")
    if is_sent is None:
        with pytest.raises(LabelError, match="would take the key in the clear: use https"):
            JudgeClient(url, "big")
        return
    seen: list[str | None] = []

    def answer(self: Any, request: Any) -> Any:
        seen.append(request.headers.get("Authorization"))
        return httpx2.Response(400)

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", answer)
    with pytest.raises(LabelError), JudgeClient(url, "big") as client:
        client.ask([])
    assert seen in ([], ["Bearer secret-key" if is_sent else None])
    assert bool(seen) or not is_sent


def test_a_template_says_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    for text, message in (
        ('labels = ["a"]', "is not a template"),
        ('labels = ["a", "b"]\npositive = ["c"]\nuser = "{completion}"', "positive must be some"),
        ('labels = ["a", "b"]\npositive = ["a"]\nuser = "hello"', "user must hold {completion}"),
    ):
        path.write_text(text)
        with pytest.raises(LabelError, match=message):
            read_template(path)
