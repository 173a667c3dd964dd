"""The study's own models through the real client library, from a hub that runs on this machine.

The hub serves a tiny random model of the right architecture under each real id and revision, with
the files beside it that real repositories have. The client reads its settings when it is imported,
so every job runs in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import XetDownloadError

from axes.ingest.models.download import ADAPTER_FILES
from axes.ingest.models.hub import Repository, needed_files
from axes.ingest.models.registry import registry
from axes.warehouse.errors import ModelError
from tests.ingest.conftest import put_texts, read
from tests.ingest.hub_server import TOKEN, Client, Hub, ServedRepository, serve
from tests.tiny_models import byte_tokenizer, tiny_model

Repositories = dict[str, ServedRepository]

STUDY = {name: spec for name, spec in registry().items() if spec.revision}
ARCHITECTURES = {
    "pythia-160m": "gpt_neox",
    "pythia-410m": "gpt_neox",
    "pythia-1b": "gpt_neox",
    "llama-2-13b-chat": "llama",
    "llama-3-8b-instruct": "llama",
    "mistral-7b-instruct": "mistral",
    "qwen2.5-7b": "qwen2",
}
# Its embedding fills a shard of 20 MB: the client keeps what came in pieces of 10 MiB.
LARGE = "mistral-7b-instruct"
LARGE_SIZES = {"vocab_size": 20_000, "hidden_size": 256}
PIECE = 10 << 20
# What real repositories hold beside the files that loading needs.
OTHER_FILES = (
    "README.md",
    ".gitattributes",
    "pytorch_model.bin",
    "consolidated.safetensors",
    "model.fp16.safetensors",
    "original/consolidated.00.pth",
    "original/params.json",
    "original/model.safetensors",
    "modeling_custom.py",
)


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Repositories:
    """A tiny model under each real id and revision; not to be changed."""
    base = tmp_path_factory.mktemp("hub")
    served = {}
    for seed, (name, architecture) in enumerate(ARCHITECTURES.items()):
        folder, spec = base / name, STUDY[name]
        sizes = LARGE_SIZES if name == LARGE else {}
        model = tiny_model(architecture, seed=seed, **sizes)
        model.save_pretrained(folder, max_shard_size="21MB" if name == LARGE else "40KB")
        byte_tokenizer(chat=architecture != "gpt_neox").save_pretrained(folder)
        for file in OTHER_FILES:
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(b"not needed")
        served[repository_id(name)] = ServedRepository(
            folder, str(spec.revision), is_gated=architecture == "llama"
        )
    return served


@pytest.fixture
def hub(repositories: Repositories) -> Iterator[Hub]:
    with serve(repositories) as running:
        yield running


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    return Client(hub.endpoint, tmp_path / "home")


def stored(root: Path) -> dict[str, np.ndarray]:
    """Model -> its vectors `[layer, prompt, d_model]`."""
    found = read(root, "select model, vector from activations order by model, layer, prompt_id")
    vectors: dict[str, list] = {}
    for row in found:
        vectors.setdefault(row["model"], []).append(row["vector"])
    return {model: np.array(them).reshape(4, 3, -1) for model, them in vectors.items()}


def repository_id(name: str) -> str:
    return STUDY[name].source.removeprefix("hf:")


def served_folder(repositories: Repositories, name: str) -> Path:
    return repositories[repository_id(name)].folder


INGEST_SEVERAL = """
import sys
from axes.cli.main import cli
models, root = sys.argv[1].split(","), sys.argv[2]
for model in models:
    cli.main(
        ["ingest", "activations", model, "--prompts", "texts", "--root", root],
        standalone_mode=False,
    )
