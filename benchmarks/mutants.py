"""`make mutants`: what share of small faults in the code of numbers and of writing fails a test.

cosmic-ray changes one operator, number, comparison, decorator or loop at a time, in a copy of the
tree. Of the places that it would change, SAMPLE a part are drawn, and one change at each;
annotations are left out, since nothing runs them, and so is what Python cannot parse. A change
counts as found where one of the part's own tests fails: other tests may find more. Survivors are
printed as diffs, and so are changes whose tests had not ended after ten minutes, which a loaded
machine causes as well as a loop without end: they are counted apart.
The tools' environment has cosmic-ray; `.venv` runs the tests.
"""

from __future__ import annotations

import ast
import itertools
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome

ROOT = Path(__file__).parent.parent
# Part: its modules, and the tests that answer for them.
PARTS = {
    "stats": ("analysis/stats/*.py", ["tests/analysis/stats"]),
    "methods": ("analysis/methods/**/*.py", ["tests/analysis/methods"]),
    "writer": (
        "warehouse/writer.py",
        ["tests/warehouse", "tests/ingest/test_activations.py", "tests/ingest/test_kill.py"],
    ),
    "ledger": (
        "warehouse/storage/ledger.py",
        ["tests/warehouse", "tests/ingest/test_activations.py", "tests/ingest/test_kill.py"],
    ),
}
TIMEOUT_S = 600


def annotations(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end (line, column) of every annotation of a module."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    found = [getattr(node, name, None) for node in nodes for name in ("annotation", "returns")]
    return [
        ((part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0))
        for part in found
        if isinstance(part, ast.expr)
    ]


def is_valid(change: MutationSpec) -> bool:
    """Whether the changed module is Python: a `*` between parameters is taken for a product."""
    operator = get_operator(change.operator_name)(**change.operator_args)
    try:
        ast.parse(mutate_code(change.module_path.read_text("utf-8"), operator, change.occurrence))
    except SyntaxError:
        return False
    return True


def draw(paths: list[Path], count: int, seed: int) -> list[MutationSpec]:
    """One change at each of `count` places of the modules."""
    skipped = {path: annotations(path) for path in paths}
    places: dict[tuple[Path, tuple[int, int]], list[MutationSpec]] = {}
    with use_db(":memory:") as database:
        init(paths, database, {})
        for item in database.work_items:
            change = item.mutations[0]
            at = change.start_pos
            if not any(start <= at < end for start, end in skipped[change.module_path]):
                places.setdefault((change.module_path, at), []).append(change)
    chance = random.Random(seed)
    order = chance.sample(sorted(places), len(places))
    changes = filter(is_valid, (chance.choice(places[place]) for place in order))
    return list(itertools.islice(changes, count))


def test_command(module: Path, tests: list[str]) -> str:
    """The tests of a module, its own file first, in the copy that lies in the working folder."""
    own = [str(path) for test in tests for path in Path(test).rglob(f"test_{module.stem}.py")]
    return (
        f"{ROOT}/.venv/bin/python -m pytest -x -q -n0 -p no:cacheprovider {' '.join(own + tests)}"
    )


def main(count: int, parts: list[str], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        hidden = shutil.ignore_patterns(".*", "lake", "site")
        shutil.copytree(ROOT, copy, symlinks=True, ignore=hidden)
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy)
        for part in parts or PARTS:
            pattern, tests = PARTS[part]
            modules = sorted(Path().glob(pattern))
            outcome, output = run_tests(test_command(modules[0], tests), TIMEOUT_S)
            if outcome != TestOutcome.SURVIVED:
                sys.exit(f"{part}: its tests fail in unchanged code\n{output[-2000:]}")
            changes = draw(modules, count, seed)
            found = late = 0
            for change in changes:
                result = mutate_and_test(
                    [change], test_command(change.module_path, tests), TIMEOUT_S
                )
                is_late = result.output == "timeout"
                late += is_late
                if result.is_killed and not is_late:
                    found += 1
                else:
                    print("not ended" if is_late else "survived", result.diff, flush=True)
            share = f"{found} of {len(changes)} changes failed a test"
            print(f"{part}: {share}, {late} had not ended", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[3:], int(sys.argv[2]))
