"""A run that is killed at a moment drawn by chance, and given again, reports what one reports that nobody disturbed.

`SQUADRON_KILLS=20` draws as many moments of each job; without it none is: one at a set moment of every job is in
`test_contract.py`. `tests/bench/bench_kills.py` draws many more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.record import find_contract, write_files
from tests.kills import Job

KILLS = int(os.environ.get("SQUADRON_KILLS", "0"))
JOBS = ("finetune", "flame", "crowdselect", "coordination")


@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("name", JOBS)
def test_a_kill_at_any_moment_changes_nothing_that_is_reported(
    name: str, number: int, smoke_run: Callable[[str], Path], tmp_path: Path
) -> None:
    whole, contract = smoke_run(name), find_contract(name)
    job = Job(name, ["smoke", *write_files(whole.with_name("files"), {}, contract.words)], whole)
    moment = job.disturb(number, tmp_path / "run")
    assert moment.harmless and not moment.tracebacks, moment
