"""The objects below `s3://bucket/folder`: read, put by one conditional request, listed, deleted.

obstore talks to the store, retries what may pass (503, a broken connection) and reads the
environment's variables; the usual files (~/.aws) are read here, for it and for deltalake.
Errors are one line and name neither keys nor what the store answered, which may quote them.
"""

from __future__ import annotations

import configparser
import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

from axes.warehouse.errors import RootError
from axes.warehouse.storage.roots import RemoteRoot

# Seconds, and how often a request is repeated before its error is the user's.
_TIMEOUT, _CONNECT_TIMEOUT, _RETRIES = 60, 5, 5
_NAMES = ("access_key_id", "secret_access_key", "session_token", "region", "endpoint_url")
_NO_BUCKET = "NoSuchBucket|ContainerNotFound|bucket does not exist"
# By what the messages of obstore and deltalake have in them.
_CAUSES = {
    # Where nothing else gives credentials, the engines ask the machine's own service for them.
    r"169\.254\.169\.254|[Nn]o credentials|InstanceCredential": (
        "no credentials: set those of the store, such as AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or give a profile in ~/.aws/credentials"
    ),
    _NO_BUCKET: "the bucket does not exist",
    "RequestTimeTooSkewed": "this machine's clock is wrong by more than the store allows: set it",
    "InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|AuthenticationFailed"
    "|status(?: code)?: 401": "the store does not accept the credentials",
    "AccessDenied|PermissionDenied|status(?: code)?: 403": "the credentials may not do this",
    "SlowDown|status(?: code)?: 503": "the store is too busy (503): try again later",
    "TimedOut|timed out": "the store did not answer in time",
    "error sending request|kind: Connect": "the store cannot be reached",
}


# What of the environment describes a store and who asks.
_VARIABLES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}


class Listed(NamedTuple):
    """An object in a listing; the time is the store's."""

    size: int
    put_at: datetime


