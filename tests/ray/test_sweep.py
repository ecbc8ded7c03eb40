"""A sweep survives what its trials and its driver do, and finds the best of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from squadron.core.cli import main
from squadron.core.config import load_config
from squadron.core.folder import Folder
from tests.drivers import run_and_kill

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]
HERE = Path(__file__).parent
JOB = str(HERE / "descent.py")


def sweep(folder: Path, *words: str, job: str = JOB) -> int:
    return main(["sweep", job, *words, "--run", str(folder), "--track", "none"])


def records(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("records/*/trial.json"))}


def outcome(folder: Path) -> dict[str, Any]:
    (marker,) = folder.glob("stages/try_settings-*/done.json")
    output: dict[str, Any] = json.loads(marker.read_text())["output"]
    return output


def curve(folder: Path, name: str) -> list[float]:
    lines = (folder / "records" / name / "curve.jsonl").read_text().splitlines()
    return [json.loads(line)["value"] for line in lines]


def test_twelve_trials_survive_a_crash_and_the_loss_of_the_driver(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sweep"
    rates = ",".join(f"{0.02 * (1 + number):.2f}" for number in range(12))  # the largest of which fails
    words = ["fails_above=0.23", "--over", f"rate=grid:{rates}", "--max-parallel", "2"]

    def half_way() -> bool:
        return sum(one["status"] != "running" for one in records(folder).values()) >= 6

    run_and_kill(folder, [JOB, *words], half_way, command="sweep")
    before = records(folder)
    ended = {name for name, one in before.items() if one["status"] == "finished"}
    written = {name: (folder / "trials" / name / "report.html").stat().st_mtime_ns for name in ended}
    assert sweep(folder, *words) == 0
    after = records(folder)
    assert len(after) == 12 and sum(one["status"] == "finished" for one in after.values()) == 11
    (crashed,) = (name for name, one in after.items() if one["status"] == "failed")
    assert after[crashed]["error"] == "ValueError: a rate of 0.24 is too much"
    assert f"{crashed}  failed: ValueError: a rate of 0.24 is too much" in capsys.readouterr().out
    report = (folder / "report.html").read_text()
    assert f"trial {crashed}" in report and "a rate of 0.24 is too much" in report
    for name in ended:  # what had ended was left alone
        assert after[name] == before[name]
        assert (folder / "trials" / name / "report.html").stat().st_mtime_ns == written[name]
    begun = list(folder.glob("trials/*/stages/begin-*/begun.txt"))
    # The first two begin at the same time; all later ones take over what those did.
    assert len(begun) == 12 and len({path.stat().st_ino for path in begun}) <= 2

    assert not list(folder.rglob("task.json")), "what a process is told may hold keys, and is on no disk"
    best = outcome(folder)
    rate = best["settings"]["rate"]
    assert rate == 0.22 and best["value"] == pytest.approx(16 * (1 - 2 * rate) ** 8)
    trial = folder / "trials" / best["trial"]
    assert (trial / "report.html").exists() and json.loads((trial / "run.json").read_text())["job"] == "descent"
    assert main(["run", JOB, str(folder / "best.yaml"), "--run", str(tmp_path / "again"), "--track", "none"]) == 0
    again = next((tmp_path / "again").glob("stages/descend-*/measures.json"))
    assert json.loads(again.read_text())["loss"] == best["value"]


def test_trials_that_use_ray_train_take_turns(tmp_path: Path) -> None:
    job = str(HERE / "paired.py")
    assert sweep(tmp_path / "sweep", "--over", "rate=grid:1,2", "--workers", "2", job=job) == 0
    markers = (tmp_path / "sweep").glob("trials/*/stages/train-*/done.json")
    spans = sorted(
        (row["output"]["started"], row["output"]["ended"]) for row in (json.loads(m.read_text()) for m in markers)
    )
    assert len(spans) == 2 and spans[0][1] <= spans[1][0]


def test_optuna_and_successive_halving(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    words = ["steps=9", "on_workers=true", "--over", "rate=loguniform:1e-3,0.4"]
    words += ["--search", "optuna", "--scheduler", "asha"]
    assert sweep(folder, *words, "--trials", "5", "--max-parallel", "2") == 0
    first = records(folder)
    assert {one["status"] for one in first.values()} <= {"finished", "stopped"}
    best = outcome(folder)
    finished = [one["value"] for one in first.values() if one["status"] == "finished"]
    assert best["value"] == min(finished)
    for name, one in first.items():
        values = curve(folder, name)
        assert len(values) <= 9 and one["value"] in values
        assert one["status"] == "stopped" or (len(values) == 9 and one["value"] == values[-1])
    # More trials: those that were are found again, and Optuna knows them.
    assert sweep(folder, *words, "--trials", "7", "--max-parallel", "2") == 0
    second = records(folder)
    assert len(second) == 7 and {name: second[name] for name in first} == first


def test_populations_go_on_from_each_others_work(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    words = ["steps=6", "seconds=0", "--over", "rate=uniform:0.01,0.45", "--scheduler", "pbt", "--perturb-every", "2"]
    assert sweep(folder, *words, "--trials", "4", "--max-parallel", "2") == 0
    after = records(folder)
    assert all(one["status"] == "finished" for one in after.values()) and len(after) == 4
    changed = [
        name for name, one in after.items() if len(list((folder / "trials" / name / "stages").glob("descend-*"))) > 1
    ]
    assert changed, "no trial took over another's work"
    for name in changed:
        proposal = json.loads((folder / "records" / name / "proposal.json").read_text())["settings"]
        assert after[name]["settings"] != proposal and 0.01 <= after[name]["settings"]["rate"] <= 0.45
        config = load_config(_config_type(), folder / "trials" / name / "config.yaml")
        assert config.model_dump()["rate"] == after[name]["settings"]["rate"]
    assert not (folder / ".tune").exists()


def _config_type() -> Any:
    from squadron.core import registry

    return registry.load_job(JOB).config_type


def test_what_one_run_has_finished_is_lent_to_another(tmp_path: Path) -> None:
    from squadron.core.stage_cache import copy_stage

    source = Folder(tmp_path / "one" / "stages" / "s-1").make()
    source.write_json("done.json", {"output": 1})
    source.append_line("metrics.jsonl", '{"step": 1}')
    (source / "model").write_bytes("weights", b"w" * 10)
    for target in (Folder(tmp_path / "two" / "s-1"), Folder("memory://lent/s-1")):
        copy_stage(source, target)
        assert target.read_json("done.json") == {"output": 1} and target.walk() == source.walk()
        target.append_line("metrics.jsonl", '{"step": 2}')
        assert source.read_lines("metrics.jsonl") == [{"step": 1}]
