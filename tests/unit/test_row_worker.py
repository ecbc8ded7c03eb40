"""What a worker makes of a batch of rows, whichever of them kill it, and whatever a kill cuts off."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.attempts import MAX_ATTEMPTS, AttemptLog
from squadron.core.folder import Folder
from squadron.core.json_text import from_json, to_json
from squadron.core.line_log import line_files
from squadron.core.row_worker import RowJob, RowWorker, read_answers
from squadron.core.rows import default_batch_size
from squadron.core.seals import seal

FATES = ("good", "raises", "deadly", "deadly once")


def meet_fate(row: dict[str, Any], log: Folder) -> str:
    log.append_line(row["id"], "1")
    if row["fate"] == "raises":
        raise ValueError("no answer to this")
    if row["fate"] == "deadly" or (row["fate"] == "deadly once" and len(log.read_lines(row["id"])) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return f"answer to {row['id']}"


def attempt(job: RowJob, rows: list[dict[str, Any]]) -> bool:
    """Hand the batch to a worker in a process of its own. Whether the worker survived it."""
    pid = os.fork()
    if pid == 0:
        try:
            RowWorker(job)({"name": "batch", "rows": to_json(rows)})
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


@given(fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=12))
@settings(max_examples=15)
def test_each_row_meets_its_own_fate(fates: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Rows that kill their worker are given up after three attempts; no other row is, and every row has one end."""
    folder = Folder(tmp_path_factory.mktemp("rows"))
    log = folder / "log"
    rows = [{"id": str(place), "fate": fate} for place, fate in enumerate(fates)]
    job = RowJob(meet_fate, {"log": log}, folder, "id", 60.0)
    attempts = 1
    while not attempt(job, rows):
        attempts += 1
        assert attempts <= 1 + MAX_ATTEMPTS * len(rows)
    answers, errors = read_answers(folder, line_files(folder))
    ends = {row["id"]: row["fate"] for row in rows}
    assert set(answers) == {name for name, fate in ends.items() if fate in ("good", "deadly once")}
    assert all(answers[name] == f"answer to {name}" for name in answers)
    causes = {
        "raises": "ValueError: no answer to this",
        "deadly": "its worker died or overran 60 s on each of 3 attempts",
    }
    assert errors == {name: causes[fate] for name, fate in ends.items() if fate in causes}
    assert all(len(log.read_lines(name)) <= MAX_ATTEMPTS for name in ends)


def wait(row: dict[str, Any]) -> None:
    time.sleep(row["seconds"])


def test_the_time_is_counted_for_each_row_and_at_most_a_second_of_work_is_lost(tmp_path: Path) -> None:
    job = RowJob(wait, {}, Folder(tmp_path), "id", 2.0)
    rows = [{"id": str(place), "seconds": 0.3} for place in range(8)] + [{"id": "hangs", "seconds": 600}]
    assert not attempt(job, rows)  # together the first eight took longer than two seconds
    answers, errors = read_answers(job.folder, line_files(job.folder))
    assert set(answers) == {str(place) for place in range(len(answers))} and len(answers) >= 4 and not errors
    assert AttemptLog(job.folder, "batch").reached() == len(answers)


@given(cut=st.integers(0, 400), count=st.integers(1, 30))
def test_whatever_a_kill_cuts_off_the_lines_before_are_read(
    cut: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = Folder(tmp_path_factory.mktemp("rows"))
    rows = [{"id": f"row {place}", "fate": "good"} for place in range(count)]
    RowWorker(RowJob(meet_fate, {"log": folder / "log"}, folder, "id", 60.0))({"name": "batch", "rows": to_json(rows)})
    path = Path(folder.path, "batch.jsonl")
    data = path.read_bytes()[: -cut or None]
    path.write_bytes(data)
    whole = [name for line in data.splitlines(keepends=True) if _whole(line) for name in from_json(line)["ids"]]
    assert read_answers(folder, line_files(folder)) == ({name: f"answer to {name}" for name in whole}, {})


def test_lines_that_hold_anything_else_count_as_not_there(tmp_path: Path) -> None:
    objects = [b"{}", b'{"ids": ["a"], "answers": [], "errors": {}}', b'{"ids": "a", "answers": ["b"], "errors": {}}',
               b'{"ids": ["a"], "answers": [1], "errors": []}']  # fmt: skip
    good = seal(b'{"ids": ["b"], "answers": [{"n": 1}], "errors": {"c": "lost"}}')
    odd = [b"null", b"[]", b"[" * 100_000, b"\xff\xfe", good[:-20], *map(seal, objects),
           b'{"ids": ["a"], "answers": [1], "errors": {}}', good.replace(b'"n": 1', b'"n": 3')]  # fmt: skip
    (tmp_path / "batch.jsonl").write_bytes(b"\n".join([*odd, good, *odd]))
    assert read_answers(Folder(tmp_path), ["batch.jsonl"]) == ({"b": {"n": 1}}, {"c": "lost"})


def _whole(line: bytes) -> bool:
    return re.search(rb'"seal":"[0-9a-f]{8}"\}\n?$', line) is not None


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert from_json(to_json(value)) == value


def test_halves_of_surrogate_pairs_and_numbers_that_are_none_are_written_as_by_the_standard_library() -> None:
    assert from_json(to_json(["\ud800"])) == ["\ud800"]
    assert math.isnan(from_json(to_json(math.nan))) and from_json(to_json([math.inf])) == [math.inf]
    with pytest.raises(TypeError, match="not JSON serializable"):
        to_json({"function": wait})


@given(rows=st.integers(1, 10**7), workers=st.integers(1, 20_000), bytes_each=st.integers(2, 10**8))
def test_batches_are_small_enough_that_workers_end_together(rows: int, workers: int, bytes_each: int) -> None:
    size = default_batch_size(rows, workers, bytes_each)
    each = 32 if workers <= 625 else 4  # of many workers the driver would have too many batches to hand out
    assert size == 1 or (size * bytes_each <= 2**24 and size * workers * each <= rows)
    if rows < 300 * workers:
        assert size == 1  # they may take minutes each
