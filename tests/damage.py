"""Damage of every kind to every file of a run, and what becomes of it."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from squadron.core.cli import main
from squadron.core.errors import SquadronError
from squadron.core.folder import Folder
from squadron.core.marker import read_marker
from squadron.core.runner import read_view
from squadron.core.seals import unseal
from squadron.serve.runs import find_services

KINDS = ("cut", "empty", "shape", "bit")
SHAPES = (b"{}", b"[]", b"null", b'{"a": [1, "x"]}', b"[[1, 2], 3]", b"\x00\xff" * 20, b"plain text\n")
NOT_READ = ("tensorboard", "wandb", ".lock", "report.html")
"""Of other programs, and what is written and never read: provably unused."""


@dataclass(frozen=True)
class Damage:
    """What is done to one file."""

    file: str
    kind: str
    content: bytes


def files_of(run: Path) -> list[str]:
    """Every file of a run that somebody reads again."""
    found = [path.relative_to(run).as_posix() for path in sorted(run.rglob("*")) if path.is_file()]
    return [name for name in found if not any(part in NOT_READ for part in name.split("/"))]


def damages(run: Path, draw: random.Random, each: int = 1) -> Iterator[Damage]:
    """Damage of each kind, at `each` drawn places, to every file."""
    for file in files_of(run):
        data = (run / file).read_bytes()
        for _ in range(each):
            for kind in KINDS:
                content = _damaged(data, kind, draw)
                if content != data:
                    yield Damage(file, kind, content)


def _damaged(data: bytes, kind: str, draw: random.Random) -> bytes:
    match kind:
        case "cut":
            return data[: draw.randrange(len(data))] if data else data
        case "empty":
            return b""
        case "shape":
            return draw.choice(SHAPES)
        case _:
            changed = bytearray(data)
            if changed:
                place = draw.randrange(8 * len(changed))
                changed[place // 8] ^= 1 << place % 8
            return bytes(changed)


def numbers(run: Path) -> dict[str, Any]:
    """All that a run reports, by place: names of stages with their fingerprints, what they returned, headlines,
    measures, metrics, panels."""
    folder = Folder(run)
    view = read_view(folder)
    found: dict[str, Any] = {"figures": view.figures, "failures": view.failures}
    for stage in view.stages:
        place = stage.folder.name
        done = stage.folder.exists("done.json")
        found[f"{place} output"] = read_marker(stage.folder).output if done else None
        found[f"{place} measures"] = stage.folder.find_json("measures.json", {})
        for number, panel in enumerate(stage.panels):
            found[f"{place} panel {number}"] = panel.model_dump(mode="json")
        if stage.folder.exists("metrics.jsonl"):
            lines = (run / "stages" / place / "metrics.jsonl").read_bytes().splitlines()
            found[f"{place} metrics"] = {row["step"]: row for row in map(unseal, lines)}
    return found


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The places at which two runs report something else."""
    return [key for key in sorted(one | other) if not _same(one.get(key), other.get(key))]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return bool(one == other)


@dataclass(frozen=True)
class Bench:
    """A run that is damaged in copies. `words` give its job again; `varies` are the places at which an undisturbed
    second run reports something else, such as times."""

    job: str
    words: Sequence[str]
    run: Path
    expected: dict[str, Any]
    varies: frozenset[str] = frozenset()

    def again(self, run: Path) -> int:
        """Give the command again."""
        return main(["run", self.job, *self.words, "--run", str(run), "--track", "none"])

    def meet(self, damage: Damage, place: Path, captured: pytest.CaptureFixture[str] | None = None) -> str:
        """What becomes of a copy with this damage: `same`, or `refused` with the file and what to do. Raises
        AssertionError for other numbers, and whatever a traceback would show."""
        shutil.copytree(self.run, place)
        path = place / damage.file
        path.unlink()
        path.write_bytes(damage.content)
        jobs = [self.job] if self.job.endswith(".py") else []
        outcomes = [self._read(damage, place, read) for read in (read_view, partial(find_services, jobs=jobs))]
        status = self.again(place)
        if status == 2:
            if captured is not None:
                self._named(damage, " ".join("".join(captured.readouterr()).split()))
            return "refused"
        assert status == 0, status
        wrong = [key for key in differing(numbers(place), self.expected) if key not in self.varies]
        assert not wrong, (damage.file, damage.kind, wrong)
        return "refused by a reader, then same" if "refused" in outcomes else "same"

    def _read(self, damage: Damage, place: Path, read: Callable[[Folder], Any]) -> str:
        try:
            read(Folder(place))
        except SquadronError as error:
            if "has not finished" not in error.what:
                self._named(damage, str(error))
                return "refused"
        return "same"

    def _named(self, damage: Damage, said: str) -> None:
        """The message names the file, or the folder of its stage or artifact, and says what to do."""
        parts = damage.file.split("/")
        folders = ["/".join(parts[:count]) for count in range(len(parts), min(2, len(parts)) - 1, -1)]
        named = any(folder in said.replace(" ", "") for folder in folders)
        assert named and "fix:" in said, (damage.file, damage.kind, said)


def finished(job: str, words: Sequence[str], run: Path) -> Bench:
    """The run as it ended: whatever happens to it, it reports what it did."""
    return Bench(job, words, run, numbers(run))


def unfinished(job: str, words: Sequence[str], run: Path, place: Path) -> Bench:
    """The run as a kill may leave it: all work is there, and no stage is marked as finished."""
    shutil.copytree(run, place / "unfinished")
    for marker in (place / "unfinished").glob("stages/*/done.json"):
        marker.unlink()
    expected = numbers(run)
    bench = Bench(job, words, place / "unfinished", expected)
    shutil.copytree(bench.run, place / "undisturbed")
    assert bench.again(place / "undisturbed") == 0
    varies = differing(numbers(place / "undisturbed"), expected)
    return Bench(job, words, bench.run, expected, frozenset(varies))
