"""The page's server: typed SQL runs in safe mode, everything else is a fixed query.

Fixed queries share one connection, locked as in safe mode. No request changes the warehouse or this
server, except for the texts that wait to be uncovered.

The address is the password: a random token is the first part of every path, so a page of another
site cannot know it. If such a page makes the browser ask this port under another name (DNS
rebinding), the Host header reveals it. The headers of every answer allow the page our scripts and
this server, nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
import uvicorn
import vl_convert
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from axes.explore.hiding import Hidden, Json, answer, positive_cells
from axes.explore.queries import (
    axis_page,
    choices,
    completion,
    completion_page,
    prompt_page,
    start,
)
from axes.explore.views import differences, layers, scatter
from axes.sql_completion import Catalog, SqlCompleter
from axes.warehouse.connection import Connection, query
from axes.warehouse.errors import AxesError, QueryError, ServingError
from axes.warehouse.render import render
from axes.warehouse.safe import DEFAULT_LIMITS, Limits, WarmWorkers, ask, locked, without_root

STATIC = Path(__file__).parent / "static"

_ROW_LIMIT = 500
# Of a chart, whose rows are drawn and not listed.
_CHART_LIMIT = 20_000
_COMPLETION_LIMIT = 60
_MAX_BODY = 400_000
# Statements that run together, each with a process of its own and its memory; others wait.
_AT_ONCE = 4
_BUNDLING = threading.Lock()
# What the page asks for: a function, and the parameters of the address that it needs and takes.
_VIEWS: dict[str, tuple[Callable[..., Json], str, str]] = {
    "start": (start, "", ""),
    "choices": (choices, "", ""),
    "axis": (axis_page, "axis", "model prompt_set"),
    "prompts": (
        prompt_page,
        "prompt_set",
        "axis source scale label category search order model is_descending page",
    ),
    "scatter": (scatter, "prompt_set", "x x_model y y_model"),
    "layers": (layers, "", "family prompt_set"),
    "completions": (completion_page, "", "prompt_set prompt_id model label page"),
    "completion": (completion, "generation", "axis layer is_revealed"),
    "differences": (differences, "", "study"),
}


def application(root: Path, *, token: str, port: int, limits: Limits = DEFAULT_LIMITS) -> Starlette:
    """The page of the warehouse at `root`, for requests to `127.0.0.1:port/token/`.

    Raises `RootError` where `root` is not a warehouse.
    """
    pages = _Pages(root, limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        pages.workers = WarmWorkers(root, limits)
        # Seconds of work, which the first chart need not wait for.
        threading.Thread(target=_vega, daemon=True).start()
        try:
            yield
        finally:
            pages.workers.close()

    return Starlette(
        routes=[
            Route("/", pages.index),
            Route("/vega.js", pages.vega),
            Route("/catalog", pages.catalog),
            Route("/complete", pages.complete, methods=["POST"]),
            Route("/sql", pages.sql, methods=["POST"]),
            Route("/chart", pages.chart, methods=["POST"]),
            Route("/csv", pages.csv, methods=["POST"]),
            Route("/text", pages.text),
            *(Route(f"/{name}", pages.view) for name in _VIEWS),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, token=token, port=port)],
        exception_handlers={AxesError: partial(_refused, root), HTTPException: _http_error},
        lifespan=lifespan,
    )


class _Pages:
    """The end points; those that are not `async` run in threads."""

    workers: WarmWorkers

    def __init__(self, root: Path, limits: Limits) -> None:
        self._connection = locked(root, limits, is_commented=True)
        self._names = Catalog()
        self._names.read(self._connection)
        self._completer = SqlCompleter(self._names, {})
        self._hidden = Hidden()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def index(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    def vega(self, request: Request) -> Response:
        """The chart library, from the package that carries it."""
        return Response(_vega(), media_type="text/javascript")

    def catalog(self, request: Request) -> Response:
        """Tables and views with what a row is."""
        listed = query(
            self._reader(),
            "select view_name as name, comment from duckdb_views() "
            "where not internal and not starts_with(view_name, 'stg_') order by name",
        )
        return JSONResponse({"tables": listed.to_pylist(), "macros": self._names.macros})

    async def complete(self, request: Request) -> Response:
        """Completions at the cursor of a statement, with the length of the text they replace."""
        body = await _body(request)
        before, after = _text_of(body, "before"), _text_of(body, "after")
        document = Document(before + after, len(before))
        found = self._completer.get_completions(document, CompleteEvent())
        listed = [
            {"text": item.text, "length": -item.start_position, "meaning": item.display_meta_text}
            for item in itertools.islice(found, _COMPLETION_LIMIT)
        ]
        return JSONResponse({"completions": listed})

    async def sql(self, request: Request) -> Response:
        """The first rows of a result, and the number of all rows."""
        started = time.perf_counter()
        table = await self._result(request)
        rows = await run_in_threadpool(
            answer, table, self._reader(), self._hidden, row_limit=_ROW_LIMIT
        )
        return JSONResponse({**rows, "seconds": time.perf_counter() - started})

    async def chart(self, request: Request) -> Response:
        """The rows of a result that a chart draws; no click uncovers their hidden texts."""
        table = await self._result(request)
        rows = await run_in_threadpool(
            answer, table, self._reader(), Hidden(), row_limit=_CHART_LIMIT
        )
        return JSONResponse(rows)

    async def csv(self, request: Request) -> Response:
        """All rows of a result, nothing hidden: a file that no page shows."""
        table = await self._result(request)
        text = await run_in_threadpool(render, table, "csv")
        return Response(text, media_type="text/csv")

    async def _result(self, request: Request) -> pa.Table:
        """The result of a statement in safe mode; its process ends when the browser disconnects."""
        statement = _text_of(await _body(request), "sql")
        async with self._slots:
            return await self._asked(request, statement)

    async def _asked(self, request: Request, statement: str) -> pa.Table:
        with self.workers.worker() as worker:

            async def stop_on_disconnect() -> None:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                worker.stop()

            watching = asyncio.create_task(stop_on_disconnect())
            try:
                return await run_in_threadpool(
                    ask, self.workers.root, statement, self.workers.limits, worker=worker
                )
            except QueryError as error:
                raise _Quoting(await run_in_threadpool(self._quoted, str(error))) from error
            finally:
                watching.cancel()

    def text(self, request: Request) -> Response:
        """A hidden text."""
        found = self._hidden.get(request.query_params.get("number", ""))
        if found is None:
            raise HTTPException(404, "this text was dropped: load the page again")
        return JSONResponse({"text": found})

    def view(self, request: Request) -> Response:
        """What a page shows, by the fixed queries of its function."""
        function, required, optional = _VIEWS[request.url.path.rpartition("/")[2]]
        hidden = () if function in (start, choices, layers, differences) else (self._hidden,)
        asked = dict.fromkeys(required.split(), "") | _parameters(request, required, optional)
        return JSONResponse(function(self._reader(), *hidden, **asked))

    def _reader(self) -> Connection:
        """A cursor of the shared connection: several threads may query at once."""
        return self._connection.cursor()

    def _quoted(self, message: str) -> Json:
        """An error, hidden where it quotes a positive text, as a failed cast does."""
        if positive_cells(self._reader(), [message]):
            return {
                "error": "the statement failed with a message that quotes a hidden text",
                "detail": self._hidden.put(message),
            }
        return {"error": message}


class _Quoting(AxesError):
    """An error of typed SQL, as the page shows it."""

    def __init__(self, content: Json) -> None:
        super().__init__(content["error"])
        self.content = content


def _refused(root: Path, request: Request, error: Exception) -> Response:
    if isinstance(error, _Quoting):
        return JSONResponse(error.content, 400)
    return JSONResponse({"error": without_root(str(error), root)}, 400)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _body(request: Request) -> Json:
    """The JSON object in the body of a request."""
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > _MAX_BODY:
            raise HTTPException(413, "too long")
    try:
        body = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "not JSON") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "not a JSON object")
    return body


def _text_of(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise HTTPException(400, f"{name} is not a text")
    return value


def _parameters(request: Request, *names: str) -> Json:
    """Those of the address that are not empty; `page` and `layer` are numbers, `is_...` true."""
    found: Json = {}
    for name in " ".join(names).split():
        value = request.query_params.get(name)
        if value and name in ("page", "layer"):
            if not value.isdecimal() or len(value) > 9:
                raise HTTPException(400, f"{name} is not a number")
            found[name] = int(value)
        elif value:
            found[name] = value == "true" if name.startswith("is_") else value
    return found


def _vega() -> bytes:
    """The chart library's script, bundled by the first caller."""
    with _BUNDLING:
        return _bundle()


