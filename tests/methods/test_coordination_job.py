"""What the coordination job does besides what all jobs do (`tests/contract`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.coordination import CONTRACT
from tests.contract.record import output, stages, write_files
from tests.finished import one_line, run_smoke


@pytest.fixture(scope="module")
def finished(smoke_run: Callable[[str], Path]) -> Path:
    """A smoke run with a fleet of one's own: three robots that cross a floor of five by five cells."""
    return smoke_run("coordination")


def test_the_report_shows_robots_driving_as_they_please_and_by_plan(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert page.count("data:image/webp") + page.count("data:image/gif") == 2


def test_every_method_is_measured_and_none_is_better_than_the_best_known(finished: Path) -> None:
    ratios = output(stages(finished, "compare")[0])["ratios"]
    assert {row["method"] for row in ratios} == {
        "graph VAE", "no latent vector", "10 random", "10 priorities", "first come", "back-tracking", "CMA-ES",
        "published sampling", "search without network", "exact solver",
    }  # fmt: skip
    assert all(0 < row["mean"] <= 1 + 1e-9 and row["low"] <= row["mean"] <= row["high"] for row in ratios)
    assert all(row["mean"] > 1 - 1e-6 for row in ratios if row["method"] == "exact solver" and row["robots"] == 3)


def test_a_fleet_gets_its_schedule(finished: Path) -> None:
    schedule = json.loads((stages(finished, "plan_fleet")[0] / "schedule.json").read_text())
    assert len(schedule["robots"]) == 3 and schedule["encounters"]
    for robot in schedule["robots"]:
        times = [wait["until_s"] for wait in robot["waits"]]
        assert times == sorted(times) and robot["arrives_s"] >= times[-1]
        assert all(wait["until_s"] >= wait["at_m"] for wait in robot["waits"])


def test_a_fleet_is_planned_with_the_networks_of_an_earlier_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given the run or one network's folder; the plan is the one that the earlier run made, and nothing is trained."""
    (tmp_path / "files").mkdir()
    words = write_files(tmp_path / "files", CONTRACT.files, CONTRACT.words)
    (model,) = finished.glob("stages/train_planners-*/graph-VAE/model")
    (expected,) = stages(finished, "plan_fleet")
    for place, planners in (("run", finished), ("model", model)):
        assert run_smoke("coordination", tmp_path / place, *words, f"planners={planners}") == 0
        assert not [*tmp_path.glob(f"{place}/stages/train_planners-*"), *tmp_path.glob(f"{place}/stages/label*")]
        (found,) = stages(tmp_path / place, "plan_fleet")
        assert (found / "schedule.json").read_bytes() == (expected / "schedule.json").read_bytes()
    words += [f"planners={finished}", "costs=[average_delay]"]
    assert run_smoke("coordination", tmp_path / "other", *words) == 2
    assert "set costs to average_completion" in one_line(capsys)
