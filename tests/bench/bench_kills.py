"""Kills at random moments: does a run that was killed and given again report what an undisturbed one does?

python tests/bench/bench_kills.py [finetune | finetune-group | flame | crowdselect | coordination] [MOMENTS]

Each job's smoke setting runs undisturbed once, then MOMENTS times (50) with a kill -9 at a drawn moment, of the driver,
of a worker, or between two writes. Moments that were tried before are kept in `runs/bench-kills`, so the bench can be
given in parts. Bar: every reported number, table and fingerprint equal, over 200 moments.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.kills import Job, Moment

PLACE = Path("runs/bench-kills").resolve()
OFTEN = ["training.checkpoint.every=2", "training.evaluate_every=2"]
JOBS = {
    "finetune": ("finetune", OFTEN),
    "finetune-group": ("finetune", [*OFTEN, "--workers", "2"]),
    "flame": ("flame", []),
    "crowdselect": ("crowdselect", []),
    "coordination": ("coordination", []),
}


def main(name: str, count: int) -> list[Moment]:
    """All moments of a job, those of earlier calls among them."""
    job = Job.of(JOBS[name][0], PLACE / name, JOBS[name][1])
    file = PLACE / name / "moments.jsonl"
    moments = [Moment(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    if not moments:
        code, said = job.run(job.whole)
        assert code == 0, said
    for number in range(len(moments), count):
        folder = PLACE / name / f"{number:03d}"
        shutil.rmtree(folder, ignore_errors=True)
        moment = job.disturb(number, folder)
        with file.open("a") as stream:
            stream.write(json.dumps(asdict(moment)) + "\n")
        moments.append(moment)
        came = "equal" if moment.harmless else moment.differences[:5]
        where = f"{moment.kind} in {moment.stage} at {moment.at:.3g}, {moment.victim}"
        print(f"{name} {number}: {where}: ended {moment.ended}, {came}", flush=True)
        if moment.harmless:
            shutil.rmtree(folder)
        shutil.rmtree(folder.with_name(f"{folder.name}-cache"), ignore_errors=True)
    return moments


if __name__ == "__main__":
    words = sys.argv[1:]
    chosen = [word for word in words if not word.isdecimal()] or list(JOBS)
    most = int(next((word for word in words if word.isdecimal()), "50"))
    for each in chosen:
        found = main(each, most)
        kinds = Counter((one.kind, one.harmless) for one in found)
        print(f"{each}: {sum(one.harmless for one in found)} of {len(found)} equal; {dict(kinds)}")
