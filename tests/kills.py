"""Runs that are killed at a moment drawn by chance and given again: what they report, beside undisturbed ones.

The driver, or one of the worker processes that are at work, is killed with SIGKILL at any time of a stage; or the
driver and all its workers just after one of the files of a stage has appeared, which is between two writes. The code
under test knows nothing of it: its folder is watched.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import psutil

from tests.contract.record import copy_run, find_contract, write_files
from tests.drivers import LIB, Process, start

KINDS = ("driver", "worker", "between")
_TIMEOUT_S, _LOOK_S, _TRIES = 600.0, 0.005, 4
_TIMES = re.compile(r"second|time|/s\b|speed|\bMFU\b", re.IGNORECASE)
"""Labels of what a stage took, which no two runs have alike: columns, headlines, panels, metrics."""


@dataclass
class Moment:
    """A kill, and what came of it. `ended` are the exit codes of the driver, from the killed one to the last."""

    number: int
    kind: str
    stage: str
    at: float
    victim: str = ""
    ended: list[int] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)

    @property
    def harmless(self) -> bool:
        return self.ended[-1:] == [0] and not self.differences


@dataclass(frozen=True)
class Job:
    """A job with the words of its runs, and the folder of the one that is never disturbed."""

    name: str
    words: Sequence[str]
    whole: Path
    kinds: ClassVar[Sequence[str]] = KINDS

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of its drivers."""
        return os.environ

    @property
    def before(self) -> Sequence[str]:
        """What stands before the commands of its drivers."""
        return ()

    @staticmethod
    def of(name: str, place: Path, more: Sequence[str] = ()) -> Job:
        """The smoke run of a job with what its contract sets, and more."""
        contract = find_contract(name)
        (place / "files").mkdir(parents=True, exist_ok=True)
        words = write_files(place / "files", contract.files, contract.words)
        return Job(name, ["smoke", *words, *more], place / "whole")

    def run(
        self, folder: Path, url: str = "", environment: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, str]:
        """Run it to its end, in the folder or behind a URL: the exit code, and what was printed."""
        with self._driver(folder, url, environment) as (driver, out):
            code = driver.wait(_TIMEOUT_S)
            return code, out.read_text(errors="replace")

    def disturb(self, number: int, folder: Path) -> Moment:
        """Run it from a stage on, kill it in there once, and give it again until it ends well."""
        moment = self._draw(number)
        copy_run(self.whole, folder)
        _go_back(folder, moment.stage)
        with self._driver(folder) as (driver, out):
            self.await_moment(driver, folder, moment)
            if driver.poll() is None:
                self.strike(driver, moment)
            moment.ended.append(driver.wait(_TIMEOUT_S))
            _note_traceback(moment, out.read_text(errors="replace"))
        while moment.ended[-1] != 0 and len(moment.ended) < _TRIES:
            code, said = self.run(folder)
            moment.ended.append(code)
            _note_traceback(moment, said)
        moment.differences = differences(self.whole, folder) if moment.ended[-1] == 0 else ["it did not end well"]
        return moment

    def _draw(self, number: int) -> Moment:
        """A moment in one of the stages of the undisturbed run, each as likely as it is long."""
        draw = random.Random(f"{self.name} {number}")
        took = {
            path.name: json.loads((path / "done.json").read_text())["seconds"] for path in _stage_folders(self.whole)
        }
        (stage,) = draw.choices(list(took), [0.5 + seconds for seconds in took.values()])
        kind = draw.choice(self.kinds)
        at = draw.uniform(0, took[stage])
        if kind == "between":
            at = draw.randint(1, len(_files(self.whole / "stages" / stage)))
        return Moment(number, kind, stage, at)

    @contextlib.contextmanager
    def _driver(
        self, folder: Path, url: str = "", more: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[tuple[Process, Path]]:
        cache = folder.with_name(f"{folder.name}-cache")
        environment = {**self.environment, "PYTHONPATH": str(LIB), "SQUADRON_CACHE": str(cache), **more}
        line = ["-m", "squadron.core.cli", "run", self.name, *self.words, "--run", url or str(folder)]
        with tempfile.NamedTemporaryFile() as out:
            driver = start(line, environment, out.fileno(), self.before)
            try:
                yield driver, Path(out.name)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(driver.pid, signal.SIGKILL)
                driver.wait()

    def await_moment(self, driver: Process, folder: Path, moment: Moment) -> None:
        """Wait until the moment has come, or the driver has ended."""
        stage = folder / "stages" / moment.stage
        _wait(driver, lambda: (stage / "started.json").exists())
        if moment.kind == "between":
            _wait(driver, lambda: len(_files(stage)) >= moment.at or (stage / "done.json").exists())
        else:
            _wait(driver, lambda: False, moment.at)

    def strike(self, driver: Process, moment: Moment) -> None:
        """Kill what the moment says."""
        if moment.kind == "worker" and (workers := _at_work(driver)):
            victim = random.Random(moment.number).choice(workers)
            moment.victim = kill_process(victim)
            return
        moment.victim = "driver"
        os.killpg(driver.pid, signal.SIGKILL)


MomentT = TypeVar("MomentT", bound=Moment)


def try_moments(
    job: Job, kind: type[MomentT], count: int, disturb: Callable[[int, Path], MomentT], more: Callable[[MomentT], str]
) -> list[MomentT]:
    """All moments of a job up to so many, those of earlier calls among them, each told in a line as it is tried; `more`
    is said at the end of the line."""
    place = job.whole.parent
    file = place / "moments.jsonl"
    moments = [kind(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    if not (job.whole / "report.html").exists() or not moments:
        shutil.rmtree(job.whole, ignore_errors=True)
        code, said = job.run(job.whole)
        assert code == 0, said
    for number in range(len(moments), count):
        folder = place / f"{number:03d}"
        shutil.rmtree(folder, ignore_errors=True)
        moment = disturb(number, folder)
        with file.open("a") as stream:
            stream.write(json.dumps(asdict(moment)) + "\n")
        moments.append(moment)
        came = "equal" if moment.harmless else moment.differences[:5]
        where = f"{moment.kind} in {moment.stage} at {moment.at:.3g}, {moment.victim}"
        print(f"{place.name} {number}: {where}: ended {moment.ended}, {came}{more(moment)}", flush=True)
        if moment.harmless:
            shutil.rmtree(folder)
        shutil.rmtree(folder.with_name(f"{folder.name}-cache"), ignore_errors=True)
    kinds = Counter((one.kind, one.harmless) for one in moments)
    print(f"{place.name}: {sum(one.harmless for one in moments)} of {len(moments)} equal; {dict(kinds)}")
    return moments


def reported(folder: Path) -> dict[str, Any]:
    """All that a run reports, by its place: outputs with their fingerprints, measures, headlines, tables and panels,
    metrics, failures. What a stage took is left out."""
    found: dict[str, Any] = {}
    for stage in _stage_folders(folder):
        found[f"{stage.name}/output"] = json.loads((stage / "done.json").read_text())["output"]
        for name in ("measures.json", "headlines.json"):
            if (stage / name).exists():
                found[f"{stage.name}/{name}"] = json.loads((stage / name).read_text())
        for panel in sorted(stage.glob("panels/*.json")):
            found[f"{stage.name}/{panel.name}"] = json.loads(panel.read_text())
        for log in sorted(stage.rglob("metrics.jsonl")):
            found[f"{stage.name}/{log.relative_to(stage)}"] = [
                json.loads(line) for line in log.read_text().splitlines()
            ]
        if (stage / "failures.jsonl").exists():
            found[f"{stage.name}/failures"] = (stage / "failures.jsonl").read_text()
    return {place: value for place, value in _flat(_timeless(found)) if not _TIMES.search(place)}


def differences(whole: Path, other: Path) -> list[str]:
    """What of two runs' reports is not equal."""
    before, after = reported(whole), reported(other)
    places = [place for place in {**before, **after} if before.get(place) != after.get(place)]
    return [f"{place}: {before.get(place)!r}, not {after.get(place)!r}"[:300] for place in places]


def _timeless(value: Any) -> Any:
    """The value without panels, headlines and columns whose labels say that they are of time."""
    match value:
        case {"columns": [*columns], "rows": [*rows], **rest}:
            kept = [n for n, column in enumerate(columns) if not _TIMES.search(str(column))]
            rows = [[row[n] for n in kept if n < len(row)] for row in rows if not _TIMES.search(str(row[0]))]
            rest.pop("seal", None)
            return {} if _TIMES.search(str(rest.get("title"))) else {"columns": columns, "rows": rows, **rest}
        case {"title": str(title)} if _TIMES.search(title):
            return {}
        case Mapping():
            return {key: _timeless(item) for key, item in value.items() if key != "seal" and not _TIMES.search(key)}
        case list():
            return [_timeless(item) for item in value if not (isinstance(item, list) and item and _is_time(item[0]))]
    return value


def _is_time(label: object) -> bool:
    return isinstance(label, str) and bool(_TIMES.search(label))


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield place, value
        return
    for key, item in items:
        yield from _flat(item, f"{place}/{key}")


def _stage_folders(folder: Path) -> list[Path]:
    names = json.loads((folder / "run.json").read_text())["stages"]
    return [folder / "stages" / name for name in names]


def _go_back(folder: Path, stage: str) -> None:
    """Make of a finished run one that has not come to this stage."""
    names = [path.name for path in _stage_folders(folder)]
    for name in dict.fromkeys(names[names.index(stage) :]):
        shutil.rmtree(folder / "stages" / name)
    for store in ("answers", "scores"):  # what stages before have asked is asked again
        shutil.rmtree(folder / store, ignore_errors=True)


def _files(folder: Path) -> list[str]:
    return [name for _, _, names in os.walk(folder) for name in names if not name.endswith(".tmp")]


def kill_process(process: psutil.Process) -> str:
    """Kill a process, and return what it was called."""
    name = "gone"
    with contextlib.suppress(psutil.Error):
        name = " ".join(process.cmdline())[:60]
        process.kill()
    return name


def _at_work(driver: Process) -> list[psutil.Process]:
    """Worker processes of a driver's cluster that have something to do."""
    found = []
    for one in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            name = " ".join(one.cmdline())
            if name.startswith("ray::") and not name.startswith("ray::IDLE"):
                found.append(one)
    return found


def _wait(driver: Process, reached: Any, at_most_s: float = _TIMEOUT_S) -> None:
    deadline = time.monotonic() + at_most_s
    while driver.poll() is None and not reached() and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def _note_traceback(moment: Moment, said: str) -> None:
    if "Traceback" in said and moment.kind != "driver":
        moment.tracebacks.append(said[said.index("Traceback") :][-1500:])
