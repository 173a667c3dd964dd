"""Roots as they are typed: the path of a folder, or `s3://bucket/folder` (`gs://`, `az://`)."""

from __future__ import annotations

import re
from pathlib import Path

from axes.warehouse.errors import RootError

# `s3://bucket`, and `s3:/bucket`, which it becomes as a Path; a drive such as `C:/` is no scheme.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
SCHEMES = ("s3", "gs", "az")


class RemoteRoot(type(Path())):  # type: ignore[misc]
    """`s3://bucket/folder`, or a name below it.

    Names are joined and taken apart as those of files are, but no file has this path: whatever
    would look on the disk for it raises `RootError`, so that nothing takes a folder `s3:` for it.
    """

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    @property
    def scheme(self) -> str:
        """`s3`, `gs` or `az`."""
        return self.parts[0].removesuffix(":")

    def __fspath__(self) -> str:
        raise RootError(
            f"{self} lies on an object store: this works on a folder alone, which "
            "`axes warehouse subset` makes (docs/howto/object-store.md)"
        )


def root_path(root: str | Path) -> Path:
    """A root as it was typed; raises `RootError` for a URL that no warehouse can lie on."""
    if isinstance(root, RemoteRoot) or not (match := _SCHEME.match(str(root))):
        return Path(root) if isinstance(root, str) else root
    if match[1] not in SCHEMES:
        # Without the rest: it may have a password in it.
        raise RootError(f"a warehouse cannot lie on {match[1]}://: give a folder or s3://BUCKET")
    path = RemoteRoot(str(root))
    if len(path.parts) < 2 or set("@?#") & set(str(path)):
        raise RootError(f"a root there is {match[1]}://BUCKET/FOLDER, without credentials")
    return path


def resolved(root: Path) -> Path:
    """A folder's path without links; a remote root as it is."""
    return root if isinstance(root, RemoteRoot) else root.resolve()


def is_url(text: str) -> bool:
    """Whether a text is a URL and not the path of a file."""
    return _SCHEME.match(text) is not None