"""


ONE_OF_EACH = ("pythia-160m", "llama-2-13b-chat", "mistral-7b-instruct", "qwen2.5-7b")


@pytest.mark.parametrize(
    "names", [ONE_OF_EACH, pytest.param(tuple(ARCHITECTURES), marks=pytest.mark.campaign)]
)
def test_the_studys_models_come_from_the_hub_and_run(
    hub, client, root, repositories, tmp_path, names
):
    """One through `make ingest`, the others in one process."""
    assert list(ARCHITECTURES) == list(STUDY)
    assert all(spec.revision and len(spec.revision) == 40 for spec in STUDY.values())
    put_texts(root, ["tell me a story", "why is the sky blue", "a b c d e f"])
    made, *others = names
    shard = largest_shard(served_folder(repositories, LARGE))
    hub.drop_once(shard.name, PIECE + 4321)

    done = make_ingest(client, made, root, tmp_path)
    assert done.returncode == 0, done.stderr
    arguments = [sys.executable, "-c", INGEST_SEVERAL, ",".join(others), root]
    done = client.run(*arguments, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr

    vectors = stored(root)
    assert set(vectors) == set(names)
    assert all(np.isfinite(them).all() for them in vectors.values())
    revisions = read(root, "select model, revision, architecture, model_group from models")
    assert {row["model"]: tuple(row.values())[1:] for row in revisions} == {
        name: (STUDY[name].revision, ARCHITECTURES[name], STUDY[name].group) for name in names
    }
    served = {repository_id(name): repositories[repository_id(name)] for name in names}
    assert_only_what_is_needed_was_asked_for(hub, served)
    assert_resumed(hub, shard)


def make_ingest(
    client: Client, model: str, root: Path, scratch: Path
) -> subprocess.CompletedProcess[str]:
    """`make ingest` with an environment that stands for the one of `make setup`."""
    command = scratch / "venv" / "bin" / "axes"
    command.parent.mkdir(parents=True)
    command.write_text(f"#!{sys.executable}\nfrom axes.cli.main import main\nmain()\n")
    command.chmod(0o755)
    (scratch / "venv" / ".installed").touch()
    variables = [f"VENV={scratch / 'venv'}", f"ROOT={root}", "PROMPTS=texts"]
    return client.run("make", "ingest", f"MODEL={model}", *variables)


def largest_shard(folder: Path) -> Path:
    return max(folder.glob("model-*.safetensors"), key=lambda path: path.stat().st_size)


def assert_only_what_is_needed_was_asked_for(hub: Hub, repositories: Repositories) -> None:
    """The pinned revision, no second copy of the weights; no token where a weight file lies."""
    fetched = {request.name for request in hub.fetched()}
    assert not fetched & set(OTHER_FILES)
    shards = {
        path.name
        for repository in repositories.values()
        for path in repository.folder.glob("model-*.safetensors")
    }
    assert shards <= fetched and len(shards) > len(repositories)
    assert not any(request.has_token for request in hub.requests if "/stored/" in request.path)
    for name, repository in repositories.items():
        paths = [request.path for request in hub.requests if name in request.path]
        assert paths and all(repository.commit in path for path in paths)


def assert_resumed(hub: Hub, shard: Path) -> None:
    first, second = hub.fetched(shard.name)
    size = shard.stat().st_size
    assert (first.range, first.sent) == (None, PIECE + 4321)
    assert (second.range, second.sent) == (f"bytes={PIECE}-", size - PIECE)


def test_a_reset_connection_costs_the_file_and_a_download_says_its_size_and_shows_bars(
    hub: Hub, client: Client, repositories: Repositories
):
    """And a hub that is out of order for a moment is asked again.

    TQDM_POSITION is the client's way to draw bars where there is no terminal.
    """
    served = served_folder(repositories, "pythia-1b")
    shard = largest_shard(served)
    hub.outages = 2
    assert "the hub answers 503" in client.refused("models", "fetch", "pythia-1b")
    hub.outages = 1
    hub.drop_once(shard.name, 1000, resets=True)
    done = client.axes("models", "fetch", "pythia-1b", TQDM_POSITION="-1")
    assert done.returncode == 0, done.stderr
    size = needed_size(repositories, "pythia-1b")
    assert f"download EleutherAI/pythia-1b: {size / 1e3:.2f} kB in " in done.stderr
    assert "%" in done.stderr
    assert len(hub.fetched(shard.name)) == 2
    assert len(hub.fetched("config.json")) == 1
    for path in served.glob("model-*"):
        assert (Path(done.stdout.strip()) / path.name).read_bytes() == path.read_bytes()


def test_a_gated_model_needs_a_token_that_is_right(hub: Hub, client: Client):
    fetch = ["models", "fetch", "llama-2-13b-chat"]
    page = f"{hub.endpoint}/meta-llama/Llama-2-13b-chat-hf"
    assert f"is gated: accept its licence on {page} and set HF_TOKEN" in client.refused(*fetch)
    refused = client.refused(*fetch, HF_TOKEN="hf_wrong")
    assert "Invalid credentials" in refused and "check HF_TOKEN" in refused
    assert not hub.fetched()
    folder = client.fetched_folder("llama-2-13b-chat", HF_TOKEN=TOKEN)
    assert folder.name == STUDY["llama-2-13b-chat"].revision


def test_what_the_hub_does_not_have_or_the_disk_refuses_is_one_line_with_the_fix(hub, client):
    fetch = ["models", "fetch"]
    page = f"{hub.endpoint}/Qwen/Qwen2.5-7B-Instruct"
    assert client.refused(*fetch, "Qwen/Qwen2.5-7B-Instruct@v9") == (
        "Error: Qwen/Qwen2.5-7B-Instruct has no revision v9: choose one of "
        f"{page}/commits/main and give Qwen/Qwen2.5-7B-Instruct@REVISION"
    )
    assert "check the name, or set HF_TOKEN" in client.refused(*fetch, "nobody/nothing")
    assert not hub.fetched()
    shutil.rmtree(client.home / "huggingface", ignore_errors=True)
    client.home.mkdir(exist_ok=True)
    (client.home / "huggingface").write_text("a file where the cache should be")
    line = client.refused(*fetch, "pythia-160m")
    assert "could not be stored in" in line and "reach" not in line


def test_of_an_adapter_the_two_files_are_taken_at_the_revision_asked_for(hub, client, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    for name in (*ADAPTER_FILES, "adapter_model.bin", "tokenizer.json", "README.md"):
        (folder / name).write_text(name)
    commit = "0123456789abcdef0123456789abcdef01234567"
    hub.repositories = {**hub.repositories, "owner/adapter": ServedRepository(folder, commit)}
    call = (
        "from axes.ingest.models.download import fetch_adapter; "
        "print(fetch_adapter('hf:owner/adapter@main'))"
    )
    done = client.run(sys.executable, "-c", call)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).name == commit
    assert sorted(str(request.name) for request in hub.fetched()) == sorted(ADAPTER_FILES)


def test_an_unreachable_hub_is_said_soon(tmp_path: Path):
    """In one try more; the client's own retries would take 23 s."""
    nobody = Client(closed_endpoint(), tmp_path)
    for command in (["fetch", "pythia-160m"], ["show", "pythia-160m", "--estimate"]):
        start = time.monotonic()
        line = nobody.refused("models", *command)
        assert time.monotonic() - start < 20
        assert "cannot reach the hub for EleutherAI/pythia-160m" in line
        assert "--source FOLDER" in line