@cache
def _bundle() -> bytes:
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").encode()


LOOPBACK = "127.0.0.1"


def serve(root: Path, *, port: int = 0, tell: Callable[[str], None]) -> None:
    """Serve the warehouse at `root` until Ctrl-C; `tell` gets the address once it answers.

    Raises `RootError` where `root` is not a warehouse, `ServingError` where the port is taken.
    """
    with _listening(port) as listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        app = application(root, token=token, port=port)
        # No access log: the token is part of every path.
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                access_log=False,
                log_level="warning",
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        # It listens already: a request now waits for the server.
        tell(f"http://{LOOPBACK}:{port}/{token}/")
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise ServingError(
            f"port {port} of {LOOPBACK} is not available ({error.strerror}): "
            "choose another with --port, or 0 for any"
        ) from error


_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Passes requests to `/TOKEN/...` on to `app`, which sees them below its root path."""

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self._app = app
        self._token = token
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            scope = {**scope, "root_path": f"/{self._token}"}
            await self._app(scope, receive, send_guarded)
        else:
            await refusal(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        """None for a request that may pass."""
        headers = Headers(scope=scope)
        if headers.get("host") not in self._hosts:
            return PlainTextResponse("not a name of this machine", 421)
        origin = headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            return PlainTextResponse("asked by another page", 403)
        shown = scope["path"].removeprefix("/").partition("/")[0]
        # In constant time, which does not reveal how much of the token is right.
        if not hmac.compare_digest(shown.encode(errors="replace"), self._token.encode()):
            return PlainTextResponse("open the address that axes explore printed", 403)
        return None
