"""Losses at random moments on a cluster of three nodes: does every job report what an undisturbed run does?

python tests/bench/bench_chaos.py [JOB …] [MOMENTS]

The nodes are on this machine, each with one CPU and in a network namespace of its own, so it has to be root; the driver
is on the head. Each job's smoke setting runs undisturbed once, then MOMENTS times (15) with one loss: a worker process
is killed, a node is killed with all its processes, a node stands still or is cut off for six seconds and is taken for
lost after three, or the driver is killed and the command given again. Moments that were tried are kept in
`runs/bench-chaos`, so the bench can be given in parts. Bar: every reported number, table and fingerprint equal over 100
moments; of the rows, at most one for each worker is answered twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
from tests.chaos import COUNT, ChaosJob, Loss, disturb
from tests.kills import try_moments
from tests.namespaces import Switch
from tests.nodes import Nodes

PLACE = Path("runs/bench-chaos").resolve()
OFTEN = ["training.checkpoint.every=2", "training.evaluate_every=2"]
JOBS = {
    "coordination": ("coordination", []),
    "crowdselect": ("crowdselect", []),
    "flame": ("flame", []),
    "finetune": ("finetune", OFTEN),
    "finetune-group": ("finetune", [*OFTEN, "--workers", "2"]),
    "toolret": ("toolret", []),
    "actor_reasoner": ("actor_reasoner", []),
    "self_rewarding": ("self_rewarding", []),
}


def main(name: str, count: int, nodes: Nodes) -> None:
    """Try the moments of a job that were not tried yet."""
    job = ChaosJob.on(nodes, JOBS[name][0], PLACE / name, JOBS[name][1])
    try_moments(
        job,
        Loss,
        count,
        lambda number, folder: disturb(job, number, folder),
        lambda moment: f", {moment.twice} of {moment.rows} rows twice",
    )


if __name__ == "__main__":
    words = sys.argv[1:]
    chosen = [word for word in words if not word.isdecimal()] or list(JOBS)
    most = int(next((word for word in words if word.isdecimal()), "15"))
    with Switch(COUNT) as switch, Nodes(COUNT, switch=switch) as nodes:
        for each in chosen:
            main(each, most, nodes)
