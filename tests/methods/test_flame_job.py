"""The FLAME job as its user meets it: one command, a report, a restart after a kill, and words for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from squadron.core.cli import main
from tests.drivers import run_and_kill
from tests.finished import missing_metrics

SMALL = ["smoke", "federation.rounds=4", "baselines.centralised=false", "strategy.name=fedadam"]


def _final_weights(folder: Path) -> bytes:
    """The last candidate's weights: all rounds have gone into them."""
    (rounds,) = folder.glob("stages/federate-*/rounds")
    return max(rounds.iterdir()).read_bytes()


@pytest.fixture(scope="module")
def finished(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run, which other runs are compared with."""
    folder = tmp_path_factory.mktemp("flame") / "run"
    assert main(["run", "flame", *SMALL, "--run", str(folder)]) == 0
    return folder


def test_sweeps_find_what_they_compare(finished: Path) -> None:
    assert not missing_metrics(finished)


def test_the_job_ends_with_a_report_that_stands_alone(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for shown in (
        "success on unseen homes",
        "Loss by round",
        "The robot at work",
        "fedadam",
        "data:image/webp;base64",
    ):
        assert shown in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "src=" not in page.replace('src="data:', "")


def test_a_second_run_does_nothing_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("stages/*/done.json")}
    assert main(["run", "flame", *SMALL, "--run", str(finished)]) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.glob("stages/*/done.json")} == before
    assert capsys.readouterr().out.count("finished before, kept") == 6


def test_an_environment_is_rebuilt_from_what_the_run_wrote(finished: Path) -> None:
    from squadron.sim.manipulation.spec import EnvironmentSpec, Factors, sample_environment

    (path,) = finished.glob("stages/build_homes-*/homes.json")
    specs = {int(n): EnvironmentSpec.model_validate(spec) for n, spec in json.loads(path.read_text())["specs"].items()}
    assert specs == {n: sample_environment("close_box", n, 0, Factors()) for n in (0, 1, 2, 400, 410)}


def test_a_driver_killed_mid_round_goes_on_to_the_same_weights(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_and_kill(
        folder,
        ["flame", *SMALL, "--workers", "2"],
        lambda: any(folder.glob("stages/federate-*/rounds/round-0002.*")),
    )
    assert not any(folder.glob("stages/federate-*/done.json"))
    assert main(["run", "flame", *SMALL, "--run", str(folder)]) == 0
    assert _final_weights(folder) == _final_weights(finished)


def test_a_changed_setting_reruns_only_what_depends_on_it(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "flame", *SMALL, "evaluation.film_homes=0", "--run", str(finished)]) == 0
    out = capsys.readouterr().out
    assert "config.film_homes 1 → 0" in out and "federate: finished before" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["homes.clinets=3"], "did you mean clients?"),
        (["training.batch_size=many"], "unable to parse string as an integer"),
        (["federation.clients_per_round=9"], "federation.clients_per_round is 9, but homes.clients is 3"),
        (["strategy.name=fedavgg"], "no strategy called 'fedavgg'"),
        (["strategy.settings={etaa: 1}"], "FedAvg has no setting 'etaa'"),
        (["--profile", "laptp"], "did you mean laptop?"),
        (["--workers", "512"], "asks for 512 workers"),
        (["--track", "wandbb"], "wandbb"),
    ],
)
def test_bad_settings_are_refused_with_what_to_do(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert main(["run", "flame", "smoke", *words, "--run", str(tmp_path / "run")]) == 2
    assert expected in _one_line(capsys.readouterr().err)
    assert not any((tmp_path / "run").glob("stages/federate-*/rounds/*"))


@pytest.mark.parametrize("name", ["nowhere.yaml", "papper"])
def test_a_missing_configuration_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "flame", name]) == 2
    assert name in capsys.readouterr().err


def test_an_unknown_job_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "flam"]) == 2
    assert "did you mean flame?" in capsys.readouterr().err


def test_a_corrupt_shard_stops_before_training_and_loses_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (stage,) = folder.glob("stages/collect_demos-*")
    shard = stage / "shards" / "home-001.parquet"
    shard.write_bytes(shard.read_bytes()[:-200])
    assert main(["run", "flame", *SMALL, "training.learning_rate=0.01", "--run", str(folder)]) == 2
    assert "client 1 are corrupt" in (error := _one_line(capsys.readouterr().err)) and "home-001.parquet" in error
    shutil.rmtree(stage)  # what the message says to do
    assert main(["run", "flame", *SMALL, "--run", str(folder)]) == 0
    assert shard.read_bytes() == next(finished.glob("stages/collect_demos-*/shards/home-001.parquet")).read_bytes()


def test_an_empty_recording_is_named_and_ours_is_not_blamed(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kitchen.parquet").write_bytes(b"")
    words = [f"demos.recordings={tmp_path / 'mine'}", "--run", str(tmp_path / "run")]
    assert main(["run", "flame", "smoke", *words]) == 2
    error = _one_line(capsys.readouterr().err)
    assert "1 of 1 recordings cannot be used" in error and "mine/kitchen.parquet" in error.replace(" ", "")
    assert "mend these files" in error and "delete this stage" not in error


def test_updates_that_are_not_finite_stop_the_job_with_their_cause(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "flame", *SMALL, "training.learning_rate=1.0e+38", "--run", str(finished)]) == 2
    error = _one_line(capsys.readouterr().err)
    assert "clients of round" in error and "failed" in error and "non-finite" in error


def _one_line(text: str) -> str:
    return " ".join(text.split())
