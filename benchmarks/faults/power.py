"""What a power cut may leave of the changes of a process: only what was flushed is certain.

Of each folder, the changes after its last flush are kept up to a random one and undone from there;
a file loses a random part of what was not flushed, or has zeros there. So each folder keeps its
order and no two folders theirs, which is more than common file systems lose.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import defaultdict
from pathlib import Path

from axes.warehouse.storage.folder import exchange
from benchmarks.faults.disk import Event, Journal


def cut_power(folder: Path, journal: Path, chance: random.Random) -> int:
    """Undo in `folder` what may be lost; returns how many changes and files were hurt."""
    content: Journal = json.loads(journal.read_text())
    events = content["events"]
    undone = _lost_events(events, chance)
    # Inodes of folders that an undone removal has made again.
    renewed: dict[int, int] = {}
    for number in sorted(undone, reverse=True):
        _undo(folder, events[number], renewed)
    return len(undone) + _tear(folder, content["durable"], chance)


def _lost_events(events: list[Event], chance: random.Random) -> set[int]:
    """The numbers of the changes that are lost."""
    pending: dict[int, list[int]] = defaultdict(list)
    for number, event in enumerate(events):
        if event["call"] == "flush":
            pending[event["folder"]] = []
            continue
        places = {event.get("to_folder", event["folder"])}
        if event["call"] == "exchange":
            places.add(event["folder"])
        for place in places:
            pending[place].append(number)
    lost: set[int] = set()
    for numbers in pending.values():
        lost.update(numbers[chance.randint(0, len(numbers)) :])
    return lost


def _undo(folder: Path, event: Event, renewed: dict[int, int]) -> None:
    places = {path.lstat().st_ino: path for path in (folder, *folder.rglob("*")) if path.is_dir()}

    def place(inode: int) -> Path | None:
        return places.get(renewed.get(inode, inode))

    home = place(event["folder"])
    if event["call"] == "rename":
        target = place(event["to_folder"])
        if target is None or not os.path.lexists(target / event["to_name"]):
            return
        moved = target / event["to_name"]
        if home is None or os.path.lexists(home / event["name"]):
            _remove(moved)
        else:
            moved.rename(home / event["name"])
        if "spare" in event:
            os.link(event["spare"], moved)
        return
    if home is None:
        return
    path = home / event["name"]
    if event["call"] == "create":
        _remove(path)
    elif event["call"] == "unlink" and "spare" in event and not os.path.lexists(path):
        os.link(event["spare"], path)
    elif event["call"] == "rmdir" and not os.path.lexists(path):
        path.mkdir()
        renewed[event["inode"]] = path.stat().st_ino
    elif event["call"] == "exchange":
        other = place(event["to_folder"])
        if other is not None and path.exists() and (other / event["to_name"]).exists():
            exchange(path, other / event["to_name"])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _tear(folder: Path, durable: dict[str, int], chance: random.Random) -> int:
    """Cut files that were not flushed, or put zeros at their end; returns how many."""
    torn = 0
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        state = path.stat()
        flushed = durable.get(str(state.st_ino), 0)
        if state.st_size <= flushed or chance.random() < 0.2:
            continue
        remaining = chance.randint(flushed, state.st_size - 1)
        with path.open("rb+") as file:
            file.truncate(remaining)
            if chance.random() < 0.3:
                file.truncate(state.st_size)
        torn += 1
    return torn
