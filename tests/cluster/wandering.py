"""A job of a user's own that tells where it runs and what it sees there, waits for a file, and ends as it is told."""

from __future__ import annotations

import hashlib
import os
import time

from squadron.core.cli import run_job
from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.inputs import InputPath
from squadron.core.job import job
from squadron.core.run import Run, Stage


class Wandering(Config):
    """`gate` is a file that is waited for; `variable` one that is looked for on each node."""

    rows: InputPath
    gate: str
    variable: str = "NOTHING"
    fails: bool = False


class Seen(Config):
    """By node: where the package is imported from, what the input holds, the sum of the variable."""

    packages: tuple[str, ...]
    rows: tuple[str, ...]
    sums: tuple[str, ...]


def look_around(stage: Stage, config: Wandering) -> Seen:
    """Look around on each node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def look() -> tuple[str, str, str]:
        import squadron

        value = os.environ.get(config.variable, "")
        with open(config.rows) as file:
            return str(squadron.__file__), file.read(), hashlib.sha256(value.encode()).hexdigest()

    nodes = [NodeAffinitySchedulingStrategy(node.id, soft=False) for node in stage.cluster.nodes]
    task = ray.remote(num_cpus=0)(look)
    found = ray.get([task.options(scheduling_strategy=node).remote() for node in nodes])
    packages, rows, sums = zip(*found, strict=True)
    return Seen(packages=packages, rows=rows, sums=sums)


def wait_at_gate(stage: Stage, config: Wandering, seen: Seen) -> Seen:
    """Wait for a file, counting."""
    number = 0
    while not os.path.exists(config.gate):
        number += 1
        print(f"waiting {number}", flush=True)
        time.sleep(0.05)
    print(f"waited {number}", flush=True)
    if config.fails:
        raise InputError("the gate is of no use", where=config.gate)
    return seen


@job(Wandering)
def wandering(run: Run, config: Wandering) -> None:
    """Wander about a cluster."""
    run.stage(wait_at_gate, config, run.stage(look_around, config))


if __name__ == "__main__":
    run_job(wandering)
