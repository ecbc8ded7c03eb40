"""What the CrowdSelect job does besides what all jobs do (`tests/contract`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from squadron.core.folder import Folder
from squadron.data.rows import ArrowRows
from tests.contract.record import copy_run, output, stages
from tests.finished import one_line, run_smoke


def choice(folder: Path, arm: str) -> list[Any]:
    choices = output(stages(folder, "select")[0])["choices"]
    (file,) = (one["path"] for one in choices if one["arm"] == arm and one["seed"] == 0)
    return [dict(row) for row in ArrowRows(Folder(folder), [file])]


@pytest.fixture(scope="module")
def finished(smoke_run: Callable[[str], Path]) -> Path:
    return smoke_run("crowdselect")


def test_a_choice_holds_the_best_response_of_each_instruction(finished: Path) -> None:
    picked = choice(finished, "crowdselect")
    assert len(picked) == len({row["id"] for row in picked}) == 32
    assert {row["model"] for row in picked} <= {"first-1", "first-2", "last-1", "last-2"}
    everything = {row["id"]: row for row in choice(finished, "everything")}
    assert len(everything) == output(stages(finished, "read_pool")[0])["questions"]["count"]
    assert all(everything[row["id"]] == row for row in picked)
    assert {row["id"] for row in choice(finished, "random")} != {row["id"] for row in picked}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["selection.clusters=500"], "clusters"),
        (["selection.count=500"], "500 instructions are to be picked"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused_and_what_was_collected_stays(
    finished: Path, tmp_path: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_smoke("crowdselect", copy_run(finished, tmp_path / "run"), *words) == 2
    said = one_line(capsys)
    assert expected in said and said.count("finished before, kept") == 5
