"""Who imports whom: the imports of the package, read from its source without running it.

`tests/test_layering.py` holds the rules against them; `docs/generate.py` draws them in modules.md.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIBRARIES = ("ingest", "analysis", "warehouse", "sql", "studies")


@dataclass(frozen=True)
class Import:
    """`importer` names the module `imported` in this line of its file.

    `is_on_load`: it is imported together with its importer, rather than in a function or for a
    type checker.
    """

    importer: str
    imported: str
    line: int
    is_on_load: bool


def read_modules(root: Path = ROOT) -> dict[str, Path]:
    """Module name -> file, each file once: `axes.ingest.jobs` is `ingest/jobs.py`."""
    modules = {}
    for folder in ("axes", *LIBRARIES):
        prefix = () if folder == "axes" else ("axes",)
        # Links are not followed: what axes/ links to is among the libraries.
        for path in sorted((root / folder).rglob("*.py")):
            parts = (*prefix, *path.relative_to(root).with_suffix("").parts)
            modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


def read_imports(modules: dict[str, Path]) -> list[Import]:
    """Every import of one of these modules by another, in functions and for type checkers too.

    A string that is the name of a module, alone or as `module:object`, counts as an import in a
    function: the tables of lazy commands and `importlib.import_module` have those.
    """
    return [
        Import(importer, imported, line, is_on_load)
        for importer, path in modules.items()
        for imported, line, is_on_load in _named(ast.parse(path.read_text()), modules)
        if imported != importer
    ]


def part(module: str) -> str:
    """The library that a module belongs to; `axes` if it is above them."""
    _, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return name if name in LIBRARIES else "axes"


def folder(module: str, modules: dict[str, Path]) -> str:
    """The folder that a module lies in, as a path in the repository."""
    return modules[module].parent.relative_to(ROOT).as_posix()


def cycles(edges: set[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Groups of modules that import each other, directly or through others."""
    reach: dict[str, set[str]] = {}
    follow: dict[str, set[str]] = {}
    for importer, imported in edges:
        follow.setdefault(importer, set()).add(imported)
    for start in follow:
        seen, pending = set(), [start]
        while pending:
            for module in follow.get(pending.pop(), set()) - seen:
                seen.add(module)
                pending.append(module)
        reach[start] = seen
    groups = {
        tuple(sorted(other for other in reach[module] if module in reach.get(other, ())))
        for module in reach
        if module in reach[module]
    }
    return sorted(groups)


def _named(
    tree: ast.Module, modules: dict[str, Path], *, is_on_load: bool = True
) -> Iterator[tuple[str, int, bool]]:
    """Module, line and `is_on_load` of each import below a node."""
    pending: list[tuple[ast.AST, bool]] = [(tree, is_on_load)]
    while pending:
        node, is_on_load = pending.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in modules:
                    yield alias.name, node.lineno, is_on_load
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                name = inner if inner in modules else node.module
                if name in modules:
                    yield name, node.lineno, is_on_load
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if "." in name and name in modules:
                yield name, node.lineno, False
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            is_on_load = False
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += [(child, False) for child in node.body]
            pending += [(child, is_on_load) for child in node.orelse]
        else:
            pending += [(child, is_on_load) for child in ast.iter_child_nodes(node)]
