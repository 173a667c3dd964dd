"""Settings from the environment or a file `axes.toml`, for all commands and for Python.

Precedence: the option that was typed, the environment, `axes.toml` in this folder or the nearest
above it, `safety-axes/axes.toml` in the XDG configuration folder, the default. A file has the keys
of `SETTINGS`, and a table for each command that it configures: `[ingest.activations]`.

The file in the XDG folder is the user's. Any other may have come with a folder of somebody else's:
until the user allows it (`axes config allow`), a key of it that could send, fetch, run or redirect
something is refused. That is every key without `is_harmless`, and every table.

Also the command line that the process is running, for the rows of `runs` (`command_line`), and the
options of jobs and studies, each declared once: as a field of its request (`option`). The command
line builds its options from such fields, and a study file checks its keys by them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from axes.warehouse.errors import ConfigError
from axes.warehouse.names import did_you_mean
from axes.warehouse.storage.roots import is_url, root_path

FILE = "axes.toml"


@dataclass(frozen=True)
class Setting:
    """One key of the file; `variable` is its name in the environment, `default` is in words."""

    variable: str
    kind: type
    default: str
    is_path: bool = False
    is_harmless: bool = False


SETTINGS = {
    "root": Setting("AXES_ROOT", str, "lake", is_path=True),
    "cache": Setting("AXES_CACHE", str, "~/.cache/safety-axes", is_path=True),
    "views": Setting("AXES_VIEWS", str, "none", is_path=True),
    "registry": Setting("AXES_REGISTRY", str, "none", is_path=True),
    "format": Setting("AXES_FORMAT", str, "table", is_harmless=True),
    "device": Setting("AXES_DEVICE", str, "cuda where there is one, else cpu", is_harmless=True),
    "dtype": Setting("AXES_DTYPE", str, "the checkpoint's, float32 on a CPU", is_harmless=True),
    "memory_limit": Setting("AXES_MEMORY_LIMIT", str, "most of the machine's", is_harmless=True),
    "judge_url": Setting("AXES_JUDGE_URL", str, "none"),
    "judge_model": Setting("AXES_JUDGE_MODEL", str, "none"),
    "json_log": Setting("AXES_JSON_LOG", bool, "false", is_harmless=True),
}

_command_line: ContextVar[Callable[[], str] | None] = ContextVar("_command_line", default=None)
_NAMES = {str: "a text", bool: "true or false"}


@dataclass(frozen=True)
class ConfigFile:
    """The content of one file: settings by name, and the unchecked tables of commands."""

    path: Path
    settings: dict[str, str | bool]
    tables: dict[str, Any]
    digest: str

    @property
    def names(self) -> list[str]:
        """What the file sets: its settings, and its tables in brackets."""
        return [*self.settings, *(f"[{name}]" for name in self.tables)]

    def may_set(self, name: str) -> bool:
        """Whether a setting or a table's key is taken: harmless, the user's file, or allowed."""
        if name in SETTINGS and SETTINGS[name].is_harmless:
            return True
        folder = _user_folder()
        return self.path == folder / FILE or (folder / "allowed" / self.digest).is_file()

    def require_allowed(self, name: str) -> None:
        """Raise `ConfigError` unless the file may set `name`."""
        if not self.may_set(name):
            raise ConfigError(
                f"{self.path} sets {name}, which may send, fetch, run or redirect something: "
                "read the file, then run axes config allow, or work in another folder"
            )


def locations() -> tuple[Path, ...]:
    """The paths to search: in this folder or the nearest above with a file, then XDG's."""
    here = Path.cwd()
    candidates = (folder / FILE for folder in _searched(here))
    nearest = next((path for path in candidates if path.is_file()), here / FILE)
    return nearest, _user_folder() / FILE


def _searched(here: Path) -> Iterator[Path]:
    """This folder and those above it, up to a repository's top, home, or where the owner or the
    file system changes: beyond lie folders of others."""
    start = here.stat()
    for folder in (here, *here.parents):
        status = folder.stat()
        if (status.st_uid, status.st_dev) != (start.st_uid, start.st_dev):
            return
        yield folder
        if folder == Path(os.path.expanduser("~")) or (folder / ".git").exists():  # noqa: PTH111
            return


def _user_folder() -> Path:
    # Without a home folder it is no folder; pathlib would raise.
    base = os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config")  # noqa: PTH111
    return Path(base) / "safety-axes"


def config_files() -> tuple[ConfigFile, ...]:
    """The files that exist, the one with precedence first.

    Raises `ConfigError` for a file that is not TOML, an unknown key or a value of the wrong type.
    """
    paths = dict.fromkeys(path for path in locations() if path.is_file())
    return tuple(_read(path, path.stat().st_mtime_ns) for path in paths)


