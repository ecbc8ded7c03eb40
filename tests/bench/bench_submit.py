"""The smoke run of each job, submitted to a cluster of three nodes without a Squadron of its own, next to the same run
on this machine: what is different, and how long both take.

python tests/bench/bench_submit.py [JOB …]
"""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from squadron.core import registry
from squadron.core.manifest import describe_environment
from tests.contract.record import find_contract, write_files
from tests.kills import reported
from tests.local_cluster import BareCluster

SHOWN = 8


def main(jobs: list[str]) -> int:
    """Run the jobs and print a line for each; 1 if one has not ended well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the nodes end too
    cluster, bad = BareCluster.start(), 0
    try:
        with tempfile.TemporaryDirectory(prefix="bench") as place:
            for job in jobs or sorted(registry.list_jobs()):
                bad += not compare(cluster, job, Path(place, job))
    finally:
        cluster.stop()
    return int(bad > 0)


def compare(cluster: BareCluster, job: str, place: Path) -> bool:
    """Run a job in both ways, print what differs, and say whether both ended well."""
    (place / "files").mkdir(parents=True)
    contract = find_contract(job)
    words = [job, "smoke", *write_files(place / "files", contract.files, contract.words)]
    here_s, here = _time(cluster, "run", *words, "--run", str(place / "here"))
    sent = describe_environment()["commit"]
    there_s, there = _time(cluster, "submit", *words, "--run", str(place / "there"))
    if here.returncode or there.returncode:
        print(f"{job}: here {here.returncode}, there {there.returncode}")
        print("\n".join((here if here.returncode else there).stdout.splitlines()[-40:]), there.stderr[-2000:])
        return False
    commit = json.loads((place / "there" / "run.json").read_text())["commit"]
    assert commit == sent, f"another copy of the code has run: {commit}"
    differ, furthest = differing(place / "here", place / "there")
    print(f"{job}: {here_s:.0f} s here, {there_s:.0f} s there; {len(differ)} values differ, at most by {furthest:.2g}")
    for one in differ[:SHOWN]:
        print(f"    {one}"[:300])
    sys.stdout.flush()
    return True


def differing(here: Path, there: Path) -> tuple[list[str], float]:
    """What two runs report differently, and by how much at most, as a part of the larger number. Sums of files differ
    where a number in them does, and so do the names of the stages that read them: both are left out. What are no
    numbers differs by infinity."""
    before, after = _by_stage(here), _by_stage(there)
    found, furthest = [], 0.0
    for name in {**before, **after}:
        one, other = before.get(name), after.get(name)
        if one != other and "sha256" not in name:
            numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
            apart = abs(one - other) / max(abs(one), abs(other)) if numbers else math.inf
            found.append(f"{name}: {one!r} here, {other!r} there")
            furthest = max(furthest, apart)
    return found, furthest


def _by_stage(folder: Path) -> dict[str, Any]:
    """What a run reports, by the places of its stages in the recipe and not by their fingerprints."""
    stages = json.loads((folder / "run.json").read_text())["stages"]
    names = {name: f"{number}-{name.rpartition('-')[0]}" for number, name in enumerate(dict.fromkeys(stages))}

    def plain(text: str) -> str:
        return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)

    return {
        plain(place): plain(value) if isinstance(value, str) else value for place, value in reported(folder).items()
    }


def _time(cluster: BareCluster, *words: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    started = time.monotonic()
    done = cluster.squadron(*words)
    return time.monotonic() - started, done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
