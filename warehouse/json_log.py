"""`--json-log`: all of stderr as one JSON object a line, for a program that watches a job.

Every line has `time` (UTC), `level` (info, warning or error) and `event`, then the event's fields.
What code that knows nothing of this prints (libraries, warnings, tracebacks) becomes the event
`message` with its `text`, so that no line is anything else.
"""

from __future__ import annotations

import io
import json
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

_LEVELS = {"error": "error", "warning": "warning"}


class JsonLines(io.TextIOBase):
    """A text stream that writes each line to another one as an event."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pending = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._pending = re.split(r"[\r\n]", self._pending + text)
        for line in lines:
            self._tell(line)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def emit(self, event: str, level: str, fields: dict[str, Any]) -> None:
        """Write one event."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = {"time": moment, "level": level, "event": event, **fields}
        self._stream.write(json.dumps(entry, default=str, ensure_ascii=False) + "\n")
        self._stream.flush()

    def finish_line(self) -> None:
        """Write the line that had no end yet."""
        rest, self._pending = self._pending, ""
        self._tell(rest)

    def _tell(self, line: str) -> None:
        if not line.strip():
            return
        word, colon, rest = line.partition(": ")
        level = _LEVELS.get(word.lower()) if colon else None
        text = line.rstrip() if level is None else rest.rstrip()
        self.emit("message", level or "info", {"text": text})


def start() -> None:
    """Turn `sys.stderr` into JSON lines, from here on."""
    if current() is None:
        sys.stderr = JsonLines(sys.stderr)


def end(stderr: TextIO) -> None:
    """Give `sys.stderr` back, where it was turned."""
    if (lines := current()) is not None:
        lines.finish_line()
        sys.stderr = stderr


def current() -> JsonLines | None:
    """The stream, where the log is JSON."""
    return sys.stderr if isinstance(sys.stderr, JsonLines) else None


def record(event: str, *, level: str = "info", **fields: Any) -> None:
    """An event of the JSON log; nothing where stderr is for people."""
    if (lines := current()) is not None:
        lines.emit(event, level, fields)
