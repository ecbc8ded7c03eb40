"""Coordination: hundreds of robots share a floor; a network proposes who goes first, and every proposal is valid.

    python jobs/coordination.py                                        # the demo, on this machine
    squadron run coordination full costs='[average_completion, maximum_completion]'
    squadron run coordination paper --address auto
    squadron run coordination own planners=runs/coordination-full      # a fleet, with the networks of an earlier run

Multi-agent coordination by a graph VAE, arXiv 2503.02954.
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import job
from squadron.core.run import Run
from squadron.methods.coordination.config import CoordinationConfig
from squadron.methods.coordination.endpoint import services
from squadron.methods.coordination.stages import (
    adopt_planners,
    compare,
    label_problems,
    plan_fleet,
    read_fleet,
    train_planners,
)

NEEDS = ("ray", "torch", "torch_geometric", "deepspeed", "shapely", "ortools", "highspy", "cma", "pyarrow")


@job(CoordinationConfig, requires=NEEDS, services=services, metrics={"ratio": "max"})
def coordination(run: Run, config: CoordinationConfig) -> None:
    """Optimal plans for small problems teach a network that plans large ones."""
    own = config.fleet
    if own is not None:  # refused before anything is trained, if at all
        fleet = run.stage(read_fleet, own, config.limits)
    for cost in config.costs:
        if own is not None and config.planners is not None:
            earlier = run.stage(adopt_planners, cost, config.planners)
            run.stage(plan_fleet, earlier, fleet, config.limits, config.sampling)
            continue
        labels = run.stage(label_problems, cost, config.problems, config.limits, config.labels)  # exact solver
        trained = run.stage(train_planners, labels, config.model, config.loss, config.training)
        # On problems that nobody has seen, of up to hundreds of robots:
        run.stage(compare, trained, config.limits, config.sampling, config.evaluation)
        if own is not None:
            run.stage(plan_fleet, trained, fleet, config.limits, config.sampling)


if __name__ == "__main__":
    run_job(coordination)
