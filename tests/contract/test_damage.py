"""Damage to the files of a job of the house is repaired, refused with the file and what to do, or of no effect.

`SQUADRON_DAMAGE` is how many damages are drawn; where it is set, an unfinished run is damaged too, which does its work
again. `tests/unit/test_damage.py` does all of them to a small job, `tests/bench/bench_damage.py` over several jobs.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.record import find_contract
from tests.damage import Bench, damages, finished, unfinished

JOB = "coordination"
ASKED = os.environ.get("SQUADRON_DAMAGE")


def words_of(run: Path) -> list[str]:
    """The words that the session's smoke run was given."""
    return ["smoke", *(word.replace("FILES", str(run.parent / "files")) for word in find_contract(JOB).words)]


@pytest.fixture(scope="module", params=["finished", "unfinished"] if ASKED else ["finished"])
def bench(
    request: pytest.FixtureRequest, smoke_run: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Bench:
    run = smoke_run(JOB)
    if request.param == "finished":
        return finished(JOB, words_of(run), run)
    return unfinished(JOB, words_of(run), run, tmp_path_factory.mktemp("unfinished"))


def test_a_damaged_file_gives_the_same_numbers_or_is_named(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    every = list(damages(bench.run, draw))
    assert len(every) > 50
    for number, damage in enumerate(draw.sample(every, min(int(ASKED or 10), len(every)))):
        print(f"seed {seed}: {damage.kind} {damage.file}")
        bench.meet(damage, tmp_path / str(number), capsys)
