"""Commands as a user types them, run in this process."""

from __future__ import annotations

import json
import subprocess
import sys
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


def imported_by(*words: object) -> set[str]:
    """The modules that a command has imported when it ends, in a process of its own."""
    script = (
        "import sys\nfrom axes.cli.main import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\nprint(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())
