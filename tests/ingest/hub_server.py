"""A hub on this machine that speaks the Hugging Face hub's protocol, for the real client library.

It serves folders as repositories: the two listings (`/api/models/ID/revision/REV`, `/api/models/ID/
tree/REV`), and files below `/ID/resolve/REV/`, where a weight file is a redirect to another host as
on the real hub (`localhost` stands for the one that stores large files). It can ask for a token,
and hang up in the middle of a file. What was asked of it is kept in `requests`.

Below `uploads` it makes repositories, as the client asks with a token: create, validate-yaml,
preupload, the batches of LFS for large files, and a commit of JSON lines.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_token_of_the_tests"

_CHECKOUT = Path(__file__).parents[2]

_API = re.compile(
    r"/api/(models|datasets)/(?P<id>[^/]+/[^/]+)(/(?P<kind>revision|tree|xet-(read|write)-token)/(?P<revision>[^/]+))?/?"
)
_CREATE = re.compile(r"/api/repos/create")
_CHECK = re.compile(r"/api/validate-yaml")
_PREUPLOAD = re.compile(r"/api/(models|datasets)/(?P<id>[^/]+/[^/]+)/preupload/main")
_COMMIT = re.compile(r"/api/(models|datasets)/(?P<id>[^/]+/[^/]+)/commit/main")
_LFS = re.compile(r"/(datasets/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_RESOLVE = re.compile(r"/(datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_STORED = re.compile(r"/stored/(?P<sha256>[0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_LARGE = (".safetensors", ".bin", ".pth", ".parquet")


@dataclass(frozen=True)
class ServedRepository:
    """A folder served at one commit; `main` and the commit are its revisions."""

    folder: Path
    commit: str
    is_gated: bool = False

    def files(self) -> dict[str, Path]:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}


@dataclass(frozen=True)
class Request:
    """One request; `sent` is how much of the file's body went out, `name` the file where one is."""

    method: str
    path: str
    name: str | None
    status: int
    sent: int
    range: str | None
    has_token: bool


@dataclass
class Hub:
    """The running server: its address, its repositories by id, what it was asked for."""

    endpoint: str
    repositories: dict[str, ServedRepository]
    requests: list[Request] = field(default_factory=list)
    drops: dict[str, tuple[int, bool]] = field(default_factory=dict)
    outages: int = 0
    """How many of the next requests are answered 503."""
    uploads: Path | None = None
    """Where repositories are made; `created` is what was said of each."""
    created: list[dict[str, str]] = field(default_factory=list)
    forbidden: str | None = None
    """An owner of whose repositories the token may not write."""
    xet_endpoint: str | None = None
    """Where weight files are said to lie in chunks too, as they do on the real hub."""
    in_chunks: dict[str, str] = field(default_factory=dict)
    """Files of commits that were uploaded there and not here, with their SHA-256."""

    def drop_once(self, name: str, after: int, *, resets: bool = False) -> None:
        """Hang up after `after` bytes of the file `name`, the next time that it is fetched.

        A hang-up closes the connection; `resets` makes it a TCP reset, as a firewall would.
        """
        self.drops[name] = (after, resets)

    def fetched(self, name: str | None = None) -> list[Request]:
        """The requests that sent (a part of) a file's body."""
        return [
            request
            for request in self.requests
            if request.method == "GET"
            and request.status in (200, 206)
            and request.name is not None
            and name in (None, request.name)
        ]


