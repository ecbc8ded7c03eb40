"""Damage to the files of a run, by a job that leaves every kind of file that core writes.

`tests/contract/test_damage.py` does the same to a job of the house. `SQUADRON_DAMAGE` is how many damages of a kind are
drawn, of about thirty.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from squadron.core.cli import main
from tests.damage import KINDS, Bench, damages, files_of, finished, unfinished

DRAWN = int(os.environ.get("SQUADRON_DAMAGE", "12"))
JOB = '''
from squadron.core.artifacts import Artifact
from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.job import job
from squadron.core.json_text import to_json
from squadron.core.line_log import line_files
from squadron.core.panels import Film, Table
from squadron.core.row_worker import RowJob, RowWorker, read_answers
from squadron.core.run import Run, Stage
from squadron.llm.batch.answer_cache import KeyedLog


class Settings(Config):
    rows: int = 20


class Numbers(Config):
    file: Artifact
    weights: Artifact
    total: float


class Result(Config):
    mean: float


def square(row):
    return {"square": row["n"] ** 2}


def answer(stage: Stage, settings: Settings) -> Numbers:
    """Answer rows, those that no earlier attempt has, and ask a model that keeps its answers."""
    rows = [{"id": str(n), "n": n} for n in range(settings.rows)]
    folder = stage.folder / "rows"
    found, _ = read_answers(folder, line_files(folder))
    left = [row for row in rows if row["id"] not in found]
    if left:
        RowWorker(RowJob(square, {}, folder, "id", 60.0))({"name": f"session-{len(left)}", "rows": to_json(left)})
        found, _ = read_answers(folder, line_files(folder))
    log = KeyedLog(stage.run.folder / "answers" / "model")
    known = log.index()
    with log.writer("a.jsonl") as writer:
        for row in rows[:5]:
            if not known.answers(row["id"]):
                writer.write({"key": row["id"], "text": row["id"], "cost_usd": 0.1})
    told = sum(int(one["text"]) for one in log.read("a.jsonl").values())
    total = told + sum(found[row["id"]]["square"] for row in rows)
    stage.folder.write_json("numbers.json", {"numbers": [found[row["id"]]["square"] for row in rows]})
    stage.folder.write_bytes("weights/w.bin", bytes(range(100)))
    stage.folder.write_bytes("film.gif", b"GIF89a" + bytes(50))
    stage.show(Film(title="Film", file="film.gif"))
    stage.fail("x", "it is odd", retry=False)
    return Numbers(file=Artifact.made(stage, "numbers.json"), weights=Artifact.made(stage, "weights"), total=total)


def learn(stage: Stage, numbers: Numbers, settings: Settings) -> Result:
    """Take the mean, step by step, from where the log stands."""
    values = numbers.file.read_json(stage.run.folder)["numbers"]
    numbers.weights.locate(stage.run.folder)
    for step in range(len(stage.metrics()), settings.rows):
        stage.log(step, loss=float(values[step]))
    losses = [row["loss"] for row in stage.metrics()]
    mean = sum(losses) / len(losses)
    stage.measure(mean=mean)
    stage.headline("mean", f"{mean:.2f}")
    stage.headline("total", f"{numbers.total:.2f}")
    stage.show(Table(title="Losses", columns=["loss"], rows=[[loss] for loss in losses]))
    return Result(mean=mean)


def services(folder: Folder):
    from squadron.core.run_reader import outputs, settings

    settings(folder, Settings)
    numbers = outputs(folder, "answer", Numbers)[-1]
    return numbers.weights.locate(folder), outputs(folder, "learn", Result)


@job(Settings, services=services)
def everything(run: Run, config: Settings) -> None:
    """A job that leaves every kind of file."""
    numbers = run.stage(answer, config)
    run.stage(learn, numbers, config)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("damage")
    (place / "everything.py").write_text(JOB)
    assert main(["run", str(place / "everything.py"), "--run", str(place / "run"), "--track", "none"]) == 0
    return place


@pytest.fixture(scope="module", params=["finished", "unfinished"])
def bench(request: pytest.FixtureRequest, place: Path) -> Bench:
    job, run = str(place / "everything.py"), place / "run"
    bench = finished(job, [], run) if request.param == "finished" else unfinished(job, [], run, place)
    assert not bench.varies
    return bench


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_damaged_the_numbers_are_the_same_or_the_file_is_named(
    bench: Bench, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(2**32)
    outcomes = set()
    draw = random.Random(seed)
    every = [damage for damage in damages(bench.run, draw) if damage.kind == kind]
    for number, damage in enumerate(draw.sample(every, min(DRAWN, len(every)))):
        print(f"seed {seed}: {damage.kind} {damage.file}")
        outcomes.add(bench.meet(damage, tmp_path / str(number), capsys))
    assert {"same", "refused"} <= outcomes or len(every) > DRAWN


def test_every_kind_of_file_is_there(place: Path) -> None:
    names = {Path(name).name for name in files_of(place / "run")}
    assert names >= {"run.json", "config.yaml", "started.json", "done.json", "metrics.jsonl", "failures.jsonl"}
    assert names >= {"headlines.json", "measures.json", "01.json", "film.gif", "w.bin", "numbers.json"}
    assert names >= {"a.jsonl", "session-20.jsonl"}  # answers of a model, and of rows
