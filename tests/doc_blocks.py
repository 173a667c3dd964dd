"""The fenced code blocks of the documentation, and what each of them has to be.

`sh`: every line is a command, or, where one begins with `$ `, those that do; those of `axes` are
parsed with all their options, and run where they only read a warehouse; targets and variables of
`make` must exist. `sql` and `python` are run. `toml` and `csv` are read. `text` is output and may
hold no command. Without a language it is `sh` if it holds a command of ours, else `text`. An HTML
comment before a block may say otherwise:

    <!-- not run: reason -->      not run, only looked through
    <!-- file: mine.csv -->       written under that name for the blocks below it
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import click

from axes.cli.main import cli

LANGUAGES = ("sh", "sql", "python", "toml", "csv", "text")

# Programs beside axes and make that a line may call; they are not run.
PROGRAMS = ("curl", "duckdb", "echo", "export", "jq", "pip", "python", "ray", "rsync")
PROGRAMS += ("source", "srun", "ssh")

# Commands that read a warehouse, or write only what follows from its rows, in seconds. Without
# `evaluate`: the texts of a planted world are near duplicates, which it holds together.
READERS = (
    "activations",
    "calibrate",
    "config show",
    "diagnose",
    "explain",
    "export",
    "fit",
    "import",
    "list",
    "log",
    "models show",
    "prompts import",
    "report",
    "score",
    "sql",
    "study claims",
    "transfer",
    "warehouse",
)

_DIRECTIVE = re.compile(r"<!-- (not run|file): (.+?) -->")
_FENCE = re.compile(r"^( *)```([a-z]*)(.*)$")
_OURS = re.compile(r"(\$ |[A-Z_]+=\S* )*(axes|make) ")
_COMMAND = re.compile(r"^\s*(\$ )?(axes|make|select|import|from) ")
_FILE = re.compile(
    r"[\w.-]+(/[\w.-]+)*\.(csv|gguf|json|jsonl|npz|parquet|py|safetensors|sql|toml|txt)"
)
_PLACEHOLDER = re.compile(r"(^|[@=/:])[A-Z][A-Z_]+($|[@:./])|\$|\.\.\.")


class WrongBlock(AssertionError):
    """A block that is not what it says it is: page, line and what is wrong."""


@dataclass(frozen=True)
class Block:
    """A block as it stands on a page; `line` is that of its first line of code."""

    page: str
    line: int
    language: str
    code: str
    reason: str | None = None
    file: str | None = None

    def wrong(self, what: str) -> WrongBlock:
        return WrongBlock(f"{self.page}:{self.line}: {what}")


@dataclass(frozen=True)
class Call:
    """One command of a line: its words without variables set before it; `is_piped`: into it."""

    words: tuple[str, ...]
    is_piped: bool = False

    @property
    def is_run(self) -> bool:
        """Whether it reads a warehouse and stands for itself, with no word to be filled in."""
        if self.words[0] != "axes" or self.is_piped or self.words == ("axes", "sql"):
            return False
        if any(_PLACEHOLDER.search(word) for word in self.words[1:]):
            return False
        command = " ".join(word for word in self.words[1:3] if not word.startswith("-"))
        is_reader = any(f"{command} ".startswith(f"{name} ") for name in READERS)
        return is_reader and "--estimate" not in self.words


def blocks(page: str, text: str) -> list[Block]:
    """The blocks of a page; raises `WrongBlock` where a fence is left open."""
    found: list[Block] = []
    directive: tuple[str, str] | None = None
    opened: tuple[int, int, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            opened, lines = (number + 1, len(fence[1]), fence[2]), []
        elif opened is not None and fence and not fence[2]:
            kind, said = directive or (None, None)
            block = Block(
                page,
                opened[0],
                opened[2] or ("sh" if any(map(_OURS.match, lines)) else "text"),
                "\n".join(lines) + "\n",
                reason=said if kind == "not run" else None,
                file=said if kind == "file" else None,
            )
            if block.language not in LANGUAGES:
                raise block.wrong(f"language {block.language!r}: expected one of {LANGUAGES}")
            found.append(block)
            opened = directive = None
        elif opened is not None:
            lines.append(line[opened[1] :])
        elif match := _DIRECTIVE.search(line):
            directive = (match[1], match[2])
        elif line.strip():
            directive = None
    if opened is not None:
        raise WrongBlock(f"{page}:{opened[0]}: a block that does not end")
    return found


def check_output(block: Block) -> None:
    """Text is no hiding place for commands."""
    for line in block.code.splitlines():
        if _COMMAND.match(line):
            raise block.wrong(f"a command in a block of text: {line}")


def calls(block: Block) -> list[Call]:
    """The commands of a shell block, each in pipes too; raises `WrongBlock` for what is none."""
    found, pending = [], ""
    lines = block.code.splitlines()
    is_session = any(line.startswith("$ ") for line in lines)
    for line in lines:
        if is_session and not pending and not line.startswith("$ "):
            continue  # output
        pending += line.removeprefix("$ ") if is_session else line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            words = _words(pending)
        except ValueError:  # a quotation that goes on in the next line
            pending += "\n"
            continue
        pending = ""
        found += _parts(words)
    if pending:
        raise block.wrong(f"a line that does not end: {pending}")
    for call in found:
        if call.words[0] not in ("axes", "make", *PROGRAMS):
            raise block.wrong(f"no command is called {call.words[0]}")
    return found


def check_make(block: Block, call: Call, makefile: str) -> None:
    """The targets are there, and the variables are used by the Makefile."""
    for word in call.words[1:]:
        name, equals, _ = word.partition("=")
        pattern = rf"\$\({name}\)|\$\(if \$\({name}\)" if equals else rf"(?m)^{name}:"
        if not re.search(pattern, makefile):
            raise block.wrong(f"make knows no {word}")


def check_axes(block: Block, call: Call) -> None:
    """The command and its options exist and the values are of their types; nothing is run.

    Files that a line names are there while it is parsed, below the working folder.
    """
    for word in call.words[1:]:
        if _FILE.fullmatch(word) and not Path(word).exists():
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).touch()
    with patch.object(click.Command, "invoke", lambda *_: None):
        try:
            cli.main(list(call.words[1:]), prog_name="axes", standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError:
            return
        except click.ClickException as error:
            line = shlex.join(call.words)
            raise block.wrong(f"{line}: {error.format_message()}") from error


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    return list(lexer)


def _parts(words: list[str]) -> list[Call]:
    """Split at pipes and semicolons; without redirections and variables that are set before."""
    parts: list[tuple[list[str], bool]] = [([], False)]
    is_target = False
    for word in words:
        if set(word) <= set("|;&"):
            parts.append(([], word == "|"))
        elif set(word) <= set("<>"):
            is_target = True
        elif is_target:
            is_target = False
        elif parts[-1][0] or not re.fullmatch(r"[A-Z_]+=.*", word, re.DOTALL):
            parts[-1][0].append(word)
    return [Call(tuple(part), is_piped) for part, is_piped in parts if part]