def allow() -> ConfigFile:
    """Take every key of the file in this folder or above, until its content or place changes."""
    path, _ = locations()
    if not path.is_file():
        raise ConfigError(f"no {FILE} in {path.parent} or above it")
    file = _read(path, path.stat().st_mtime_ns)
    record = _user_folder() / "allowed" / file.digest
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(f"{path}\n")
    return file


def setting(name: str) -> Any | None:
    """A setting from the environment or a file, a path as text; None where neither has it.

    Raises `ConfigError` as `config_files` does, and for a file that may not set it.
    """
    if value := os.environ.get(SETTINGS[name].variable):
        return value
    for file in config_files():
        if name in file.settings:
            file.require_allowed(name)
            return file.settings[name]
    return None


def root_folder(root: str | Path | None = None) -> Path:
    """The warehouse's folder: `root`, else the setting, else `./lake`."""
    return root_path(root if root is not None else setting("root") or "lake").expanduser()


def cache_folder() -> Path:
    """The folder of models, hashes and views: `$AXES_CACHE` or axes.toml, else XDG's."""
    folder = setting("cache") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/safety-axes"
    folder = os.path.expanduser(folder)  # noqa: PTH111 - raises nothing
    if folder.startswith("~"):
        raise ConfigError("there is no home folder: set $AXES_CACHE to a folder for models")
    return Path(folder)


def at_file(file: Path, value: str) -> str:
    """A path in a file: a relative one starts at the file's folder; a URL stays as it is."""
    if is_url(value):
        return value
    return str(file.parent / Path(value).expanduser())


@contextmanager
def invoked(describe: Callable[[], str]) -> Iterator[None]:
    """While active, `command_line` is what `describe` returns; the outermost counts."""
    token = None if _command_line.get() else _command_line.set(describe)
    try:
        yield
    finally:
        if token is not None:
            _command_line.reset(token)


def command_line() -> str | None:
    """The command line that runs again what is running; None in Python code of a user's own."""
    describe = _command_line.get()
    return None if describe is None else describe()


@cache
def _read(path: Path, _modified: int) -> ConfigFile:
    import tomllib

    raw = path.read_bytes()
    try:
        content = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    settings: dict[str, str | bool] = {}
    for key, value in content.items():
        if key not in tables:
            name = key.replace("-", "_")
            kind = _require(path, name, value)
            settings[name] = at_file(path, value) if kind.is_path else value
    digest = hashlib.sha256(os.fsencode(path) + b"\0" + raw).hexdigest()
    return ConfigFile(path, settings, tables, digest)


def _require(path: Path, key: str, value: object) -> Setting:
    if key not in SETTINGS:
        raise ConfigError(
            f"{path}: unknown key {key}{did_you_mean(key, SETTINGS)}: "
            f"keys are {', '.join(SETTINGS)}, and a table for a command, such as [study.run]"
        )
    kind = SETTINGS[key].kind
    if type(value) is not kind:
        shown = repr(value).lower() if isinstance(value, bool) else repr(value)
        raise ConfigError(f"{path}: {key} is {shown}, expected {_NAMES[kind]}")
    return SETTINGS[key]


@dataclass(frozen=True)
class Option:
    """How a field is described and checked; `names` says what a shell completes it with.

    `flag` is its spelling on the command line where that does not follow from the field's name.
    """

    help: str | None = None
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    is_minimum_excluded: bool = False
    names: str | None = None
    flag: str | None = None

    def problem(self, value: Any) -> str | None:
        """What was expected instead of the value, or None."""
        if self.choices is not None and value not in self.choices:
            return " or ".join(self.choices)
        if value is None or self.minimum is None:
            return None
        is_low = value <= self.minimum if self.is_minimum_excluded else value < self.minimum
        if not is_low and (self.maximum is None or value <= self.maximum):
            return None
        if self.is_minimum_excluded:
            return f"more than {self.minimum:g}"
        return f"{self.minimum:g} " + (
            "or more" if self.maximum is None else f"to {self.maximum:g}"
        )


def option(
    default: Any = MISSING,
    help: str | None = None,
    choices: Iterable[str] | None = None,
    **properties: Any,
) -> Any:
    """A field of a dataclass that is an option; `properties` are fields of `Option`."""
    listed = None if choices is None else tuple(choices)
    return field(default=default, metadata={"option": Option(help, listed, **properties)})


def options_of(request: type) -> dict[str, Option]:
    """The fields of a dataclass that are options, by name."""
    return {
        each.name: each.metadata["option"] for each in fields(request) if "option" in each.metadata
    }