@contextmanager
def serve(repositories: dict[str, ServedRepository]) -> Iterator[Hub]:
    """Run a hub with these repositories until the block is left."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", repositories)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Client:
    """Runs `axes` as a user of that hub would, with a home and a cache of its own.

    The client library reads its settings when it is imported: every command is a process.
    """

    def __init__(self, endpoint: str, home: Path) -> None:
        dropped = ("HF_", "HUGGINGFACE", "TRANSFORMERS_", "AXES_", "XDG_")
        self.home = home
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(dropped)},
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home / "huggingface"),
            "AXES_CACHE": str(home / "axes"),
            "HOME": str(home),
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(_CHECKOUT),
        }

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=_CHECKOUT,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def axes(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        call = "from axes.cli.main import main; main()"
        return self.run(sys.executable, "-c", call, *arguments, **variables)

    def fetched_folder(self, name: str, **variables: str) -> Path:
        done = self.axes("models", "fetch", name, **variables)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.strip())

    def refused(self, *arguments: str | Path, **variables: str) -> str:
        """The one line that a failed command says; no traceback."""
        done = self.axes(*arguments, **variables)
        assert done.returncode == 1, done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("Error: ")
        return line


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub

    def handle_error(self, *_arguments: object) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_arguments: object) -> None:
        """What was asked is kept in `Hub.requests`."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := _API.fullmatch(path):
            self._answer_api(**match.groupdict())
        elif match := _RESOLVE.fullmatch(path):
            self._answer_resolve(**match.groupdict())
        elif match := _STORED.fullmatch(path):
            name, file = self._stored()[match["sha256"]]
            self._send_file(name, file, {})
        else:
            # The client's housekeeping, which some versions ask for; it is not noted.
            self.send_error(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, message="Invalid credentials in Authorization header")
        elif _CREATE.fullmatch(path):
            self._create(json.loads(body))
        elif _CHECK.fullmatch(path):
            self._send_json({"errors": [], "warnings": []})
        elif _PREUPLOAD.fullmatch(path):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(_LARGE) else "regular" for name in names}
            files = [{"path": name, "uploadMode": modes[name]} for name in names]
            self._send_json({"files": [{**file, "shouldIgnore": False} for file in files]})
        elif _LFS.fullmatch(path):
            port = self.server.server_address[1]
            objects = [
                {
                    **each,
                    "actions": {"upload": {"href": f"http://127.0.0.1:{port}/put/{each['oid']}"}},
                }
                for each in json.loads(body)["objects"]
            ]
            self._send_json({"transfer": "basic", "objects": objects})
        elif match := _COMMIT.fullmatch(path):
            self._commit(match["id"], [json.loads(line) for line in body.splitlines()])
        else:
            self.send_error(404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == f"/put/{hashlib.sha256(content).hexdigest()}"
        assert self.server.hub.uploads is not None
        (self.server.hub.uploads / self.path.rpartition("/")[2]).write_bytes(content)
        self._send(200, b"", {})

    def _create(self, asked: dict[str, str]) -> None:
        hub = self.server.hub
        id = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == hub.forbidden:
            self._refuse(403, message="You don't have the rights to create a model under it")
        elif id in hub.repositories:
            self._refuse(409, message="You already created this model repo")
        else:
            assert hub.uploads is not None
            (hub.uploads / id).mkdir(parents=True)
            (hub.uploads / id / ".gitattributes").write_text("")
            hub.created.append(asked)
            hub.repositories[id] = ServedRepository(hub.uploads / id, "0" * 40)
            self._send_json({"url": f"{hub.endpoint}/{id}", "name": id})

    def _commit(self, id: str, lines: list[dict]) -> None:
        hub = self.server.hub
        assert hub.uploads is not None
        folder = hub.repositories[id].folder
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile" and (hub.uploads / value["oid"]).exists():
                (hub.uploads / value["oid"]).replace(folder / value["path"])
            elif line["key"] == "lfsFile":
                hub.in_chunks[value["path"]] = value["oid"]
        commit = hashlib.sha1(str(lines).encode()).hexdigest()
        hub.repositories[id] = ServedRepository(folder, commit)
        url = f"{hub.endpoint}/{id}/commit/{commit}"
        self._send_json({"success": True, "commitOid": commit, "commitUrl": url})

    def _answer_api(self, id: str, kind: str | None, revision: str | None) -> None:
        """Listings are public, of gated repositories too; only a wrong token is refused."""
        repository = self._repository(id, revision or "main")
        if repository is None:
            return
        files = repository.files()
        if kind == "tree":
            is_xet = self.server.hub.xet_endpoint is not None
            self._send_json([_tree_entry(*named, is_xet=is_xet) for named in files.items()])
            return
        if kind in ("xet-read-token", "xet-write-token"):
            url = str(self.server.hub.xet_endpoint)
            access = {"X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": str(2**32)}
            body = json.dumps({"accessToken": "t", "exp": 2**32, "casUrl": url}).encode()
            self._send(200, body, {**access, "X-Xet-Cas-Url": url})
            return
        siblings = [
            {"rfilename": name, "size": file.stat().st_size, "blobId": _blob_id(file)}
            for name, file in files.items()
        ]
        gated = "manual" if repository.is_gated else False
        named = {"id": id, "modelId": id, "sha": repository.commit}
        self._send_json({**named, "gated": gated, "siblings": siblings})

    def _answer_resolve(self, id: str, revision: str, name: str) -> None:
        repository = self._repository(id, revision)
        if repository is None:
            return
        commit = {"X-Repo-Commit": repository.commit}
        if repository.is_gated and not self._has_token():
            self._refuse(401, "GatedRepo", **commit)
            return
        file = repository.files().get(name)
        if file is None:
            self._refuse(404, "EntryNotFound", **commit)
        elif file.suffix in _LARGE:
            sha256 = _sha256(file)
            port = self.server.server_address[1]
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(file.stat().st_size)}
            location = {"Location": f"http://localhost:{port}/stored/{sha256}"}
            self._send(302, b"", {**commit, **linked, **location})
        else:
            self._send_file(name, file, commit)

    def _repository(self, id: str, revision: str) -> ServedRepository | None:
        """The repository at that revision; where there is none, it is said to the client."""
        if self.server.hub.outages:
            self.server.hub.outages -= 1
            self._refuse(503)
            return None
        if self._has_token() and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._refuse(401, message="Invalid credentials in Authorization header")
            return None
        repository = self.server.hub.repositories.get(id)
        if repository is None:
            self._refuse(401 if not self._has_token() else 404, "RepoNotFound")
        elif revision not in ("main", repository.commit):
            self._refuse(404, "RevisionNotFound")
        else:
            return repository
        return None

    def _has_token(self) -> bool:
        return "Authorization" in self.headers

    def _stored(self) -> dict[str, tuple[str, Path]]:
        return {
            _sha256(file): (name, file)
            for repository in self.server.hub.repositories.values()
            for name, file in repository.files().items()
            if file.suffix in _LARGE
        }

    def _refuse(
        self, status: int, code: str | None = None, message: str = "refused", **headers: str
    ) -> None:
        named = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {**headers, **named, "X-Error-Message": message})

    def _send_json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_file(self, name: str, file: Path, headers: dict[str, str]) -> None:
        content = file.read_bytes()
        etag = _sha256(file) if file.suffix in _LARGE else _blob_id(file)
        headers = {**headers, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked is None:
            self._send(200, content, headers, name)
            return
        first = int(asked[1])
        last = int(asked[2] or len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], headers, name)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], name: str | None = None
    ) -> None:
        drop = None
        if name is not None and self.command == "GET":
            drop = self.server.hub.drops.pop(name, None)
        sent = body if drop is None else body[: drop[0]]
        # Noted before the client can have the answer, so that a test that goes on sees it.
        self.server.hub.requests.append(
            Request(
                self.command,
                unquote(self.path),
                name,
                status,
                0 if self.command == "HEAD" else len(sent),
                self.headers.get("Range"),
                self._has_token(),
            )
        )
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        if drop is not None:
            self._hang_up(resets=drop[1])

    def _hang_up(self, *, resets: bool) -> None:
        self.wfile.flush()
        if resets:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.rfile.close()
            self.wfile.close()
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


def _tree_entry(name: str, file: Path, *, is_xet: bool) -> dict[str, object]:
    size = file.stat().st_size
    entry: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": _blob_id(file)}
    if file.suffix in _LARGE:
        entry["lfs"] = {"oid": _sha256(file), "size": size, "pointerSize": 134}
        entry |= {"xetHash": _sha256(file)} if is_xet else {}
    return entry


def _blob_id(file: Path) -> str:
    """Git's id of the file, which is the hub's ETag of small ones."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@cache
def _sha256(file: Path) -> str:
    """Served files are not changed."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
