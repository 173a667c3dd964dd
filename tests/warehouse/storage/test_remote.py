"""What holds of a root on an object store alone: leases, commits, errors, and what is refused."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from deltalake import write_deltalake
from werkzeug.serving import WSGIRequestHandler

from axes import api
from axes.analysis.study.run import run_study
from axes.ingest.forward.activation_keys import stored_items
from axes.warehouse.connection import connect, connect_tables, rows
from axes.warehouse.errors import RootError
from axes.warehouse.maintenance.check import inspect_files
from axes.warehouse.maintenance.compaction import compact
from axes.warehouse.maintenance.repair import repair
from axes.warehouse.maintenance.vacuum import vacuum
from axes.warehouse.storage import leases, objects, store
from axes.warehouse.storage.delta_log import DeltaLog
from axes.warehouse.storage.layout import MARKER
from axes.warehouse.storage.ledger import Record
from axes.warehouse.storage.objects import Objects
from axes.warehouse.storage.remote import RemoteStore
from axes.warehouse.storage.roots import RemoteRoot, root_path
from axes.warehouse.storage.store import store_at
from axes.warehouse.tables.schemas import TABLES
from axes.warehouse.writer import rows_table, write_rows
from tests.commands import axes, ok, printed, refused
from tests.rows import full, put
from tests.warehouse.sound import LAYERS, killed_at, put_chunk
from tests.worlds import define_study, make_world

_DELETED = "<DeleteResult><Deleted><Key>x</Key></Deleted></DeleteResult>"
WIDTHS = {"alpha": 6, "beta": 8}
SECRET = "not-a-secret-of-anybody"
FIGURES = ("v_auroc", "v_study", "v_held_out", "v_claims")


@contextmanager
def answering(
    status: int, body: str = "", *, busy: int = 0, is_object: bool = False
) -> Iterator[str]:
    """The address of a server that answers every request so, the first `busy` ones with 503.

    And a GET of an object with 404, unless `is_object`.
    """
    left = iter(range(busy))

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_found = status != 200 or self.command != "GET" or "list-type" in self.path
            answer = status if is_found or is_object else 404
            self.send_response(answer if next(left, None) is None else 503)
            content = _DELETED if self.command == "POST" and status == 200 else body
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(content.encode())

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def message_from(status: int, code: str, monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """What a command says of a store that answers with this error, which quotes a key."""
    body = f"<Error><Code>{code}</Code><AWSAccessKeyId>{SECRET}</AWSAccessKeyId></Error>"
    with answering(status, body) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        message = refused("sql", "select 1", "--root", f"{url}/{code}")
    assert SECRET not in message and "testing" not in message
    return message


def put_small_study(root: Path) -> str:
    """A study of two models of few prompts, in a new warehouse; its id."""
    sets = {"labelled": {"labelled": 24}, "benign_count": 30}
    make_world(root, widths=WIDTHS, layer_count=1, **sets)
    return run_study(root, define_study(WIDTHS, alignment_shuffles=2))


def test_a_study_has_the_figures_of_one_on_a_disk(s3_root, tmp_path):
    study_id = put_small_study(s3_root)
    assert put_small_study(tmp_path / "lake") == study_id
    here, there = connect(tmp_path / "lake"), connect(s3_root)
    for view in FIGURES:
        figures = rows(here, f"from {view} order by all")
        assert figures and rows(there, f"from {view} order by all") == figures, view
    # Asked again, it finds every result in the log.
    before = rows(there, "select count(*) as number from runs")
    run_study(s3_root, define_study(WIDTHS, alignment_shuffles=2))
    assert rows(there, "select count(*) as number from runs") == before


def test_an_object_that_no_commit_names_has_no_rows(s3_root, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(DeltaLog, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            put(s3_root, "runs", {"run_id": "a"})
    assert [name for name in Objects(s3_root).names() if name.startswith("runs/")]
    assert rows(connect(s3_root), "from runs") == []
    put(s3_root, "runs", {"run_id": "a"})
    assert rows(connect(s3_root), "select run_id from runs") == [{"run_id": "a"}]


def test_a_compaction_that_is_killed_at_a_request_has_changed_all_or_nothing(s3, monkeypatch):
    monkeypatch.setattr(leases, "_LIFE", 3.0)
    steps = [(Objects, "put_new"), (Objects, "delete"), (DeltaLog, "_write")]
    for at in (None, 1, 2, 3):
        root = root_path(f"{s3}/{at}")
        store_at(root).init()
        for start in (0, 2):
            put_chunk(root, "m", [start, start + 1], "run")
        called = killed_at(at, steps, lambda root=root: compact(root, ["activations"]))
        assert (
            called == ["put_new", "put_new", "_write", "delete"][:at]
        )  # The lease first and last.
        keys = "select prompt_id, layer from activations order by all"
        expected = [(f"p{index}", layer) for index in range(4) for layer in LAYERS]
        for files in (1 if at in (None, 3) else 2, 1):
            assert connect_tables(root, "activations").execute(keys).fetchall() == expected
            assert len(store_at(root).files(root / "activations" / "model=m")) == files
            store._remote.cache_clear()
            compact(root, ["activations"])
            vacuum(root, older_than_hours=0)
        assert inspect_files(root) == []


def test_another_process_reads_what_was_committed_and_commits_on_top(s3_root):
    # A store of its own has read nothing of the log yet, as another process.
    put(s3_root, "runs", {"run_id": "a"})
    other = RemoteStore(s3_root)
    other.refresh("runs")
    put(s3_root, "runs", {"run_id": "b"})
    (first, _) = store_at(s3_root).files(s3_root / "runs")[:2]
    assert len(other.files(s3_root / "runs")) == 2
    other.remove("runs", [path for path in other.files(s3_root / "runs") if path != first][:1])
    assert len(rows(connect(s3_root), "from runs")) == 1


def test_a_log_that_this_code_would_misread_is_refused(s3_root):
    put(s3_root, "runs", {"run_id": "a"})
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
    commit = json.dumps({"protocol": protocol}).encode()
    Objects(s3_root).put_new("runs/_delta_log/00000000000000000002.json", commit)
    with pytest.raises(RootError, match="another tool has given this table .*eletion"):
        connect(s3_root)


def test_the_lease_of_a_killed_job_is_taken_over_and_a_lost_one_ends_its_job(s3_root, monkeypatch):
    monkeypatch.setattr(leases, "_LIFE", 0.4)
    monkeypatch.setattr(leases, "_LOOK", 0.05)
    monkeypatch.setattr(leases, "_BEAT", 0.1)
    store = RemoteStore(s3_root)
    monkeypatch.setattr(leases.Lease, "_keep", lambda _: None)
    with store.locked("job"):
        with store_at(s3_root).locked("job"), pytest.raises(RootError, match="run the same"):
            store.remove("runs", [])
        assert not [name for name in Objects(s3_root).names() if name.startswith(leases.FOLDER)]


def test_a_lease_lives_as_long_as_its_holder(s3_root, monkeypatch):
    monkeypatch.setattr(leases, "_LIFE", 0.6)
    monkeypatch.setattr(leases, "_LOOK", 0.05)
    monkeypatch.setattr(leases, "_BEAT", 0.1)
    done = threading.Event()

    def second() -> None:
        with RemoteStore(s3_root).locked("job"):
            done.set()

    with store_at(s3_root).locked("job"):
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(1.5)
    thread.join()
    assert done.is_set()


def test_a_store_that_ignores_the_condition_of_a_put_is_refused(s3, monkeypatch):
    with answering(
        200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    ) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert "the store ignores If-None-Match" in refused("warehouse", "init", "--root", s3)


def test_what_is_wrong_with_the_store_is_one_line_without_keys(s3, monkeypatch, s3_server):
    monkeypatch.setattr(objects, "_RETRIES", 1)
    says = lambda status, code: message_from(status, code, monkeypatch, s3)  # noqa: E731
    assert says(503, "SlowDown").endswith("the store is too busy (503): try again later")
    assert "does not accept the credentials" in says(403, "InvalidAccessKeyId")
    assert "the credentials may not do this" in says(403, "AccessDenied")
    assert "clock is wrong" in says(403, "RequestTimeTooSkewed")
    assert "the store answers 418" in says(418, "Teapot")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "the store cannot be reached" in refused("sql", "select 1", "--root", f"{s3}/a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    assert "the bucket does not exist" in refused("warehouse", "init", "--root", "s3://none/lake")
    assert "is not a warehouse (no warehouse.json)" in refused("sql", "select 1", "--root", s3)
    assert "without credentials" in refused("sql", "select 1", "--root", "s3://key:secret@b/lake")
    put_foreign = Objects(root_path(s3))
    put_foreign.put_new("holiday.jpg", b"1")
    assert "not a warehouse and not empty" in refused("warehouse", "init", "--root", s3)


def test_a_busy_or_silent_store_is_asked_again_and_then_given_up_in_one_line(s3_root, monkeypatch):
    monkeypatch.setattr(objects, "_TIMEOUT", 1)
    monkeypatch.setattr(objects, "_RETRIES", 2)
    put(s3_root, "runs", {"run_id": "a"})
    marker = Objects(s3_root).get(MARKER)
    assert marker is not None
    with answering(200, marker[0].decode(), busy=2, is_object=True) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert Objects(s3_root).get(MARKER) is not None
    with answering(200, busy=9) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(RootError, match=r"the store is too busy \(503\): try again later"):
            Objects(s3_root).get(MARKER)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(RootError, match="the store did not answer in time"):
            Objects(s3_root).get(MARKER)


def test_what_another_tool_wrote_into_a_log_is_found_and_taken_in_or_set_aside(s3_root):
    put(s3_root, "runs", {"run_id": "a", "status": "finished"})
    rows_of_theirs = rows_table("runs", [full("runs", {"run_id": "b", "status": "finished"})])
    options = Objects(s3_root).options
    write_deltalake(f"{s3_root}/runs", rows_of_theirs, mode="append", storage_options=options)
    # It is a file of the table, for every reader of the log.
    assert len(rows(connect_tables(s3_root, "runs"), "from runs")) == 2
    (found,) = inspect_files(s3_root)
    assert found.check == "file_unlisted" and "not written by this warehouse" in found.what
    with pytest.raises(RootError, match="1 sound files"):
        repair(s3_root)
    assert [item.done for item in repair(s3_root, adopt=True)] == ["adopted"]
    assert inspect_files(s3_root) == []
    wider = rows_of_theirs.append_column("note", [["mine"]])
    options = {"mode": "append", "schema_mode": "merge", "storage_options": options}
    write_deltalake(f"{s3_root}/runs", wider, **options)
    (found,) = inspect_files(s3_root)
    assert found.check == "file_unlisted" and not found.is_sound
    (done,) = repair(s3_root)
    assert done.done.startswith(f"moved to {s3_root}/.quarantine/")
    assert inspect_files(s3_root) == []


def test_requests_of_a_commit_and_of_a_resume_do_not_grow_with_the_files(
    s3_root, monkeypatch, tmp_path
):
    asked: list[str] = []
    monkeypatch.setattr(WSGIRequestHandler, "log_request", lambda it, *_: asked.append(it.path))
    log = DeltaLog(Objects(s3_root), TABLES["projections"])
    record = Record(1, 9, "ab" * 32, {"run": 1})
    log.commit({"projections/model=m/0.abababababababab.parquet": record})
    asked.clear()
    names = [f"projections/model=m/{number}.abababababababab.parquet" for number in range(500)]
    log.commit(dict.fromkeys(names, record))
    assert len(asked) <= 10 and len(log.files) == 500
    for number in range(12):
        rows_of_file = [full("activations", {"prompt_id": f"p{number}", "model_id": "x"})]
        table = rows_table("activations", rows_of_file)
        write_rows(s3_root, "activations", table, name=f"{number}", partition="m")
    stored_items(s3_root, "m", "x", "x")
    monkeypatch.setenv("AXES_CACHE", str(tmp_path / "another machine"))
    store._remote.cache_clear()
    asked.clear()
    assert len(stored_items(s3_root, "m", "x", "x")) == 12
    # Two logs, with at most ten commits since a checkpoint, and the index; of no file its keys.
    assert not [path for path in asked if "/activations/model" in path]
    assert len(asked) <= 40


def test_credentials_come_from_a_profile_too(s3, monkeypatch, tmp_path, s3_server):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(f"[profile lab]\nendpoint_url = {s3_server}\n")
    file = tmp_path / ".aws" / "credentials"
    file.write_text("[lab]\naws_access_key_id = a\naws_secret_access_key = b%c\n")
    assert Objects(root_path(s3)).options["aws_secret_access_key"] == "b%c"
    ok("warehouse", "init", "--root", s3)
    file.write_text(f"{SECRET}\n")
    message = refused("sql", "select 1", "--root", f"{s3}/b")
    assert "credentials cannot be read" in message and SECRET not in message


def test_commands_work_on_a_remote_root_or_say_in_one_line_that_they_do_not(
    s3_root, tmp_path, monkeypatch
):
    root = ("--root", s3_root)
    ok("prompts", "import", "demo_safety", *root)
    assert printed("sql", "select count(*) as n from prompts", *root)[0]["n"] > 0
    assert printed("list", "prompt-sets", *root)
    monkeypatch.setenv("AXES_ROOT", str(s3_root))
    assert api.connect().sql("select count(*) from prompts").fetchall() != [(0,)]
    findings = printed_findings(*root)
    assert findings["root"]["result"] == "pass"
    for words in (("warehouse", "migrate"), ("warehouse", "open")):
        message = refused(*words, *root)
        assert "lies on an object store: this works on a folder alone" in message, message
    (counted,) = printed("sql", "--safe", "select count(*) as n from prompts", *root)
    assert counted["n"] > 0
    message = refused("sql", "--safe", "from read_text('/etc/hostname')", *root)
    assert "safe mode has no table function" in message
    assert not Path("s3:").exists() and not list(tmp_path.glob("s3*"))


def printed_findings(*root: object) -> dict[str, dict[str, str]]:
    result = axes("doctor", "--format", "json", *root)
    return {row["check"]: row for row in json.loads(result.stdout)}


def test_without_the_packages_the_address_of_a_root_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "axes.warehouse.storage.remote", None)
    message = refused("sql", "select 1", "--root", "s3://anywhere/lake")
    assert message.endswith("needs more packages: pip install 'safety-axes[s3]'")


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_other_stores_have_addresses_of_the_same_kind(scheme):
    root = root_path(f"{scheme}://b/lake")
    assert str(root / "runs") == f"{scheme}://b/lake/runs" and root.scheme == scheme
    with pytest.raises(RootError, match=f"{scheme}://BUCKET/FOLDER, without credentials"):
        root_path(f"{scheme}://key@b/lake")


def test_a_name_below_a_remote_root_is_joined_as_a_path_and_opened_as_none():
    root = root_path("s3://b/lake")
    assert isinstance(root / "a", RemoteRoot)
    assert str(root / "runs" / "x.parquet") == "s3://b/lake/runs/x.parquet"
    assert (root / "runs").relative_to(root).as_posix() == "runs"
    assert root_path(Path("s3://b/lake")) == root
    for call in (root.exists, root.mkdir, root.resolve, (root / MARKER).read_text, root.unlink):
        with pytest.raises(RootError, match="s3://b/lake.* lies on an object store"):
            call()
