"""Federated robot manipulation: many homes teach one policy and keep their data at home.

    python jobs/flame.py                                     # the demo, on this machine
    python jobs/flame.py configs/flame/paper.yaml strategy.name=fedprox
    squadron run flame paper --address auto                  # on the cluster this machine belongs to
    squadron run flame benchmark                             # four tasks with four strategies each, in one table

FLAME, arXiv 2503.01729.
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import job
from squadron.core.run import Run
from squadron.methods.flame.config import FlameConfig, RoundsConfig
from squadron.methods.flame.endpoint import services
from squadron.methods.flame.stages import (
    build_homes,
    choose_round,
    collect_demos,
    evaluate,
    federate,
    tabulate,
    train_baselines,
)


@job(
    FlameConfig,
    requires=("ray", "torch", "flwr", "mujoco", "pyarrow", "safetensors"),
    services=services,
    # In homes set apart for choosing: what is measured at the end, in others, decides nothing.
    metrics={"success": "max", "rmse": "min", "validation_loss": "min"},
)
def flame(run: Run, config: FlameConfig) -> None:
    """One policy for a kind of task, taught by homes that never show their data."""
    training, federation = config.training, config.federation
    scores = []
    for task in config.tasks:
        homes = run.stage(build_homes, task)  # one simulated environment a client
        demos = run.stage(collect_demos, homes, config.demos)  # scripted expert → Parquet, one shard a home
        chosen = []
        for strategy in config.strategies.values():
            rounds = run.stage(federate, demos, training, strategy, federation)
            # On homes held out for choosing:
            chosen.append(run.stage(choose_round, rounds, homes, demos, config.evaluation, config.choose_by))
        others = run.stage(train_baselines, demos, training, federation.only(RoundsConfig), config.baselines)
        # On homes nobody has seen:
        scores.append(run.stage(evaluate, chosen, [*config.strategies], others, homes, demos, config.evaluation))
    if config.benchmark is not None:
        run.stage(tabulate, scores)


if __name__ == "__main__":
    run_job(flame)
