"""Progress says how much, how fast and how long still, wherever it is shown, and never ends the work."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squadron.core.progress import describe, progress

WORK = """
import sys
from pathlib import Path
from squadron.core.progress import progress
for _ in progress(3000, "work", "row", line_every_s=0).over(range(3000)):
    pass
Path(sys.argv[1]).write_text("finished")
"""


@pytest.mark.parametrize(
    ("done", "total", "unit", "rate", "shown"),
    [
        (0, 400, "episode", 0.0, "0/400 episodes"),
        (120, 400, "episode", 3.4, "120/400 episodes, 3.4/s, 1:22 left"),
        (1, 1, "round", 0.5, "1/1 round, 2 s each"),
        (5, 10, "round", 1 / 600, "5/10 rounds, 10:00 each, 50:00 left"),
        (7, None, "batch", 250.4, "7 batches, 250/s"),
        (0.25, 1, "policy", 1 / 400, "0.25/1 policy, 6:40 each, 5:00 left"),
        (3.7, 10, "policy", 0.0, "3/10 policies"),
        (10, 10, "step", 5.0, "10/10 steps, 5/s"),
    ],
)
def test_description(done: int, total: int | None, unit: str, rate: float, shown: str) -> None:
    assert describe(done, total, unit, rate) == shown


@settings(deadline=None)
@given(done=st.integers(0, 10**9), more=st.integers(1, 10**9), rate=st.floats(1e-3, 1e6))
def test_time_left_is_what_is_left_at_this_rate(done: int, more: int, rate: float) -> None:
    clock = describe(done, done + more, "row", rate).rpartition(", ")[2].removesuffix(" left")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    assert seconds == pytest.approx(more / rate, abs=0.51)


def test_every_item_passes_and_lines_come_at_most_as_often_as_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert list(progress(200, "quick", "row", line_every_s=3600).over(range(200))) == list(range(200))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("quick: 200/200 rows")
    with progress(5, "slow", "row", line_every_s=0) as bar:
        for _ in range(5):
            bar.advance()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" rows")[0] for line in lines] == [f"slow: {n}/5" for n in (1, 2, 3, 4, 5, 5)]


def test_earlier_work_counts_as_done_but_not_for_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(1_000_010, "resumed", "row", done=1_000_000) as bar:
        time.sleep(0.2)
        bar.advance(5)
    line = capsys.readouterr().out
    assert "1000005/1000010 rows" in line
    rate = float(line.partition("rows, ")[2].partition("/s")[0])
    assert 0 < rate <= 25


def test_an_error_passes_through_and_leaves_a_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), progress(10, "fails", "row") as bar:
        bar.advance(4)
        raise KeyError("row 5")
    assert capsys.readouterr().out.startswith("fails: 4/10 rows")


def test_a_reader_that_goes_away_does_not_stop_the_work(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, str(marker)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline().startswith("work: 1/3000 rows")
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=240) == 0
    assert errors == ""
    assert marker.read_text() == "finished"


def test_a_closed_standard_output_does_not_stop_the_work(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"import sys; sys.stdout.close()\n{WORK}"
    done = subprocess.run([sys.executable, "-c", code, str(marker)], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr, marker.read_text()) == (0, "", "finished")


def test_a_terminal_gets_a_live_bar(tmp_path: Path) -> None:
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, str(tmp_path / "marker")],
        stdout=terminal,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert process.wait(timeout=240) == 0
    text = shown.decode()
    assert "3000/3000 rows" in text
    assert "\x1b[" in text, "a live bar redraws its line"
