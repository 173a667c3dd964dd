"""What every test starts from: a cache and a home of its own, no network, one thread."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
import shutil
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

# The hub library reads this once, when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import HealthCheck, settings

from axes.analysis.study.definition import StudyDefinition
from axes.analysis.study.run import run_study
from axes.warehouse.settings import SETTINGS
from axes.warehouse.storage.layout import init_root
from axes.warehouse.storage.roots import root_path
from axes.warehouse.storage.store import store_at
from tests.once import made_once
from tests.reported import put_reported, put_studied
from tests.rows import put
from tests.worlds import define_study, make_world

# No test cuts the power: that files are synced, and when, is read from the calls (test_writer.py).
os.fsync = lambda descriptor: None

# Libraries leave millions of objects that no collection frees: looking through them took a fifth
# of the time of collecting tests.
gc.set_threshold(50_000, 20, 10)

# How long an example takes is the machine's affair.
settings.register_profile("axes", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("axes")

_numbers = itertools.count()

BUCKET = "lakes"
DEMO_MODELS = ("smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b")
_OPTIONS = {"prompts": "demo_safety", "align": "demo_alignment", "alignment_shuffles": 2}
DEMO = define_study(DEMO_MODELS, label="demo", **_OPTIONS)


def put_demo(root: Path, *studies: StudyDefinition) -> None:
    """The models, sets and axes of the demo on a small scale, by these studies in turn."""
    sets = {"labelled": {"demo_safety": 25}, "benign_count": 40, "benign": "demo_alignment"}
    make_world(root, widths=dict.fromkeys(DEMO_MODELS, 14), layer_count=24, **sets)
    put(root, "runs", {"run_id": "world", "parameters": "{}", "library_versions": "{}"})
    for study in studies:
        run_study(root, study)


def pytest_collection_finish() -> None:
    gc.freeze()


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where caches and homes are made, by tests that need one."""
    return tmp_path_factory.mktemp("homes")


@pytest.fixture(scope="session", autouse=True)
def _home(homes: Path) -> None:
    """What fixtures of modules start from: they are made before `_isolated`."""
    for variable in ("AXES_CACHE", "XDG_CONFIG_HOME"):
        os.environ[variable] = str(homes / variable)


@pytest.fixture(autouse=True)
def _isolated(homes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's cache or warehouse, or reaches a hub."""
    home = homes / str(next(_numbers))
    monkeypatch.setenv("AXES_CACHE", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    for name in SETTINGS:
        if name != "cache":
            monkeypatch.delenv(SETTINGS[name].variable, raising=False)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def empty_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty warehouse, not to be written to."""
    folder = tmp_path_factory.mktemp("empty") / "lake"
    init_root(folder)
    return folder


@pytest.fixture
def root(empty_root: Path, tmp_path: Path) -> Path:
    """An empty warehouse."""
    return shutil.copytree(empty_root, tmp_path / "lake")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's models, sets and axes on a small scale: the names of the documentation exist."""
    return made_once(tmp_path_factory, "demo", lambda root: put_demo(root, DEMO))


@pytest.fixture(scope="session")
def planted_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two models (`tests.reported`), not to be written to."""
    return made_once(tmp_path_factory, "planted study", put_studied)


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with rows for every section of a report, not to be written to."""
    return made_once(tmp_path_factory, "reported", put_reported)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server that holds to If-None-Match, with an empty bucket."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0)
    # Half of its time: for each request it lists its own modules, for each object it parses a time.
    backends, serialize = import_module("moto.backends"), import_module("moto.core.serialize")
    modules = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: modules
    serialize.parse_to_aware_datetime = functools.cache(serialize.parse_to_aware_datetime)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT")).close()
    yield address
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An unused place on the server, which the environment leads to."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret-of-anybody")
    # None of the developer's own files.
    monkeypatch.setenv("HOME", str(tmp_path))
    # Whether the holder of a lease lives is seen from its next put.
    monkeypatch.setattr("axes.warehouse.storage.leases._BEAT", 0.5)
    monkeypatch.setattr("axes.warehouse.storage.leases._LOOK", 0.1)
    return f"s3://{BUCKET}/{next(_numbers)}/lake"


@pytest.fixture
def s3_root(s3: str) -> Path:
    """An empty warehouse on the server."""
    root = root_path(s3)
    store_at(root).init()
    return root


@pytest.fixture(params=["folder", "s3"])
def any_root(request: pytest.FixtureRequest) -> Path:
    """An empty warehouse, on a disk and on the server."""
    return request.getfixturevalue("root" if request.param == "folder" else "s3_root")
