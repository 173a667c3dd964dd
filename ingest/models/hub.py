"""Repositories of the Hugging Face hub: their files, the files that loading needs, and uploads.

The client library reads HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE. A revision that is
pinned to a commit and complete in its cache needs no request. An error of the hub becomes one line
that names the fix.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from axes.ingest.models.config import one_line
from axes.warehouse.errors import ModelError, RootError
from axes.warehouse.progress import announce, byte_text, hub_bars, quiet_hub
from axes.warehouse.storage.files import inside, parse_json

# Everything that loading a model needs, without pickled weights and without a second copy of them,
# which transformers would not read: other formats (`original/`, `consolidated.safetensors`) and
# half-precision variants.
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
_NOT_NEEDED = ("*/*", "consolidated*", "*.fp16*")

# The client itself retries a listing for 25 s and resumes a file that was cut off, but gives up on
# a connection that was reset; the download is then started again, without the complete files.
_LISTING_SECONDS = 10.0
_LISTING_WAITS = (1.0,)
_DOWNLOAD_WAITS = (1.0, 5.0, 20.0)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Repository:
    """OWNER/NAME at a revision; the name of its configuration, and the patterns of its files.

    `instead` is what to do where the hub does not answer; `kind` is model or dataset; `is_push`:
    nothing is downloaded.
    """

    name: str
    revision: str | None = None
    config: str = "config.json"
    patterns: tuple[str, ...] = MODEL_FILES
    instead: str = "give local weights with --source FOLDER (make ingest ... SOURCE=FOLDER)"
    kind: str = "model"
    is_push: bool = False


def download(repository: Repository) -> Path:
    """The folder of the client's cache with the files of the patterns, complete.

    Raises `ModelError` where the hub cannot be reached, refuses, or the disk does.
    """
    from huggingface_hub import snapshot_download

    quiet_hub()
    _begin_download(repository)
    with _explained(repository), hub_bars(shown=_misses_weights(repository)):
        folder = _retried(
            lambda: snapshot_download(
                repository.name,
                revision=repository.revision,
                repo_type=repository.kind,
                allow_patterns=list(repository.patterns),
                ignore_patterns=_ignored(repository),
            ),
            _DOWNLOAD_WAITS,
        )
    return Path(folder)


@dataclass(frozen=True)
class Pushed:
    """A repository of the hub as it is after an upload."""

    repository: str
    url: str
    commit: str
    is_new: bool


def push(folder: Path, name: str, kind: str, marker: str, *, is_public: bool) -> Pushed:
    """Upload a folder to a repository of `kind` (model, dataset), which is made if there is none.

    Raises `ModelError` without a token, without a network, where the hub refuses, and for a
    repository of other content: without the file `marker`, which every push has.
    """
    from huggingface_hub import HfApi, constants, errors, get_token

    quiet_hub()
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"{name} cannot be pushed to: HF_HUB_OFFLINE is set")
    if get_token() is None:
        raise ModelError(f"a push to {name} needs a token that may write: set HF_TOKEN")
    api, is_new = HfApi(), False
    asked = Repository(name, None, marker, (), "check the network", kind, is_push=True)
    with _explained(asked):
        try:
            listing = api.repo_info(name, repo_type=kind, timeout=_LISTING_SECONDS)
            files = {file.rfilename for file in getattr(listing, "siblings", None) or []}
        except errors.RepositoryNotFoundError:
            files, is_new = set(), True
        if files - {".gitattributes", "README.md"} and marker not in files:
            raise ModelError(
                f"{name} exists and has other content (no {marker}): choose a new name"
            )
        if is_new:
            api.create_repo(name, repo_type=kind, private=not is_public)
        pushed = api.upload_folder(
            repo_id=name, repo_type=kind, folder_path=folder, commit_message="axes push"
        )
    return Pushed(name, str(pushed.repo_url), pushed.oid, is_new)


def begin_downloads(repositories: Iterable[Repository]) -> None:
    """Ask the hub for several repositories as far as it can refuse them, before the first is run.

    Raises one `ModelError` that names every gated repository, or the first other problem.
    """
    gated = []
    for repository in repositories:
        try:
            _begin_download(repository)
        except ModelError as error:
            if not is_gated(error):
                raise
            gated.append(str(error))
    if gated:
        raise ModelError("; ".join(dict.fromkeys(gated)))


def is_gated(error: ModelError) -> bool:
    """Whether the hub refused because a licence is not accepted, or a token is missing."""
    from huggingface_hub.errors import GatedRepoError

    return isinstance(error.__cause__, GatedRepoError)


def _begin_download(repository: Repository) -> None:
    """The listing and the configuration of a repository whose download was not started yet."""
    if cached_config(repository) is not None:
        return
    # The listing fails at once where the client would retry, and the hub refuses a small file
    # where it will refuse the large ones.
    sizes = needed_files(repository)
    download_config(repository)
    total = byte_text(sum(sizes.values()))
    announce(f"download {repository.name}: {total} in {len(sizes)} files")


def needed_files(repository: Repository) -> dict[str, int]:
    """Name -> bytes of the files that `download` takes, in one request; raises `ModelError`."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    quiet_hub()
    with _explained(repository):
        listing = _retried(
            lambda: HfApi().repo_info(
                repository.name,
                repo_type=repository.kind,
                revision=repository.revision,
                files_metadata=True,
                timeout=_LISTING_SECONDS,
            ),
            _LISTING_WAITS,
        )
    sizes = {file.rfilename: file.size or 0 for file in getattr(listing, "siblings", None) or []}
    names = filter_repo_objects(
        sizes, allow_patterns=list(repository.patterns), ignore_patterns=_ignored(repository)
    )
    return {name: sizes[name] for name in names}


