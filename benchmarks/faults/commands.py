"""The warehouses that commands start from, and every command that writes.

Each stage is made once, by commands, and copied for every trial. Models are tiny and random, and
prompts say nothing; what is written is small, and every batch is committed on its own.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults.jobs import build, save_models
from benchmarks.faults.processes import Bench

VERSION_1 = Path(__file__).parents[2] / "tests/warehouse/maintenance/fixtures/version_1"
_PROMPTS, _BENIGN = 12, 12
_MODELS = ("small", "large")
# Of what commands read, what the stage "given" makes.
_MADE = ("vectors.npz", "axis.json", "part")


@dataclass(frozen=True)
class Command:
    """A command that writes: its name, the stage it starts from, and its words.

    In the words, `given` is the folder of files that it reads, `out` that of files it writes.
    `weight` is its share of the faults: those that take long get few.
    """

    name: str
    stage: str
    words: str
    weight: int = 4

    def typed(self, bench: Bench) -> list[str]:
        """The words as they are run on a bench."""
        return _typed(bench, self.words)


_SETS = "--prompts marked --prompts benign"
_STUDY = "study --prompts marked --align benign --model small --model large --reference large"
_TRACES = "--prompts marked --limit 12 --max-new-tokens 3 --batch-size 1"
_UNIVERSAL = "universal/large/2/marked/benign/lambda-held_out"
_INTERVENE = (
    "intervene given/small --axis native/small/2/marked --prompts marked --benign benign "
    "--strengths=-0.5,0.5 --limit 4 --benign-limit 2 --random 2 --shuffled 0 --orthogonal 0 "
    "--max-new-tokens 2"
)

# Stage -> the one it starts from, and the commands that lead to it.
STAGES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "nothing": (None, ()),
    "imported": (
        None,
        (
            "prompts import marked given/marked.csv",
            "prompts import benign given/benign.csv",
        ),
    ),
    "ingested": (
        "imported",
        tuple(f"ingest activations given/{model} {_SETS} --token-budget 200" for model in _MODELS),
    ),
    "fitted": ("ingested", ("fit small --prompts marked",)),
    "traced": (
        "ingested",
        tuple(f"ingest traces given/{model} {_TRACES}" for model in _MODELS),
    ),
    "studied": ("traced", (_STUDY, "label refusals", "label inherit")),
    "compacted": ("studied", ("warehouse compact",)),
    # What other stages read: a warehouse to merge, and files to import.
    "given": (
        None,
        (
            "prompts import marked given/marked.csv",
            "prompts import more given/more.csv",
            "ingest activations given/small --prompts more --prompts marked --token-budget 100",
            "fit small --prompts more",
            "activations export small --prompts more --to npz -o given/vectors.npz",
            "export native/small/2/more --to json -o given/axis.json",
            "warehouse subset given/part",
        ),
    ),
}
COMMANDS = (
    Command("warehouse init", "nothing", "warehouse init", 20),
    Command("prompts import", "imported", "prompts import more given/more.csv", 20),
    Command(
        "prompts import --replace",
        "ingested",
        "prompts import marked given/other.csv --replace",
        20,
    ),
    Command("activations import", "imported", "activations import given/vectors.npz", 20),
    Command(
        "activations export",
        "ingested",
        "activations export small --prompts marked --to npz -o out/x.npz",
    ),
    Command(
        "ingest activations",
        "imported",
        "ingest activations given/small --prompts marked --token-budget 1 --keep-tokens 1",
        1,
    ),
    Command("ingest traces", "imported", f"ingest traces given/small {_TRACES}", 1),
    Command(
        "intervene",
        "fitted",
        _INTERVENE,
        1,
    ),
    Command("label refusals", "traced", "label refusals", 20),
    Command("label inherit", "traced", "label inherit", 20),
    Command("fit", "ingested", "fit small --prompts marked"),
    Command("score", "fitted", "score native/small/2/marked --prompts benign"),
    Command("evaluate", "ingested", "evaluate small --prompts marked --min-overlap 1"),
    Command("study", "traced", _STUDY, 1),
    Command("calibrate", "studied", f"calibrate {_UNIVERSAL} --prompts marked"),
    Command("transfer", "studied", f"transfer {_UNIVERSAL} --prompts marked --min-overlap 1", 1),
    Command("drift", "studied", f"drift --axis {_UNIVERSAL}", 1),
    Command("route", "studied", "route --prompts marked --labeler dataset"),
    Command("compare", "studied", "compare --prompts marked --labeler dataset"),
    Command("import", "ingested", "import given/axis.json", 20),
    Command("export", "studied", f"export {_UNIVERSAL} --to json -o out/axis.json", 12),
    Command("report", "studied", "report -o out/report.html", 1),
    Command("warehouse open", "studied", "warehouse open out/lake.duckdb"),
    Command("warehouse compact", "studied", "warehouse compact", 20),
    Command("warehouse vacuum", "compacted", "warehouse vacuum --min-age 0", 20),
    Command("warehouse repair", "damaged", "warehouse repair --set-aside", 20),
    Command("warehouse migrate", "version 1", "warehouse migrate", 20),
    Command("warehouse merge", "fitted", "warehouse merge given/part", 20),
    Command("warehouse forget", "studied", "warehouse forget --model large"),
    Command("warehouse subset", "studied", "warehouse subset out/part --model small"),
)


class Stages:
    """Makes a stage when it is first asked for, and puts copies of it on the bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._folder = bench.folder / "stages"
        self._given = bench.folder / "given"

    def put(self, stage: str) -> None:
        """Let the bench have this stage, and no files of output."""
        stored = self._stored(stage) if stage != "nothing" else None
        shutil.rmtree(self.bench.place, ignore_errors=True)
        shutil.rmtree(self.bench.journal.parent, ignore_errors=True)
        (self.bench.place / "out").mkdir(parents=True)
        if stored is not None:
            shutil.copytree(stored, self.bench.root)

    def give(self, words: str) -> None:
        """Make the files that a command reads, if they are not there yet."""
        names = [word.partition("/")[2] for word in words.split() if word.startswith("given/")]
        if not self._given.exists():
            self._given.mkdir(parents=True)
            _write_given(self._given)
        if {*names} & {*_MODELS} and not (self._given / _MODELS[0]).exists():
            self.bench.ask(save_models, self._given)
        if {*names} & {*_MADE}:
            self._stored("given")

    def _stored(self, stage: str) -> Path:
        stored = self._folder / stage
        if stored.exists():
            return stored
        if stage == "version 1":
            return Path(shutil.copytree(VERSION_1, stored))
        if stage == "damaged":
            self.put("studied")
            _damage(self.bench.root)
            return Path(shutil.copytree(self.bench.root, stored))
        before, commands = STAGES[stage]
        self.give(" ".join(commands) if stage != "given" else "given/small")
        self.put(before or "nothing")
        self._run(commands)
        return Path(shutil.copytree(self.bench.root, stored))

    def _run(self, commands: Sequence[str]) -> None:
        typed = [_typed(self.bench, words) for words in commands]
        self.bench.ask(build, self.bench.folder / "cache", typed)


def _typed(bench: Bench, words: str) -> list[str]:
    places = {"given": bench.folder / "given", "out": bench.place / "out"}
    typed = []
    for word in words.split():
        start, slash, rest = word.partition("/")
        typed.append(str(places[start] / rest) if slash and start in places else word)
    return [*typed, "--root", str(bench.root)]


def _write_given(folder: Path) -> None:
    """Prompt sets as CSV; pairs of one length, so that a batch's numbers are those of any other."""
    for name, verb in (("marked", "paint"), ("other", "clean"), ("more", "visit")):
        rows = [
            {"text": f"{word} house {n:02d}", "label": label, "pair_id": f"{name}-{n}"}
            for n in range(_PROMPTS // 2)
            for word, label in ((verb, "safe"), ("break", "unsafe"))
        ]
        _write_csv(folder / f"{name}.csv", rows)
    _write_csv(folder / "benign.csv", [{"text": f"count to {n:02d}"} for n in range(_BENIGN)])


def _write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def _damage(root: Path) -> None:
    """Cut a file of activations, and delete one of an axis."""
    path = sorted((root / "activations").glob("model=small/*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-20])
    sorted((root / "axes").glob("*.parquet"))[0].unlink()
