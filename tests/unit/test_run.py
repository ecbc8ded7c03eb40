"""Stages are committed by their marker, resumed, rerun on a change, and never mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest

from squadron.core.config import Config
from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.panels import Table
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage


class Settings(Config):
    seed: int = 0
    amount: int = 1
    fail: bool = False


class Number(Config):
    value: int


calls: list[str] = []


def make(stage: Stage, config: Settings) -> Number:
    """Make a number."""
    calls.append("make")
    before = stage.folder.find_json("half.json", {"times": 0})["times"]
    stage.folder.write_json("half.json", {"times": before + 1})
    stage.log(0, loss=1.0)
    stage.log(1, loss=0.5)
    stage.show(Table(title="t", columns=["a"], rows=[["b"]]))
    stage.headline("value", str(config.amount))
    if config.fail and before == 0:
        raise RuntimeError("first attempt fails")
    return Number(value=config.amount)


def double(stage: Stage, number: Number) -> Number:
    """Double it."""
    calls.append("double")
    if number.value < 0:
        stage.fail("row 1", "negative")
    return Number(value=2 * number.value)


def _run(folder: Path, job: str = "numbers", **settings: object) -> Run:
    run = Run(job, Settings.model_validate(settings), Folder(folder), Profile(name="auto"), track=())
    run.open()
    return run


@pytest.fixture(autouse=True)
def _forget_calls() -> None:
    calls.clear()


def test_a_finished_stage_is_not_done_again(tmp_path: Path) -> None:
    for _ in range(2):
        run = _run(tmp_path / "r")
        assert run.stage(double, run.stage(make, run.config)) == Number(value=2)  # type: ignore[arg-type]
        run.close()
    assert calls == ["make", "double"]


def test_an_unfinished_stage_goes_on_in_its_folder(tmp_path: Path) -> None:
    run = _run(tmp_path / "r", fail=True)
    with pytest.raises(RuntimeError):
        run.stage(make, run.config)  # type: ignore[arg-type]
    run.close()
    again = _run(tmp_path / "r", fail=True)
    again.stage(make, again.config)  # type: ignore[arg-type]
    assert again.stages[0].folder.read_json("half.json") == {"times": 2}
    assert [row["loss"] for row in again.stages[0].metrics()] == [1.0, 0.5]
    assert (again.stages[0].folder / "panels").ls() == ["01.json"]


def test_the_log_comes_to_hold_what_was_committed_and_who_watches_is_told_of_what_it_lacked(tmp_path: Path) -> None:
    run = _run(tmp_path / "r")
    stage = Stage(run, "train", "", {}, run.folder / "stages" / "train-0")
    told: list[tuple[int, float]] = []
    run.on_log = lambda _, step, metrics: told.append((step, metrics["loss"]))
    for step, loss in ((1, 3.0), (3, 1.0), (4, 0.5)):  # step 2 was saved and not logged, step 4 logged and not saved
        stage.log(step, loss=loss)
    (stage.folder / "").append_line("metrics.jsonl", '{"step": 5, "lo')
    told.clear()
    committed = [{"step": 1, "loss": 3.0}, {"step": 2.0, "loss": 2.0}, {"step": 3, "loss": 1.0}]
    stage.restore_metrics(committed)
    assert stage.metrics() == committed and told == [(2, 2.0)]
    assert type(told[0][0]) is int  # also where records have kept all numbers as floats: trackers take no others
    run.close()


def test_a_changed_setting_reruns_what_follows_says_so_and_keeps_the_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _run(tmp_path / "r")
    first.stage(double, first.stage(make, first.config))  # type: ignore[arg-type]
    first.close()
    second = _run(tmp_path / "r", amount=5)
    assert second.stage(double, second.stage(make, second.config)).value == 10  # type: ignore[arg-type]
    second.close()
    out = capsys.readouterr().out
    assert "make runs again" in out and "config.amount 1 → 5" in out and "number.value 1 → 5" in out
    third = _run(tmp_path / "r")
    assert third.stage(double, third.stage(make, third.config)).value == 2  # type: ignore[arg-type]
    assert calls == ["make", "double"] * 2


def test_a_stage_that_a_recipe_enters_twice_is_no_rerun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _run(tmp_path / "r")
    once = run.stage(double, Number(value=1))
    assert run.stage(double, once).value == 4
    run.close()
    assert "runs again" not in capsys.readouterr().out


def test_an_equal_output_spares_the_stages_after_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = _run(tmp_path / "r", seed=seed)
        run.stage(double, run.stage(make, run.config))  # type: ignore[arg-type]
        run.close()
    assert calls == ["make", "double", "make"]


def test_failed_rows_are_retried_by_the_next_run(tmp_path: Path) -> None:
    for _ in range(2):
        run = _run(tmp_path / "r", amount=-1)
        run.stage(double, run.stage(make, run.config))  # type: ignore[arg-type]
        assert [row["item"] for row in run.stages[1].failures()] == ["row 1"]
        run.close()
    assert calls == ["make", "double", "double"]


def test_another_jobs_folder_and_a_foreign_folder_are_refused(tmp_path: Path) -> None:
    _run(tmp_path / "r").close()
    with pytest.raises(InputError, match="belongs to the job 'numbers'"):
        _run(tmp_path / "r", job="letters")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"not a run folder: it holds thesis\.tex"):
        _run(tmp_path / "home")


def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    run = _run(tmp_path / "r")
    with pytest.raises(ResourceError, match="another process"):
        _run(tmp_path / "r")
    run.close()
    _run(tmp_path / "r").close()


def test_a_run_lives_behind_a_url_too() -> None:
    for _ in range(2):
        run = Run("numbers", Settings(), Folder("memory://runs/numbers"), Profile(name="auto"), track=())
        run.open()
        run.stage(make, run.config)  # type: ignore[arg-type]
        run.close()
    assert calls == ["make"]


def test_a_finished_stage_is_entered_again_where_asked_and_its_followers_are_kept(tmp_path: Path) -> None:
    for rerun in ((), ("make",)):
        run = Run("numbers", Settings(), Folder(tmp_path / "r"), Profile(name="auto"), track=(), rerun=rerun)
        run.open()
        run.stage(double, run.stage(make, run.config))  # type: ignore[arg-type]
        run.close()
    assert calls == ["make", "double", "make"]