class Objects:
    """The objects below a root; names are relative to it."""

    def __init__(self, root: RemoteRoot) -> None:
        self.root, self.scheme = root, root.scheme
        self.bucket = root.parts[1]
        self.prefix = "/".join(root.parts[2:])

    @cached_property
    def options(self) -> dict[str, str]:
        """How the store is reached and who asks, as obstore and deltalake take it."""
        options = {
            name.lower(): value
            for name, value in os.environ.items()
            if name.startswith(_VARIABLES[self.scheme]) and value
        }
        if self.scheme != "s3":
            return options
        if "aws_access_key_id" not in options:
            options = {**_profile(options), **options}
        if options.get("aws_endpoint_url", "").startswith("http://"):
            options["aws_allow_http"] = "true"
        return options | {"aws_conditional_put": "etag"}

    @cached_property
    def _store(self) -> S3Store | GCSStore | AzureStore:
        known = {f"aws_{name}" for name in (*_NAMES, "endpoint", "default_region")}
        known |= {name for name in self.options if "token" in name or "container" in name}
        config = {name: value for name, value in self.options.items() if name in known}
        is_http = {"aws_allow_http", "azure_storage_use_emulator"} & self.options.keys()
        common: dict[str, Any] = {
            "prefix": self.prefix or None,
            "client_options": {
                "timeout": timedelta(seconds=_TIMEOUT),
                "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT),
                "allow_http": bool(is_http),
            },
            "retry_config": {
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=_TIMEOUT),
            },
        }
        with self.errors():
            if self.scheme == "gs":
                return GCSStore(self.bucket, **common)
            if self.scheme == "az":
                return AzureStore(self.bucket, **common)
            return S3Store(self.bucket, config=config, **common)  # type: ignore[arg-type]

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What the store answers in the body becomes a `RootError` of one line."""
        try:
            yield
        except RootError:
            raise
        except Exception as error:
            if getattr(error, "errno", None):  # Of this machine's disk.
                raise
            raise RootError(f"{self.root}: {_cause(error)}") from None

    def get(self, name: str) -> tuple[bytes, str] | None:
        """The bytes of an object and their tag, which each put changes; None without it."""
        with self.errors():
            try:
                answer = obstore.get(self._store, name)
                return answer.bytes().to_bytes(), _tag(answer.meta)
            except FileNotFoundError as error:
                _require_bucket(error)
                return None

    def read(self, name: str, start: int, end: int) -> bytes:
        """The bytes of an object from `start` to before `end`."""
        with self.errors():
            return obstore.get_range(self._store, name, start=start, end=end).to_bytes()

    def put_new(self, name: str, content: bytes | Path) -> str | None:
        """Put an object that is not stored, by one request; its tag, or None where it is."""
        with self.errors():
            try:
                put = obstore.put(self._store, name, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return None
            return _tag(put)

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        """Put an object in the place of the one with this tag; None where that one is gone."""
        with self.errors():
            try:
                condition = {"e_tag": tag, "version": tag}  # Google's stores compare versions.
                put = obstore.put(self._store, name, content, mode=condition)  # type: ignore[arg-type]
            except (PreconditionError, FileNotFoundError):
                return None
            return _tag(put)

    def put(self, name: str, content: bytes) -> None:
        """Put an object, in the place of one that is stored."""
        with self.errors():
            obstore.put(self._store, name, content)

    def download(self, name: str, path: Path) -> None:
        """Write an object's bytes to a new file; raises `FileNotFoundError` without it."""
        with self.errors():
            try:
                answer = obstore.get(self._store, name)
            except FileNotFoundError as error:
                _require_bucket(error)
                raise FileNotFoundError(errno.ENOENT, "is not in the store", name) from None
            with path.open("xb") as file:
                for chunk in answer:
                    file.write(chunk)

    def copy(self, name: str, target: str) -> None:
        """Copy an object inside the store; one that is not stored is no error."""
        with self.errors(), suppress(FileNotFoundError):
            obstore.copy(self._store, name, target)

    def delete(self, *names: str) -> None:
        """Delete objects; one that is not stored is no error."""
        with self.errors():
            obstore.delete(self._store, list(names))

    def names(self) -> list[str]:
        """The names of all objects, in order."""
        return sorted(self.listed())

    def listed(self, folder: str = "") -> dict[str, Listed]:
        """The objects below a folder, by name."""
        with self.errors():
            return {
                each["path"]: Listed(each["size"], each["last_modified"])
                for chunk in obstore.list(self._store, folder or None)
                for each in chunk
            }

    def folders(self) -> set[str]:
        """The first parts of all names that have several, by one request for a thousand of them."""
        with self.errors():
            return set(obstore.list_with_delimiter(self._store)["common_prefixes"])


def _tag(answer: Mapping[str, object]) -> str:
    """What the next put is conditional on."""
    return str(answer.get("version") or answer["e_tag"])


def _cause(error: Exception) -> str:
    """What an error of the store comes down to."""
    text = f"{type(error).__name__}: {error}"
    for pattern, cause in _CAUSES.items():
        if re.search(pattern, text):
            return cause
    status = re.search(r"status(?: code)?: (\d{3})", text)
    return f"the store answers {status[1]}" if status else f"{type(error).__name__} at the store"


def _require_bucket(error: FileNotFoundError) -> None:
    """Raise again what says that the bucket is missing, and not the object."""
    if re.search(_NO_BUCKET, str(error)):
        raise error


def _profile(environment: Mapping[str, str]) -> dict[str, str]:
    """The profile of ~/.aws that the environment names (default: `default`)."""
    profile = environment.get("aws_profile", "default")
    values: dict[str, str] = {}
    for variable, file, section in (
        ("aws_config_file", "config", f"profile {profile}"),
        ("aws_shared_credentials_file", "credentials", profile),
    ):
        parser = configparser.RawConfigParser()
        path = Path(environment.get(variable, f"~/.aws/{file}")).expanduser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            raise RootError(f"{path} cannot be read as an AWS configuration") from None
        section = section if parser.has_section(section) else profile
        if parser.has_section(section):
            keys = parser[section]
            values |= {f"aws_{name}": keys[full] for name in _NAMES if (full := _key(name)) in keys}
    return values


def _key(name: str) -> str:
    return name if name in ("region", "endpoint_url") else f"aws_{name}"
