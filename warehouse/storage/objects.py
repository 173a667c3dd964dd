"""The objects below `s3://bucket/folder`: read, put by one conditional request, counted, deleted.

obstore talks to the store, retries what may pass (503, a broken connection) and reads the AWS
variables of the environment; the usual files (~/.aws) are read here, for it and for deltalake.
Errors are one line and name neither keys nor what the store answered, which may quote them.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, PreconditionError
from obstore.store import S3Store

from axes.warehouse.errors import RootError
from axes.warehouse.storage.roots import RemoteRoot

# Seconds, and how often a request is repeated before its error is the user's.
_TIMEOUT, _CONNECT_TIMEOUT, _RETRIES = 60, 5, 5
_NAMES = ("access_key_id", "secret_access_key", "session_token", "region", "endpoint_url")
# By what the messages of obstore and deltalake have in them.
_CAUSES = {
    # Where nothing else gives credentials, the engines ask the machine's own service for them.
    r"169\.254\.169\.254|[Nn]o credentials|InstanceCredential": (
        "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give a "
        "profile in ~/.aws/credentials"
    ),
    "NoSuchBucket": "the bucket does not exist",
    "InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|ExpiredToken|status(?: code)?: 401": (
        "the store does not accept the credentials"
    ),
    "AccessDenied|PermissionDenied|status(?: code)?: 403": "the credentials may not do this",
    "SlowDown|status(?: code)?: 503": "the store is too busy (503): try again later",
    "TimedOut|timed out": "the store did not answer in time",
    "error sending request|kind: Connect": "the store cannot be reached",
}


class Objects:
    """The objects below a root; names are relative to it."""

    def __init__(self, root: RemoteRoot) -> None:
        self.root = root
        self.bucket = root.parts[1]
        self.prefix = "/".join(root.parts[2:])

    @cached_property
    def options(self) -> dict[str, str]:
        """How the store is reached and who asks, as obstore and deltalake take it."""
        options = {
            name.lower(): value
            for name, value in os.environ.items()
            if name.startswith("AWS_") and value
        }
        if "aws_access_key_id" not in options:
            options = {**_profile(options), **options}
        if options.get("aws_endpoint_url", "").startswith("http://"):
            options["aws_allow_http"] = "true"
        return options | {"aws_conditional_put": "etag"}

    @cached_property
    def _store(self) -> S3Store:
        known = {f"aws_{name}" for name in (*_NAMES, "endpoint", "default_region")}
        known |= {name for name in self.options if "token" in name or "container" in name}
        config = {name: value for name, value in self.options.items() if name in known}
        with self.errors():
            return S3Store(
                self.bucket,
                prefix=self.prefix or None,
                config=config,  # type: ignore[arg-type]
                client_options={
                    "timeout": timedelta(seconds=_TIMEOUT),
                    "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT),
                    "allow_http": "aws_allow_http" in self.options,
                },
                retry_config={
                    "max_retries": _RETRIES,
                    "retry_timeout": timedelta(seconds=_TIMEOUT),
                },
            )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """What goes wrong in the body becomes a `RootError` of one line."""
        try:
            yield
        except RootError:
            raise
        except Exception as error:
            raise RootError(f"{self.root}: {_cause(error)}") from None

    def get(self, name: str) -> tuple[bytes, str] | None:
        """The bytes of an object and their tag, which each put changes; None without it."""
        with self.errors():
            try:
                answer = obstore.get(self._store, name)
                return answer.bytes().to_bytes(), str(answer.meta["e_tag"])
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
            return str(put["e_tag"])

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        """Put an object in the place of the one with this tag; None where that one is gone."""
        with self.errors():
            try:
                put = obstore.put(self._store, name, content, mode={"e_tag": tag})
            except (PreconditionError, FileNotFoundError):
                return None
            return str(put["e_tag"])

    def delete(self, name: str) -> None:
        """Delete an object; one that is not stored is no error."""
        with self.errors():
            obstore.delete(self._store, name)

    def names(self) -> list[str]:
        """The names of all objects, in order."""
        with self.errors():
            return sorted(each["path"] for chunk in obstore.list(self._store) for each in chunk)


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
    if "NoSuchBucket" in str(error):
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
