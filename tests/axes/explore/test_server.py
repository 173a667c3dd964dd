"""Who may ask, what is never answered, and that hidden texts stay away until they are asked for."""

from __future__ import annotations

import csv
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from axes.explore.server import STATIC, application, serve
from axes.warehouse.errors import RootError, ServingError
from axes.warehouse.safe import Limits
from tests.explored import DISPUTED, FORBIDDEN, UNIVERSAL, prompt_text
from tests.rows import file_bytes

TOKEN, PORT = "a-token", 8600
LIMITS = Limits(seconds=5, memory_mb=512, threads=1, result_mb=8)
GETS = ["", "vega.js", "catalog", "choices", "prompts", "completions", "completion", "text"]
GETS += ["start", "axis", "scatter", "layers", "differences", "static/app.js"]
SECRET = "a line that no query may show"


@pytest.fixture(scope="module")
def client(explored: Path) -> Iterator[TestClient]:
    app = application(explored, token=TOKEN, port=PORT, limits=LIMITS)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}/{TOKEN}/") as asking:
        yield asking


def asked(client: TestClient, sql: str, path: str = "sql"):
    return client.post(path, json={"sql": sql})


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("token", ["", "/", "/wrong", "/a-toke", "/a-tokenx", "/ä"])
def test_without_the_token_nothing_is_answered(client: TestClient, path: str, token: str) -> None:
    refused = client.get(f"http://127.0.0.1:{PORT}{token}/{path}")
    assert refused.status_code == 403
    assert len(refused.text) < 80


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1:1", ""])
def test_another_name_for_this_machine_is_refused(client: TestClient, host: str) -> None:
    assert client.get("", headers={"Host": host}).status_code == 421
    assert client.get("", headers={"Host": f"localhost:{PORT}"}).status_code == 200