def _ignored(repository: Repository) -> list[str] | None:
    return list(_NOT_NEEDED) if repository.patterns == MODEL_FILES else None


def cached_config(repository: Repository) -> Path | None:
    """The configuration in the client's cache, where a download of this revision was started."""
    from huggingface_hub import try_to_load_from_cache

    with _explained(repository):
        path = try_to_load_from_cache(
            repository.name,
            repository.config,
            revision=repository.revision,
            repo_type=repository.kind,
        )
    return Path(path) if isinstance(path, str) else None


def download_config(repository: Repository, folder: Path | None = None) -> None:
    """Put the configuration alone into the cache, or past it into `folder`; raises `ModelError`."""
    from huggingface_hub import hf_hub_download

    quiet_hub()
    with _explained(repository):
        hf_hub_download(
            repository.name,
            repository.config,
            revision=repository.revision,
            repo_type=repository.kind,
            local_dir=folder,
        )


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers takes a model's weights from, whether they exist or not.

    Other files may lie next to them, such as a second copy in another format. Raises `ModelError`
    for an index that names none, or files outside of the folder.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").exists() or not index.is_file():
        return [folder / "model.safetensors"]
    try:
        shards = set(parse_json(index.read_bytes())["weight_map"].values())
        return [inside(folder, name) for name in sorted(shards)]
    except (RootError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} cannot be read: {error}") from error


def _misses_weights(repository: Repository) -> bool:
    """Whether a download will take long enough for a bar; the client decides what is missing."""
    from huggingface_hub import constants

    config = cached_config(repository)
    if config is None or constants.HF_HUB_OFFLINE:
        return config is None
    if repository.patterns == MODEL_FILES:
        paths = weight_files(config.parent)
    else:
        paths = [config.with_name(name) for name in repository.patterns]
    return not all(path.exists() for path in paths)


def _retried(call: Callable[[], Result], waits: tuple[float, ...]) -> Result:
    """Call again after each wait while the connection breaks or the hub is out of order."""
    from huggingface_hub.errors import HfHubHTTPError

    for wait in waits:
        try:
            return call()
        except _transport_error() as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                raise
            time.sleep(wait)
    return call()


def _transport_error() -> type[Exception]:
    """The base error of the HTTP library; which library that is depends on the client's version."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__mro__[1]


@contextmanager
def _explained(repository: Repository) -> Iterator[None]:
    """Turn what the client raises into a `ModelError` of one line."""
    from huggingface_hub.errors import XetDownloadError

    try:
        yield
    except (_transport_error(), OSError, ValueError, RuntimeError, XetDownloadError) as error:
        raise ModelError(_explanation(repository, error)) from error


def _explanation(repository: Repository, error: Exception) -> str:
    from huggingface_hub import constants, errors, get_token

    name = repository.name
    page = f"{constants.ENDPOINT}/{name}"
    local = repository.instead
    # The client hides a refusal behind "not in the cache" where it looked there next.
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(
        error.__cause__, errors.HfHubHTTPError
    ):
        error = error.__cause__
    if isinstance(error, errors.HFValidationError):
        return f"{name} is not a hub id: OWNER/NAME is expected"
    if isinstance(error, errors.GatedRepoError):
        remedy = " and set HF_TOKEN" if get_token() is None else ": your token has no access"
        return f"{name} is gated: accept its licence on {page}{remedy}"
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{name} has no revision {repository.revision}: choose one of {page}/commits/main "
            f"and give {name}@REVISION"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub knows no {name}, or not for you: check the name, or set HF_TOKEN"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"{name} holds no {repository.config}"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            reason = one_line(error.server_message or error)
            return f"the hub refuses {name} ({reason}): check HF_TOKEN and what it may do"
        return f"the hub answers {status} for {name}: try again later, or {local}"
    if constants.HF_HUB_OFFLINE and isinstance(
        error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    ):
        return (
            f"cannot reach the hub for {name}: HF_HUB_OFFLINE is set, and it is not complete in "
            f"{constants.HF_HUB_CACHE}: fetch it where there is a network (axes models fetch), "
            f"or {local}"
        )
    if isinstance(error, (errors.LocalEntryNotFoundError, _transport_error())):
        cache = "" if repository.is_push else ", and it is not complete in the local cache"
        return (
            f"cannot reach the hub for {name} ({one_line(error.__cause__ or error)}){cache}: run "
            f"this again when {constants.ENDPOINT} answers, or {local}"
        )
    # The disk's refusals carry a number; those of the xet backend are OSErrors without one.
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} could not be stored in {constants.HF_HUB_CACHE}: {one_line(error)}"
    return (
        f"{name} could not be {'uploaded' if repository.is_push else 'downloaded'} "
        f"({one_line(error)}): run this again, with "
        "HF_HUB_DISABLE_XET=1 where a firewall lets only the hub itself through"
    )
