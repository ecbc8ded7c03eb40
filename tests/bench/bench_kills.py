"""Kills at random moments: does a run that was killed and given again report what an undisturbed one does?

python tests/bench/bench_kills.py [finetune | finetune-group | flame | crowdselect | coordination] [MOMENTS]

Each job's smoke setting runs undisturbed once, then MOMENTS times (50) with a kill -9 at a drawn moment, of the driver,
of a worker, or between two writes. Moments that were tried before are kept in `runs/bench-kills`, so the bench can be
given in parts. Bar: every reported number, table and fingerprint equal, over 200 moments.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.kills import Job, Moment, try_moments

PLACE = Path("runs/bench-kills").resolve()
OFTEN = ["training.checkpoint.every=2", "training.evaluate_every=2"]
JOBS = {
    "finetune": ("finetune", OFTEN),
    "finetune-group": ("finetune", [*OFTEN, "--workers", "2"]),
    "flame": ("flame", []),
    "crowdselect": ("crowdselect", []),
    "coordination": ("coordination", []),
}


if __name__ == "__main__":
    words = sys.argv[1:]
    chosen = [word for word in words if not word.isdecimal()] or list(JOBS)
    most = int(next((word for word in words if word.isdecimal()), "50"))
    for name in chosen:
        job = Job.of(JOBS[name][0], PLACE / name, JOBS[name][1])
        try_moments(job, Moment, most, job.disturb, lambda moment: "")