def closed_endpoint() -> str:
    """An address where nothing listens: a port that was free a moment ago."""
    with serve({}) as hub:
        return hub.endpoint


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), "could not be stored in .*No space left"),
        (PermissionError("xet: no access"), "could not be downloaded .xet: no access.: run this"),
        (RuntimeError("xet: broken"), "could not be downloaded .xet: broken.: run this again"),
        (XetDownloadError("xet:\nnothing"), "could not be downloaded .xet: nothing.: run this"),
    ],
)
def test_what_the_disk_and_the_other_backend_raise_is_one_line(error, expected, monkeypatch):
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    with pytest.raises(ModelError, match=expected):
        needed_files(Repository("owner/name"))


def test_what_is_whole_in_the_cache_needs_no_hub_and_what_is_not_is_completed(
    repositories: Repositories, tmp_path: Path
):
    with serve(repositories) as hub:
        client = Client(hub.endpoint, tmp_path)
        # A branch is taken at its commit.
        folder = client.fetched_folder("EleutherAI/pythia-410m@main")
        assert folder.name == STUDY["pythia-410m"].revision
        asked = len(hub.requests)
        assert client.fetched_folder("pythia-410m") == folder
        assert len(hub.requests) == asked
        shard = sorted(folder.glob("*.safetensors"))[0]
        shard.resolve().unlink()
        shard.unlink()
        line = client.refused("models", "fetch", "pythia-410m", HF_HUB_OFFLINE="1")
        assert "is not complete in" in line and "HF_HUB_OFFLINE is set" in line
        hub.requests.clear()
        assert client.fetched_folder("pythia-410m") == folder
        assert [request.name for request in hub.fetched()] == [shard.name]
        hub.requests.clear()
        assert client.fetched_folder("pythia-410m", HF_HUB_OFFLINE="1") == folder
        assert not hub.requests


def test_where_only_the_hub_gets_through_the_other_backend_can_be_left_out(hub, client):
    """The client's default backend with a storage that nobody answers for; it retries for long."""
    hub.xet_endpoint = closed_endpoint()
    impatient = {
        "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
        "HF_XET_CLIENT_RETRY_MAX_DURATION": "2s",
    }
    done = client.axes("models", "fetch", "pythia-160m", **impatient)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: EleutherAI/pythia-160m could not be downloaded")
    assert "with HF_HUB_DISABLE_XET=1" in last and "Traceback" not in done.stderr
    folder = client.fetched_folder("pythia-160m", HF_HUB_DISABLE_XET="1")
    assert folder.name == STUDY["pythia-160m"].revision


def test_an_estimate_takes_the_configuration_from_the_hub_and_nothing_else(
    hub: Hub, client: Client, repositories: Repositories
):
    show = ["models", "show", "qwen2.5-7b", "--estimate"]
    done = client.axes(*show, "--format", "json")
    assert done.returncode == 0, done.stderr
    (needs,) = json.loads(done.stdout)
    assert needs["download_bytes"] == needed_size(repositories, "qwen2.5-7b")
    assert needs["architecture"] == "qwen2" and needs["layer_count"] == 4
    assert not needs["is_fetched"]
    assert {request.name for request in hub.fetched()} == {"config.json"}
    assert not list((client.home / "huggingface").rglob("config.json"))
    line = client.refused("models", "show", "llama-3-8b-instruct", "--estimate")
    assert "is gated" in line and "set HF_TOKEN" in line


def needed_size(repositories: Repositories, name: str) -> int:
    files = served_folder(repositories, name).iterdir()
    needed = [path for path in files if path.is_file() and path.name not in OTHER_FILES]
    return sum(path.stat().st_size for path in needed)
