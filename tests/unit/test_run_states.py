"""How far runs have come is told from their folders."""

from __future__ import annotations

import fcntl
import uuid
from pathlib import Path

import pytest

from squadron.core.cli import main
from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.job import Job
from squadron.core.lease import LEASES, Lease, is_held
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.core.run_states import read_state, read_states


class Number(Config):
    value: int = 1


def count(stage: Stage, config: Number) -> Number:
    """Count to three."""
    for step in range(3):
        stage.log(step, done=step)
    return config


def break_off(stage: Stage, config: Number) -> Number:
    """Log a step and end as a killed process would, without saying anything."""
    stage.log(7, done=7)
    raise KeyboardInterrupt


def lose_rows(stage: Stage, config: Number) -> Number:
    """Lose two rows."""
    for name in ("a", "b"):
        stage.fail(name, "no answer", retry=False)
    return config


def play(folder: Folder, *stages: object, finish: bool = True) -> str:
    """What is said of a run with these stages."""

    def recipe(run: Run, config: Number) -> None:
        for stage in stages:
            run.stage(stage, config)  # type: ignore[arg-type]
        if not finish:
            raise KeyboardInterrupt

    run = Run("numbers", Number(), folder, Profile(name="auto"), track=())
    run.open()
    try:
        Job("numbers", Number, recipe, (), None)(run, run.config)
    except KeyboardInterrupt:
        pass
    finally:
        during = read_state(folder).state
        run.close()
    assert during.startswith("running") or not folder.path
    return read_state(folder).state


@pytest.mark.parametrize("root", ["", "memory://"])
def test_the_state_of_a_run_is_what_became_of_it(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squadron.core.lease.BEAT_S", 0.05)
    place = Folder(f"{root}{uuid.uuid4().hex}" if root else tmp_path)
    assert play(place / "whole", count) == "finished"
    assert play(place / "cut", count, break_off) == "stopped in break_off, step 7"
    assert play(place / "between", count, finish=False) == "stopped after count"
    assert play(place / "empty", finish=False) == "stopped before its first stage"
    assert play(place / "losses", lose_rows, count) == "finished, 2 failed rows"
    assert play(place / "whole", count, finish=False) == "stopped after count", "it was entered again"
    (place / "other").write_bytes("notes.txt", b"no run")
    (place / "broken").write_bytes("run.json", b"{")
    found = {run.folder.name: run.state for run in read_states(place)}
    assert found.keys() == {"whole", "cut", "between", "empty", "losses", "broken"}
    assert found["broken"] == "not readable"


def test_a_lock_is_seen_and_not_taken(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert not is_held(folder)
    with open(tmp_path / ".lock", "w") as lock:
        assert not is_held(folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_held(folder)
    assert not is_held(folder)


def test_a_lease_that_beats_is_held_and_one_that_stands_still_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squadron.core.lease.BEAT_S", 0.1)
    folder = Folder(f"memory://{uuid.uuid4().hex}")
    assert not is_held(folder)
    lease = Lease(folder)
    assert is_held(folder)
    (name,) = (folder / LEASES).ls()
    left = (folder / LEASES).read_bytes(name)
    lease.close()
    assert not is_held(folder)
    (folder / LEASES).write_bytes(name, left)  # as a process leaves it that was killed
    assert not is_held(folder)


def test_runs_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    play(Folder(tmp_path / "whole"), count)
    for words in (["runs", str(tmp_path)], ["ls", "--runs", str(tmp_path)]):
        capsys.readouterr()
        assert main(words) == 0
        assert "finished" in capsys.readouterr().out
    assert main(["runs", str(tmp_path / "nothing")]) == 0
    assert "no runs" in capsys.readouterr().out
