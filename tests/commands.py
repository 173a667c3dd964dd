"""Commands as a user types them, run in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from axes.cli.main import cli


def axes(*words: object, input: str | None = None) -> Result:
    """What `axes WORDS` does."""
    return CliRunner().invoke(cli, [str(word) for word in words], input=input)


def ok(*words: object) -> Result:
    """A command that has to succeed."""
    result = axes(*words)
    assert result.exit_code == 0, result.output
    return result


def printed(*words: object) -> Any:
    """What a command prints as JSON."""
    return json.loads(ok(*words, "--format", "json").stdout)


def refused(*words: object) -> str:
    """The one line that a refused command prints; a traceback or a second line fails."""
    result = axes(*words)
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("Error: ")
    return message
