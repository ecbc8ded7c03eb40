"""What the FLAME job does besides what all jobs do (`tests/contract`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.flame import CONTRACT
from tests.contract.record import copy_run
from tests.finished import one_line, run_smoke

WORDS = CONTRACT.words


@pytest.fixture(scope="module")
def finished(smoke_run: Callable[[str], Path]) -> Path:
    return smoke_run("flame")


def test_an_environment_is_rebuilt_from_what_the_run_wrote(finished: Path) -> None:
    from squadron.sim.manipulation.spec import EnvironmentSpec, Factors, sample_environment

    (path,) = finished.glob("stages/build_homes-*/homes.json")
    specs = {int(n): EnvironmentSpec.model_validate(spec) for n, spec in json.loads(path.read_text())["specs"].items()}
    assert specs == {n: sample_environment("close_box", n, 0, Factors()) for n in (0, 1, 2, 400, 410)}


def test_a_changed_setting_reruns_only_what_depends_on_it(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_smoke("flame", copy_run(finished, tmp_path / "run"), *WORDS, "evaluation.film_homes=0") == 0
    said = one_line(capsys)
    assert "config.film_homes 1 → 0" in said and "federate: finished before" in said


def test_a_corrupt_shard_stops_before_training_and_loses_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_run(finished, tmp_path / "run")
    (stage,) = folder.glob("stages/collect_demos-*")
    shard = stage / "shards" / "home-001.parquet"
    shard.write_bytes(shard.read_bytes()[:-200])
    assert run_smoke("flame", folder, *WORDS, "training.learning_rate=0.01") == 2
    assert "has changed since it was written" in (error := one_line(capsys)) and "home-001.parquet" in error
    shutil.rmtree(stage)  # what the message says to do
    assert run_smoke("flame", folder, *WORDS) == 0
    assert shard.read_bytes() == next(finished.glob("stages/collect_demos-*/shards/home-001.parquet")).read_bytes()


def test_an_empty_recording_is_named_and_ours_is_not_blamed(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kitchen.parquet").write_bytes(b"")
    assert run_smoke("flame", tmp_path / "run", f"demos.recordings={tmp_path / 'mine'}") == 2
    error = one_line(capsys)
    assert "1 of 1 recordings cannot be used" in error and "mine/kitchen.parquet" in error.replace(" ", "")
    assert "fix these files" in error and "delete this stage" not in error


def test_updates_that_are_not_finite_stop_the_job_with_their_cause(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_run(finished, tmp_path / "run")
    assert run_smoke("flame", folder, *WORDS, "training.learning_rate=1.0e+38") == 2
    error = one_line(capsys)
    assert "clients of round" in error and "failed" in error and "non-finite" in error


def test_a_benchmark_puts_every_task_and_strategy_into_one_table(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here rounds are chosen by the error on demonstrations, and no policy acts before the end."""
    words = [
        "benchmark={tasks: [close_box, scoop_with_spatula], strategies: [{name: fedavg}, {name: fedavgm}]}",
        "choose_by=error", "baselines.centralised=false", "evaluation.film_homes=0", "federation.rounds=1",
    ]  # fmt: skip
    assert run_smoke("flame", tmp_path / "run", *words) == 0
    (done,) = (tmp_path / "run").glob("stages/tabulate-*/done.json")
    tasks = json.loads(done.read_text())["output"]["tasks"]
    assert [one["task"] for one in tasks] == ["close_box", "scoop_with_spatula"]
    assert all([score["policy"] for score in one["scores"]] == ["fedavg", "fedavgm"] for one in tasks)
    assert all(0 < score["rmse"] < 2 for one in tasks for score in one["scores"])
    assert "chosen round, by its error" in one_line(capsys)
    assert len([*(tmp_path / "run").glob("stages/collect_demos-*")]) == 2  # strategies share a task's demonstrations
    assert run_smoke("flame", tmp_path / "run", *words) == 0
    assert "tabulate: finished before" in one_line(capsys)
