"""A benchmark is run as rows: what failed is missing, not zero, and only that is tried again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from squadron.core.config import Config
from squadron.core.errors import WorkerError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.evaluate.benchmark import Cell, run_benchmark
from squadron.evaluate.scores import Metrics, Problem, Scores

METHODS = ("double", "broken on 2")
PROBLEMS = [Problem(number, data={"n": number}) for number in range(4)]


def score(cell: Cell, log: Folder) -> list[Metrics]:
    """Each method's value is twice the problem's number and the seed."""
    log.append_line("log", "1")
    if "broken on 2" in cell.methods and any(one.name == 2 for one in cell.problems) and not log.exists("mended"):
        raise ValueError("no score of this")
    return [{"value": 2 * one.data["n"] + cell.seed} for _ in cell.methods for one in cell.problems]


def benchmark(folder: Path, **options: Any) -> tuple[Stage, Scores]:
    run = Run("benchmark", Config(), Folder(folder), Profile(name="auto"), track=())
    stage = Stage(run, "work", "", {}, run.folder / "stages" / "work-0")
    stage.begin()
    return stage, run_benchmark(stage, METHODS, PROBLEMS, score, log=Folder(folder / "log").make(), **options)


def test_what_fails_is_missing_and_only_that_is_tried_again(ray_cluster: object, tmp_path: Path) -> None:
    stage, scores = benchmark(tmp_path)
    assert [row["item"] for row in stage.failures()] == ["broken on 2, 2"]
    found = scores.estimate("broken on 2", "value")
    assert (found.count, found.missing, found.mean) == (3, 1, pytest.approx(8 / 3))
    assert scores.complete("double") and not scores.complete("broken on 2")
    log = Folder(tmp_path / "log")
    log.write_bytes("mended", b"")
    stage, scores = benchmark(tmp_path)
    assert not stage.failures() and scores.complete("broken on 2")
    assert len(log.read_lines("log")) == len(METHODS) * len(PROBLEMS) + 1


@pytest.mark.parametrize("options", [{"problems_per_cell": 3}, {"methods_together": True}], ids=str)
def test_cells_of_several_scores_fail_as_one(ray_cluster: object, tmp_path: Path, options: dict[str, Any]) -> None:
    _, scores = benchmark(tmp_path, seeds=(0, 1), **options)
    there = scores.answered_MPS.all(-1).tolist()
    assert there[1] == ([False, False, False, True] if "problems_per_cell" in options else [True, True, False, True])
    assert there[0] == ([True] * 4 if "problems_per_cell" in options else there[1])
    assert scores.of("double", "value")[3].tolist() == [[6.0], [7.0]]


def test_a_method_without_any_score_ends_the_stage(ray_cluster: object, tmp_path: Path) -> None:
    said = "broken on 2 could not be scored; broken on 2, 0 to 3: ValueError: no score of this"
    with pytest.raises(WorkerError, match=said):
        benchmark(tmp_path, problems_per_cell=4)
    with pytest.raises(WorkerError, match="broken on 2 could not be scored; broken on 2, 2: ValueError"):
        benchmark(tmp_path, required=["double"], whole=["broken on 2"])
