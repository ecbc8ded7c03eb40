"""A cluster that loses nodes, and whose object stores are full, ends its jobs with the same result."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import Nodes, wait_for

JOB = str(Path(__file__).resolve().parents[1] / "squares.py")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with Nodes(3) as found:
        yield found


def start(nodes: Nodes, place: Path, *words: str) -> subprocess.Popen[bytes]:
    line = ["-m", "squadron.core.cli", "run", JOB, f"notes={place}/notes", *words]
    with (place / "said").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, *line, "--run", str(place / "run"), "--address", nodes.address],
            env=nodes.environment,
            stdout=said,
            stderr=said,
        )


def answered(place: Path) -> list[str]:
    """The ids of rows in the order in which they were answered, some perhaps twice."""
    notes = place / "notes"
    return [line.split()[0] for line in notes.read_text().splitlines()] if notes.exists() else []


def total(place: Path) -> int:
    (done,) = (place / "run").glob("stages/*/done.json")
    return int(json.loads(done.read_text())["output"]["total"])


def test_nodes_that_are_lost_or_stand_still_cost_the_rows_that_they_had_in_hand(nodes: Nodes, tmp_path: Path) -> None:
    place, count = tmp_path, 40
    driver = start(nodes, place, f"count={count}", "row_s=0.4")
    try:
        wait_for(driver, lambda: len(answered(place)) >= 3, place / "said")
        nodes.kill(1)
        wait_for(driver, lambda: len(answered(place)) >= 8, place / "said")
        nodes.stop(2)
        time.sleep(6)  # by then it is taken for lost
        nodes.go_on(2)
        assert driver.wait(120) == 0, (place / "said").read_text()
    finally:
        driver.kill()
        driver.wait()
    assert total(place) == sum(n * n for n in range(count))
    ids = answered(place)
    assert set(ids) == {str(n) for n in range(count)} and len(ids) <= count + 2, "one row each was in hand"


def test_an_object_store_that_is_full_spills_to_disk(nodes: Nodes, tmp_path: Path) -> None:
    place, count = tmp_path, 150
    driver = start(nodes, place, f"count={count}", "row_s=0", "pad_kb=1000")
    try:
        assert driver.wait(120) == 0, (place / "said").read_text()
    finally:
        driver.kill()
        driver.wait()
    assert total(place) == sum(n * n for n in range(count))
