"""Rows are answered once; failures are kept with their cause, and retried by the next run."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from squadron.core.attempts import AttemptLog
from squadron.core.config import Config
from squadron.core.disk_errors import explaining_disk_errors
from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.row_progress import report_progress
from squadron.core.rows import map_rows
from squadron.core.run import Run, Stage


class Nothing(Config):
    pass


def answer(row: dict[str, Any], log: Folder) -> dict[str, Any]:
    log.append_line(f"{row['id']}.log", "1")
    if row.get("raise") and not log.exists("mended"):
        raise ValueError("no answer to this")
    if row.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if row.get("die_once") and len(log.read_lines(f"{row['id']}.log")) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if row.get("hang"):
        time.sleep(600)
    return {"id": row["id"], "square": row["n"] ** 2}


def _stage(folder: Path, profile: Profile = Profile(name="auto")) -> Stage:  # noqa: B008 - frozen
    run = Run("rows", Nothing(), Folder(folder), profile, track=())
    stage = Stage(run, "work", "", {}, run.folder / "stages" / "work-0")
    stage.begin()
    return stage


@pytest.mark.parametrize("batch_size", [1, 5])
def test_failures_are_kept_and_only_they_are_tried_again(ray_cluster: object, tmp_path: Path, batch_size: int) -> None:
    """Also where a worker that dies was handed other rows, before and behind the one that killed it."""
    log = Folder(tmp_path / "log").make()
    rows = [
        {"id": "good", "n": 2},
        {"id": "raises", "n": 3, "raise": True},
        {"id": "unlucky", "n": 4, "die_once": True},
        {"id": "deadly", "n": 5, "die": True},
        {"id": "hangs", "n": 6, "hang": True},
    ]
    stage = _stage(tmp_path)
    answers = map_rows(stage, rows, answer, timeout_s=3, batch_size=batch_size, log=log)
    assert answers == [{"id": "good", "square": 4}, {"id": "unlucky", "square": 16}]
    failures = {row["item"]: row["error"] for row in stage.failures()}
    assert set(failures) == {"raises", "deadly", "hangs"}
    assert failures["raises"] == "ValueError: no answer to this"
    assert "died or overran 3 s on each of 3 attempts" in failures["hangs"]
    assert stage.rows_to_retry == 3

    log.write_bytes("mended", b"")
    again = _stage(tmp_path)
    assert len(map_rows(again, rows[:3], answer, timeout_s=3, batch_size=batch_size, log=log)) == 3
    assert again.failures() == []
    assert len(log.read_lines("good.log")) == 1


def test_workers_of_a_killed_run_that_still_write_disturb_nothing(ray_cluster: object, tmp_path: Path) -> None:
    """Its driver is dead; its last rows are on their way still, each with the attempts that it counted."""
    rows = [{"id": str(number), "n": number} for number in range(8)]
    stage, log, over = _stage(tmp_path), Folder(tmp_path / "log"), threading.Event()
    map_rows(stage, rows[:1], answer, log=log)
    parts = stage.folder / "rows"
    (theirs,) = parts.walk()[1:]
    session = theirs.rpartition("-")[0]
    assert theirs.startswith(session)

    def write_on() -> None:
        while not over.is_set():
            for number in range(50):
                AttemptLog(parts, f"{session}-{number:06d}").begin(0, 8)
                parts.append_line(f"{session}-{number:06d}.jsonl", '{"ids": ["3"], "answ')

    with ThreadPoolExecutor() as pool:
        writer = pool.submit(write_on)
        try:
            answers = map_rows(_stage(tmp_path), rows, answer, log=log)
        finally:
            over.set()
    writer.result()
    assert [row["square"] for row in answers] == [number**2 for number in range(8)]
    assert all(len(log.read_lines(f"{number}.log")) == 1 for number in range(8))


def when(row: dict[str, Any]) -> dict[str, Any]:
    start = time.time()
    time.sleep(0.2)
    return {"start": start, "end": time.time()}


def test_one_worker_asked_for_answers_one_row_after_the_other(ray_cluster: object, tmp_path: Path) -> None:
    stage = _stage(tmp_path, Profile(name="auto", workers=1))
    answers = map_rows(stage, [{"id": str(number)} for number in range(6)], when, batch_size=2)
    answers.sort(key=lambda answer: answer["start"])
    assert all(one["end"] <= later["start"] for one, later in pairwise(answers))


def test_a_run_cut_half_way_is_resumed_where_it_was(ray_cluster: object, tmp_path: Path) -> None:
    """Of its batches some were not begun, and one has half its last line."""
    rows = [{"id": f"a/b ü {number}", "n": number} for number in range(40)]
    stage, log = _stage(tmp_path), Folder(tmp_path / "log")
    expected = map_rows(stage, rows, answer, batch_size=10, log=log)
    assert [row["square"] for row in expected] == [number**2 for number in range(40)]
    parts = stage.folder / "rows"
    batches = [name for name in parts.ls() if name.endswith(".jsonl")]
    assert len(batches) == 4 and len(parts.walk()) == 8  # an answers file and an attempts file each
    parts.remove(batches[3])
    parts.write_bytes(batches[1], parts.read_bytes(batches[1])[:-50])
    kept = {name for batch in batches[:3] for line in parts.read_lines(batch) for name in line["ids"]}
    assert 20 < len(kept) < 30
    assert map_rows(_stage(tmp_path), rows, answer, batch_size=10, log=log) == expected
    calls = {row["id"]: len(log.read_lines(f"{row['id']}.log")) for row in rows}
    assert calls == {row["id"]: 1 if row["id"] in kept else 2 for row in rows}


def sleep(row: dict[str, Any]) -> float:
    for done in range(10):
        time.sleep(row["seconds"] / 10)
        report_progress((done + 1) / 10)
    return float(row["seconds"])


def test_a_row_may_take_longer_than_ray_data_waits_for_a_block_and_shows_how_far_it_is(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.data

    monkeypatch.setattr("squadron.core.progress.LINE_EVERY_S", 0.5)
    stage = _stage(tmp_path)

    context = ray.data.DataContext.get_current()
    before, context.execution_no_progress_timeout_s = context.execution_no_progress_timeout_s, 2
    try:
        assert map_rows(stage, [{"id": "slow", "seconds": 5}], sleep, unit="nap") == [5]
    finally:
        context.execution_no_progress_timeout_s = before
    shares = [float(share) for share in re.findall(r"(0\.\d\d)/1 nap", capsys.readouterr().out)]
    assert len(set(shares)) > 2 and shares == sorted(shares), shares
    assert not (stage.folder / "rows" / "progress").ls()


@pytest.mark.parametrize(
    ("rows", "message"),
    [([{"n": 1}], "have no 'id'"), ([{"id": "a", "n": 1}, {"id": "a", "n": 2}], "more than once")],
)
def test_bad_ids_are_refused_before_work(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        map_rows(_stage(tmp_path), rows, answer, log=Folder(tmp_path))


def test_a_full_disk_stops_the_stage_and_is_no_rows_fault(ray_cluster: object, tmp_path: Path) -> None:
    stage = _stage(tmp_path)
    with pytest.raises(ResourceError, match="the disk is full"):
        map_rows(stage, [{"id": "a", "n": 1}], out_of_disk, log=Folder(tmp_path))
    assert stage.failures() == []


def out_of_disk(row: dict[str, Any], log: Folder) -> dict[str, Any]:
    with open("/dev/full", "wb", buffering=0) as stream, explaining_disk_errors(log.url):
        stream.write(b"x")
    return {}
