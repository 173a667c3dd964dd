"""Imports run one way, `axes -> ingest | analysis -> warehouse`, and nothing grows too large."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from docs.imports import ROOT, Import, cycles, part, read_imports, read_modules

MODULES = read_modules()

# What a part may import besides itself. `axes` stands above the libraries: it may import all.
MAY_IMPORT = {
    "axes": {"ingest", "analysis", "warehouse", "sql", "studies"},
    "ingest": {"warehouse"},
    "analysis": {"warehouse"},
    "warehouse": set(),
    "sql": set(),
    "studies": set(),
}
MAX_FILES, MAX_LINES, MAX_FUNCTION_LINES, MAX_UNTYPED_ROWS = 15, 500, 60, 40


def upward(imports: list[Import]) -> list[str]:
    """The imports that no rule allows, as `importer:line imports imported`."""
    return [
        f"{found.importer}:{found.line} imports {found.imported}"
        for found in imports
        if part(found.imported) not in MAY_IMPORT[part(found.importer)] | {part(found.importer)}
    ]


def test_imports_run_one_way_and_no_modules_import_each_other() -> None:
    """On load, that is: what waits in a function may close a circle, but never runs upward."""
    imports = read_imports(MODULES)
    assert not (wrong := upward(imports)), wrong
    assert cycles({(found.importer, found.imported) for found in imports if found.is_on_load}) == []


def test_no_folder_holds_too_many_files() -> None:
    counts = Counter(path.parent for path in MODULES.values() if path.name != "__init__.py")
    large = {
        folder.relative_to(ROOT).as_posix(): count
        for folder, count in counts.items()
        if count > MAX_FILES
    }
    assert not large, large


def test_no_module_is_too_long() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    long = {module: count for module, count in lengths.items() if count > MAX_LINES}
    assert not long, long


def test_no_function_is_too_long_and_no_import_is_relative() -> None:
    """From `def` to the last line, the docstring included and decorators not.

    Relative imports would not be read, and they hide which package a name is of.
    """
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, (module, node.lineno)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= MAX_FUNCTION_LINES, (module, node.name, lines)


def test_rows_have_types() -> None:
    """`dict[str, Any]` is for what has no known form."""
    counts = {
        module: len(re.findall(r"\bdict\[str, (?:typing\.)?Any\]", path.read_text(), re.IGNORECASE))
        for module, path in MODULES.items()
    }
    rows = {module: count for module, count in counts.items() if count}
    assert sum(rows.values()) < MAX_UNTYPED_ROWS, rows


@pytest.mark.parametrize(
    ("importer", "code"),
    [
        ("analysis/low.py", "from axes.ingest import jobs"),
        ("analysis/low.py", "from axes.ingest.jobs import run"),
        ("ingest/jobs.py", "def f():\n    import axes.analysis.low"),
        ("warehouse/writer.py", "if TYPE_CHECKING:\n    from axes.analysis.low import x"),
        ("ingest/jobs.py", "import axes"),
        ("ingest/jobs.py", "from axes import study"),
        ("warehouse/writer.py", "importlib.import_module('axes.cli')"),
        ("warehouse/writer.py", "LAZY = {'jobs': 'axes.ingest.jobs:run'}"),
    ],
)
def test_an_upward_import_is_found(importer: str, code: str, tmp_path: Path) -> None:
    for name in ("axes/__init__.py", "axes/cli.py", "analysis/low.py", "ingest/jobs.py"):
        put(tmp_path, name, "from axes.warehouse import writer")
    put(tmp_path, "warehouse/writer.py", "import pyarrow")
    assert upward(read_imports(read_modules(tmp_path))) == []
    put(tmp_path, importer, f"import json\n{code}")
    assert len(upward(read_imports(read_modules(tmp_path)))) == 1


def test_modules_that_import_each_other_are_found_and_those_in_functions_are_told_from_them(
    tmp_path: Path,
) -> None:
    put(tmp_path, "ingest/a.py", "from axes.ingest.b import x")
    put(tmp_path, "ingest/b.py", "import axes.ingest.c")
    put(tmp_path, "ingest/c.py", "class A:\n    from axes.ingest import a")
    put(tmp_path, "ingest/d.py", "def f():\n    from axes.ingest import a")
    found = read_imports(read_modules(tmp_path))
    edges = {(each.importer, each.imported) for each in found if each.is_on_load}
    assert cycles(edges) == [("axes.ingest.a", "axes.ingest.b", "axes.ingest.c")]
    assert [each.importer for each in found if not each.is_on_load] == ["axes.ingest.d"]


def put(root: Path, name: str, code: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(code + "\n")


def test_text_reaches_the_terminal_in_one_place() -> None:
    """`echo` and `show` spell control characters out; a print elsewhere would pass them on."""
    printing = re.compile(r"\bclick\.(secho|echo)\(|(?<![\w.])print\((?!visible\()")
    for module, path in MODULES.items():
        if part(module) != "docs" and module != "axes.warehouse.render":
            assert not printing.search(path.read_text()), module
