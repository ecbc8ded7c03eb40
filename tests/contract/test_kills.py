"""A run that is killed at a moment drawn by chance, and given again, reports what one reports that nobody disturbed.

`SQUADRON_KILLS=20` draws as many moments of each job; `tests/bench/bench_kills.py` many more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.record import find_contract, write_files
from tests.kills import Job

KILLS = os.environ.get("SQUADRON_KILLS")
JOBS = ("finetune",) if KILLS is None else ("finetune", "flame", "crowdselect", "coordination")


@pytest.mark.parametrize("number", range(int(KILLS or 1)))
@pytest.mark.parametrize("name", JOBS)
def test_a_kill_at_any_moment_changes_nothing_that_is_reported(
    name: str, number: int, smoke_run: Callable[[str], Path], tmp_path: Path
) -> None:
    whole, contract = smoke_run(name), find_contract(name)
    job = Job(name, ["smoke", *write_files(whole.with_name("files"), {}, contract.words)], whole)
    moment = job.disturb(number, tmp_path / "run")
    assert moment.harmless and not moment.tracebacks, moment
