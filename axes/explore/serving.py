"""Bind a loopback port, serve the page on it, and end cleanly on Ctrl-C."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from axes.explore.server import application
from axes.warehouse.errors import ServingError

LOOPBACK = "127.0.0.1"


def serve(root: Path, *, port: int = 0, tell: Callable[[str], None]) -> None:
    """Serve the warehouse at `root` until Ctrl-C; `tell` is given the address once it answers.

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
        # It listens already: what the browser asks now waits for the server.
        tell(f"http://{LOOPBACK}:{port}/{token}/")
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError as error:
        raise ServingError(
            f"port {port} of {LOOPBACK} cannot be had ({error.strerror}): "
            "name another with --port, or 0 for any"
        ) from error
