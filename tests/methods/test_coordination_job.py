"""The coordination job as its user meets it: one command, a report, nothing solved twice, words for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from squadron.core.cli import main
from tests.conftest import REAL_DATA
from tests.drivers import run_and_kill
from tests.finished import missing_metrics

FLOOR = "type octile\nheight 5\nwidth 5\nmap\n" + ".....\n" * 5


def run(folder: Path, *words: str) -> int:
    return main(["run", "coordination", "smoke", *words, "--workers", "1", "--run", str(folder)])


def stage(folder: Path, name: str, number: int = -1) -> Path:
    return sorted(folder.glob(f"stages/{name}-*"), key=lambda path: (path / "started.json").stat().st_mtime)[number]


def output(stage: Path) -> Any:
    return json.loads((stage / "done.json").read_text())["output"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A floor of five by five cells, and robots that cross it."""
    folder = tmp_path_factory.mktemp("floor")
    contents = {"map": FLOOR, "starts": "3\n0\n4\n10\n", "tasks": "3\n24\n20\n14\n"}
    for name, content in contents.items():
        (folder / name).write_text(content)
    return {name: str(folder / name) for name in contents}


@pytest.fixture(scope="module")
def finished(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]) -> Path:
    """A finished smoke run with a fleet of one's own."""
    folder = tmp_path_factory.mktemp("coordination") / "run"
    assert run(folder, f"fleet={json.dumps(files)}") == 0
    return folder


def test_sweeps_find_what_they_compare(finished: Path) -> None:
    assert not missing_metrics(finished)


def test_the_report_compares_and_shows_robots_driving(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    shown = (
        "Ratio to the best known plan",
        "Methods by size",
        "Ratios of single problems",
        "Labelled problems",
        "Time",
    )
    for panel in (*shown, "all at once and by plan", "Loss of graph VAE", "Your fleet"):
        assert panel in page, panel
    assert page.count("data:image/webp") + page.count("data:image/gif") == 2


def test_every_method_is_measured_and_none_is_better_than_the_best_known(finished: Path) -> None:
    ratios = output(stage(finished, "compare"))["ratios"]
    methods = {row["method"] for row in ratios}
    assert methods == {
        "graph VAE", "no latent vector", "10 random", "10 priorities", "first come", "back-tracking", "CMA-ES",
        "published sampling", "search without network",
        "exact solver",
    }  # fmt: skip
    assert all(0 < row["mean"] <= 1 + 1e-9 and row["low"] <= row["mean"] <= row["high"] for row in ratios)
    assert all(row["mean"] > 1 - 1e-6 for row in ratios if row["method"] == "exact solver" and row["robots"] == 3)


def test_a_fleet_gets_its_schedule(finished: Path) -> None:
    schedule = json.loads((stage(finished, "plan_fleet") / "schedule.json").read_text())
    assert len(schedule["robots"]) == 3 and schedule["encounters"]
    for robot in schedule["robots"]:
        times = [wait["until_s"] for wait in robot["waits"]]
        assert times == sorted(times) and robot["arrives_s"] >= times[-1]
        assert all(wait["until_s"] >= wait["at_m"] for wait in robot["waits"])


def test_a_second_run_does_nothing_again(
    finished: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(finished, f"fleet={json.dumps(files)}") == 0
    assert capsys.readouterr().out.count("finished before, kept") == 5


def test_a_driver_killed_while_it_labels_solves_only_what_is_missing(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_and_kill(
        folder,
        ["coordination", "smoke", "--workers", "1"],
        lambda: len(list(folder.glob("stages/label_problems-*/rows/*.parquet"))) >= 3,
    )
    labels = stage(folder, "label_problems")
    assert not (labels / "done.json").exists()
    solved = {file: file.stat().st_mtime_ns for file in (labels / "rows").glob("*.parquet")}
    assert len(solved) >= 3
    assert run(folder, "evaluation.robots=[2]") == 0
    assert all(file.stat().st_mtime_ns == written for file, written in solved.items())
    whole = stage(finished, "label_problems")
    assert output(labels) | {"train": "", "held_out": ""} == output(whole) | {"train": "", "held_out": ""}
    for name in ("train.arrow", "held_out.arrow"):
        assert (labels / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [(("problems.robot=[2, 3]",), "did you mean robots"), (("problems.robots=[1, 3]",), "from 2 on"),
     (("limits.density=0",), "greater than or equal to 1"), (("evaluation.robots=[1]",), "sizes of 2 or more"),
     (("costs=[shortest]",), "average_completion"), (("fleet={map: x}",), "give routes, or map, starts and tasks"),
     (("fleet={routes: missing.jsonl}",), "missing.jsonl"), (("model.heads=3",), "no multiple of heads")],
)  # fmt: skip
def test_bad_settings_are_refused_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "run", *words) != 0
    text = " ".join("".join(capsys.readouterr()).split())
    assert said in text and "Traceback" not in text
    assert not list((tmp_path / "run").glob("stages/label_problems-*"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [(['{"route": [[0, 0], [5, 0]]}', '{"route": [[0, 0.5], [5, 1]]}'], "overlap at their starts"),
     (['{"route": []}'], "needs a path"), (['{"route": [[0, 0], [5, 0]]}', '{"path": [[1, 1]]}'], "routes.jsonl:2"),
     (['{"route": [[0, 0], [5'], "routes.jsonl:1"), ([], "no robot in it")],
)  # fmt: skip
def test_routes_that_cannot_be_planned_are_refused_before_anything_is_solved(
    tmp_path: Path, rows: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "routes.jsonl").write_text("".join(row + "\n" for row in rows))
    assert run(tmp_path / "run", f"fleet.routes={tmp_path}/routes.jsonl") != 0
    text = " ".join("".join(capsys.readouterr()).split())
    assert said in text and "Traceback" not in text
    assert not list((tmp_path / "run").glob("stages/label_problems-*"))


@pytest.mark.parametrize(("name", "robots"), [("random-64-64-10", 400), ("room-64-64-16", 250)])
def test_the_competitions_fleets_are_planned_validly(name: str, robots: int) -> None:
    folder = REAL_DATA / "coordination"
    if not folder.is_dir():
        pytest.skip("the competition's maps are not here: shared/data/coordination")
    from squadron.methods.coordination import density_limits, exact, planner
    from squadron.methods.coordination.config import FleetConfig, FloorLimits, SamplingConfig
    from squadron.methods.coordination.fleet import read_fleet
    from squadron.methods.coordination.graph import build_graph

    example = str(folder / f"{name.split('-')[0]}-example_{robots}")
    fleet = FleetConfig(map=str(folder / f"{name}.map"), starts=f"{example}.agents", tasks=f"{example}.tasks")
    routes, grid = read_fleet(fleet)
    assert grid is not None and len(routes) == robots
    graph = build_graph(routes, FloorLimits())
    schedule = planner.plan_graph(
        graph, "average_completion", planner.propose_at_random, SamplingConfig(samples=10, rounds=1)
    )
    assert not exact.find_circle(graph, schedule.first_E) and not density_limits.over_limit(graph, schedule.following_E)
