"""Whatever lies in a package is in the wheel and in the sdist: a file cannot be forgotten."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [
    name.rstrip("*") for name in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, built by the build backend from a copy of the tree."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("axes.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name)
    script = (
        "from setuptools import build_meta as backend; "
        "backend.build_sdist('dist'); backend.build_wheel('dist')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return tree / "dist"


def in_the_tree() -> set[str]:
    files = {path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file()}
    return {
        "axes.py",
        *(
            path.relative_to(ROOT).as_posix()
            for path in files
            if "__pycache__" not in path.parts and path.suffix != ".pyc"
        ),
    }


def test_the_wheel_holds_the_tree_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == in_the_tree()


def test_the_sdist_holds_the_tree(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert in_the_tree() - names == set()
    assert not [name for name in names if "__pycache__" in name]


def test_every_folder_with_code_is_in_a_package():
    """A new top-level package is listed in pyproject.toml, or it is not for installing."""
    not_installed = {"tests", "benchmarks", "docs"}
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders - not_installed == set(PACKAGES)


def test_no_folder_of_code_lacks_an_init():
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path
