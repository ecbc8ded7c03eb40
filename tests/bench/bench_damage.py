"""Damage of every kind to every file of finished and unfinished smoke runs, and what became of it.

    python tests/bench/bench_damage.py flame coordination crowdselect finetune [--each 1] [--most 200] [--seed 0]

A line a job: how many damages were drawn, and how many ended with the same numbers, were refused with the file and what
to do, or failed: with other numbers, a traceback, or a message that names neither.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from squadron.core.cli import main
from squadron.core.cluster import connect
from tests.contract.record import find_contract, write_files
from tests.damage import Bench, Damage, damages, files_of, finished, unfinished


def sweep(bench: Bench, drawn: list[Damage], place: Path, state: str) -> Counter[str]:
    """Meet each damage in a copy, and count the outcomes."""
    counts: Counter[str] = Counter()
    for number, damage in enumerate(drawn):
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                outcome = bench.meet(damage, place / "copy")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = "FAILED"
            last = traceback.extract_tb(error.__traceback__)[-1]
            print(f"  {state} {damage.kind} {damage.file}: {type(error).__name__}: {str(error)[:300]} "
                  f"({Path(last.filename).name}:{last.lineno})", flush=True)  # fmt: skip
        counts[outcome] += 1
        (place / "copy").rename(place / f"gone-{number}")
        _remove(place / f"gone-{number}")
    return counts


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def one_job(job: str, each: int, most: int, seed: int, place: Path) -> None:
    """Make the smoke run of a job, and sweep over it as it ended and as a kill may leave it."""
    contract = find_contract(job)
    (place / "files").mkdir(parents=True)
    words = ["smoke", *write_files(place / "files", contract.files, contract.words)]
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet):
        assert main(["run", job, *words, "--run", str(place / "run"), "--track", "none"]) == 0
        benches = {
            "finished": finished(job, words, place / "run"),
            "unfinished": unfinished(job, words, place / "run", place),
        }
    print(f"{job}: made, {len(files_of(place / 'run'))} files", flush=True)
    for state, bench in benches.items():
        draw, started = random.Random(seed), time.monotonic()
        every = list(damages(bench.run, draw, each))
        drawn = draw.sample(every, min(most, len(every)))
        counts = sweep(bench, drawn, place, state)
        told = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        seconds = time.monotonic() - started
        print(f"{job} {state}: {len(drawn)} of {len(every)} in {seconds:.0f} s: {told}", flush=True)
        if bench.varies:
            print(f"  not compared, since no two runs agree on it: {', '.join(sorted(bench.varies))}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="+")
    parser.add_argument("--each", type=int, default=1, help="places drawn in each file for each kind")
    parser.add_argument("--most", type=int, default=10**6, help="damages of each run at most")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    connect(cpus=2)
    with tempfile.TemporaryDirectory() as scratch:
        for one in asked.jobs:
            one_job(one, asked.each, asked.most, asked.seed, Path(scratch) / one)
