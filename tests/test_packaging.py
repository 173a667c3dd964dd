"""Wheel and sdist hold every file of the package once, and install one name: `axes`."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
# What lies at the top of the repository and is imported as `axes.NAME`, through a link in axes/.
LIBRARIES = ("analysis", "ingest", "sql", "studies", "warehouse")
# What a user may well call a file of theirs; importing one of them is an error.
NEIGHBOURS = (
    "analysis.py",
    "ingest.py",
    "sql.py",
    "studies.py",
    "warehouse/__init__.py",
    "cli.py",
    "api.py",
    "results.py",
)
_BUILD = (
    "from setuptools import build_meta as backend; "
    "backend.build_sdist('dist'); backend.build_wheel('dist')"
)


def build(tree: Path) -> Path:
    """The folder with both, built by the build backend in `tree`."""
    done = subprocess.run([sys.executable, "-c", _BUILD], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return tree / "dist"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist of a copy of the tree, as git would check it out."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("axes", *LIBRARIES):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    return build(tree)


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel, which borrows the dependencies of this one."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # What is borrowed may hold this package too, installed from the checkout.
    how = ["--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", *how]
    subprocess.run([*pip, *built.glob("*.whl")], check=True, cwd=folder)
    return folder / "bin"


def files_of_the_tree() -> set[str]:
    """Of axes/ and, through its links, of the four libraries."""
    return {
        f"{prefix}{path.relative_to(folder).as_posix()}"
        for prefix, folder in [
            ("axes/", ROOT / "axes"),
            *((f"axes/{name}/", ROOT / name) for name in LIBRARIES),
        ]
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_every_library_is_linked_into_the_package_and_nothing_else_is():
    links = {path.name: path.readlink() for path in (ROOT / "axes").iterdir() if path.is_symlink()}
    assert links == {name: Path("..") / name for name in LIBRARIES}
    for name in LIBRARIES:
        assert not [path for path in (ROOT / name).rglob("*") if path.is_symlink()]


def test_the_wheel_holds_every_file_once_below_one_name(built):
    (wheel,) = built.glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert len(names) == len(set(names))
    assert set(names) == files_of_the_tree()


def test_the_sdist_holds_every_file_once_and_builds_the_same_wheel(built, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = [member for member in archive if not member.isdir()]
        assert all(member.isreg() for member in members), "links do not survive every unpacker"
        names = [member.name.partition("/")[2] for member in members]
        archive.extractall(tmp_path, filter="data")
    assert len(names) == len(set(names))
    assert {name for name in names if name.startswith("axes/")} == files_of_the_tree()
    assert not {name.partition("/")[0] for name in names} & set(LIBRARIES)
    (tree,) = tmp_path.iterdir()
    (again,), (wheel,) = build(tree).glob("*.whl"), built.glob("*.whl")
    assert contents(again) == contents(wheel)


def contents(wheel: Path) -> dict[str, int]:
    return {member.filename: member.CRC for member in zipfile.ZipFile(wheel).infolist()}


def test_every_requirement_but_torch_is_locked_with_the_hashes_of_its_files():
    """And what the requirements require, as it is installed here."""
    lines = [(ROOT / name).read_text() for name in ("constraints.txt", "constraints-dev.txt")]
    entries = re.findall(r"^(\S+)==(\S+)((?:.*\\\n)+.*)", "\n".join(lines), flags=re.MULTILINE)
    locked = {name: version for name, version, hashes in entries if "--hash=sha256:" in hashes}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # vllm pins other versions, and has an environment of its own.
    del project["optional-dependencies"]["vllm"]
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    wanted = [Requirement(line) for line in (*project["dependencies"], *extras)]
    seen = {"torch"}
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        assert name == "torch" or requirement.specifier.contains(locked[name], prereleases=True)
        if name not in seen:
            seen.add(name)
            environments = [{"extra": extra} for extra in (requirement.extras or {""})]
            for line in metadata.requires(name) or ():
                inner = Requirement(line)
                if any(inner.marker is None or inner.marker.evaluate(e) for e in environments):
                    wanted.append(inner)


def test_every_folder_with_code_is_a_package():
    for name in files_of_the_tree():
        path = ROOT / name
        assert path.suffix != ".py" or (path.parent / "__init__.py").exists(), path


def test_an_installed_axes_does_not_see_files_beside_it_that_bear_its_libraries_names(
    installed, tmp_path
):
    for name in NEIGHBOURS:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise ImportError('a neighbour was imported')\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AXES_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }

    def run(program: str, *arguments: str) -> str:
        command = [installed / program, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    # `-c` puts the current folder before everything, as a notebook does.
    script = "import axes; axes.study; axes.load_axis; print(axes.__file__)"
    assert Path(run("python", "-c", script).strip()).is_relative_to(installed.parent)
    assert "axes" in run("axes", "--help")
    run("axes", "prompts", "import", "demo_safety")
    query = "select count(*) as prompts from prompts"
    assert run("axes", "sql", query, "--format", "csv").split() == ["prompts", "600"]
    assert run("axes", "sql", query, "--safe", "--format", "csv").split() == ["prompts", "600"]
    assert "demo" in run("axes", "study", "--help")