def test_a_page_of_another_site_may_not_ask(client: TestClient) -> None:
    refused = client.post("sql", json={"sql": "1"}, headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403
    own = {"Origin": f"http://127.0.0.1:{PORT}"}
    assert client.get("choices", headers=own).status_code == 200


def test_nothing_but_questions_can_be_sent(client: TestClient, explored: Path) -> None:
    before = file_bytes(explored)
    for path in GETS:
        assert client.post(path).status_code == 405
    for path in (*GETS, "sql"):
        for method in ("PUT", "DELETE", "PATCH"):
            assert client.request(method, path).status_code == 405
    for body in (b"", b"[]", b"{", b'{"sql": 1}', b"x" * 500_000):
        assert client.post("sql", content=body).status_code in (400, 413)
    assert file_bytes(explored) == before


def test_every_answer_has_a_policy_that_lets_no_other_code_run(client: TestClient) -> None:
    for answer in (client.get(""), client.get("nowhere"), client.get("http://x/")):
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy and "http" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_names_no_other_place(client: TestClient) -> None:
    page = client.get("").text
    for path in STATIC.iterdir():
        page += client.get(f"static/{path.name}").text
    addresses = [word for word in page.split('"') if word.startswith(("http:", "https:", "//"))]
    names = ("https://vega.github.io/schema/", "http://www.w3.org/2000/svg")
    assert all(address.startswith(names) for address in addresses), addresses


def test_no_file_outside_the_static_ones_is_served(client: TestClient) -> None:
    for path in ("static/../server.py", "static/%2e%2e/server.py", "static//etc/passwd", "static/"):
        assert client.get(path).status_code in (403, 404)


def test_hostile_statements_get_a_line_and_no_data(client: TestClient, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    reading = f"from read_text('{outside}/secret.txt')"
    writing = f"copy prompts to '{outside}/a.csv'"
    for sql in (reading, writing, "select getenv('HOME')"):
        answer = asked(client, sql)
        assert answer.status_code == 400
        assert answer.json().keys() == {"error"}
        assert SECRET not in answer.text
        assert len(answer.json()["error"].splitlines()) == 1
    assert sorted(path.name for path in outside.iterdir()) == ["secret.txt"]


def test_csv_has_all_rows(client: TestClient) -> None:
    saved = asked(client, "select range as a, 'x, y' as b from range(700)", "csv")
    assert saved.headers["content-type"].startswith("text/csv")
    lines = list(csv.reader(saved.text.splitlines()))
    assert lines[0] == ["a", "b"] and lines[-1] == ["699", "x, y"] and len(lines) == 701


def test_typed_sql_shows_no_positive_text_before_it_is_asked_for(client: TestClient) -> None:
    answer = asked(client, "select text, 1.5 as text from prompts, range(10) order by prompt_id")
    assert answer.status_code == 200 and FORBIDDEN not in answer.text
    found = answer.json()
    assert [column["name"] for column in found["columns"]] == ["text", "text_1"]
    assert (found["row_count"], len(found["rows"])) == (650, 500)
    assert found["rows"][10] == [prompt_text(1), 1.5]
    shown = client.get("text", params={"number": found["rows"][0][0]["hidden"]})
    assert shown.json()["text"] == prompt_text(0)


def test_a_chart_has_more_rows_and_its_hidden_texts_stay_hidden(client: TestClient) -> None:
    answer = asked(client, "select text, range as n from prompts, range(400)", "chart")
    assert answer.status_code == 200 and FORBIDDEN not in answer.text
    found = answer.json()
    assert (found["row_count"], len(found["rows"])) == (26_000, 20_000)
    number = next(row[0]["hidden"] for row in found["rows"] if isinstance(row[0], dict))
    assert client.get("text", params={"number": number}).status_code == 404


def test_an_error_that_quotes_a_positive_text_is_hidden(client: TestClient) -> None:
    refused = asked(client, f"select text::int from prompts where contains(text, '{FORBIDDEN}')")
    assert refused.status_code == 400
    assert FORBIDDEN not in refused.text
    number = refused.json()["detail"]["hidden"]
    assert FORBIDDEN in client.get("text", params={"number": number}).json()["text"]


def test_pages_show_no_positive_text_before_it_is_asked_for(client: TestClient) -> None:
    prompts = client.get("prompts", params={"prompt_set": "marked", "axis": UNIVERSAL})
    listed = client.get("completions")
    one = client.get("completion", params={"generation": "g-alpha-p0000"})
    axis = client.get("axis", params={"axis": UNIVERSAL})
    for answer in (prompts, listed, one, axis):
        assert answer.status_code == 200 and FORBIDDEN not in answer.text
    number = prompts.json()["prompts"][0]["text"]["hidden"]
    assert client.get("text", params={"number": number}).json()["text"] == prompt_text(0)
    shown = client.get("completion", params={"generation": "g-alpha-p0000", "is_revealed": "true"})
    assert shown.json()["steps"][0]["token"] == f" {FORBIDDEN}0"
    assert client.get("text", params={"number": "0" * 16}).status_code == 404


def test_bad_parameters_are_refused_in_one_line(client: TestClient) -> None:
    for path, parameters in (
        ("prompts", {"prompt_set": "marked", "order": "text; drop view prompts"}),
        ("prompts", {"prompt_set": "marked", "page": "-1"}),
        ("completion", {"generation": "nothing"}),
        ("axis", {"axis": "' or true --"}),
        ("completion", {"generation": "g-alpha-p0000", "layer": "x"}),
    ):
        refused = client.get(path, params=parameters)
        assert refused.status_code == 400
        assert refused.json()["error"]


def test_completions_of_a_statement_come_from_the_warehouse(client: TestClient) -> None:
    typed = {"before": "select a.ax", "after": " from axes as a"}
    (completion,) = client.post("complete", json=typed).json()["completions"]
    assert (completion["text"], completion["length"]) == ("axis_id", 2)


def test_what_is_offered_is_what_is_there(client: TestClient) -> None:
    tables = {one["name"]: one["comment"] for one in client.get("catalog").json()["tables"]}
    assert tables["v_study"] and not any(name.startswith("stg_") for name in tables)
    offered = client.get("choices").json()
    assert [one["name"] for one in offered["sets"]] == ["marked", "plain"]
    assert offered["axes"][0]["axis_id"] == UNIVERSAL
    order = {"order": "disagreement", "is_descending": "true"}
    page = client.get("prompts", params={"prompt_set": "marked", "axis": UNIVERSAL, **order})
    assert page.json()["prompts"][0]["prompt_id"] == DISPUTED


def test_vega_is_served_from_the_package(client: TestClient) -> None:
    answer = client.get("vega.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "vegaEmbed" in answer.text


def test_the_command_prints_the_address_at_which_it_answers(address: str) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", address)
    with httpx2.Client(base_url=address, timeout=30) as client:
        assert "axes explore" in client.get("").text
        asked = client.post("sql", json={"sql": "select 1 as one"})
        assert asked.json()["rows"] == [[1]]
        assert "server" not in asked.headers


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} .*--port"):
            serve(tmp_path, port=port, tell=print)


def test_a_folder_that_is_no_warehouse_is_refused_before_an_address_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(RootError):
        application(tmp_path, token=TOKEN, port=PORT)
    with pytest.raises(RootError):
        serve(tmp_path, tell=told.append)
    assert told == []


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"sql": ' + "[" * 100_000 + "]" * 100_000 + "}", b"\xff", "{"]
)
@pytest.mark.parametrize("path", ["sql", "chart", "csv", "complete"])
def test_a_body_that_is_no_json_is_the_askers_fault(client: TestClient, path: str, body) -> None:
    assert client.post(path, content=body).status_code == 400


@pytest.mark.parametrize("path", ["sql", "csv"])
@pytest.mark.parametrize(
    "value",
    [
        "timestamp 'infinity'",
        "date '-infinity'",
        "[date '9999999-01-01']",
        "timestamptz 'infinity'",
    ],
)
def test_a_value_that_python_has_no_type_for_is_refused(client, path, value):
    answered = asked(client, f"select {value} as a", path)
    assert answered.status_code in (200, 400)
    if answered.status_code == 400:
        assert len(answered.json()["error"].splitlines()) == 1


def test_statements_wait_where_as_many_run_already(client: TestClient, monkeypatch) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def slow(*args, **options):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.1)
        with lock:
            running -= 1
        return pa.table({"a": [1]})

    monkeypatch.setattr("axes.explore.server.ask", slow)
    with ThreadPoolExecutor(12) as pool:
        codes = [a.status_code for a in pool.map(lambda _: asked(client, "select 1"), range(12))]
    assert set(codes) == {200} and 1 < most <= 4
