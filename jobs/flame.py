"""Federated robot manipulation: many homes teach one policy and keep their data at home.

    python jobs/flame.py                                     # the demo, on this machine
    python jobs/flame.py configs/flame/paper.yaml strategy.name=fedprox
    squadron run flame paper --address auto                  # on the cluster this machine belongs to

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
    homes = run.stage(build_homes, config.homes)  # one simulated environment a client
    demos = run.stage(collect_demos, homes, config.demos)  # scripted expert → Parquet, one shard a home
    rounds = run.stage(federate, demos, config.training, config.strategy, config.federation)
    policy = run.stage(choose_round, rounds, homes, demos, config.evaluation)  # on homes held out for choosing
    others = run.stage(train_baselines, demos, config.training, config.federation.only(RoundsConfig), config.baselines)
    run.stage(evaluate, policy, others, homes, demos, config.evaluation)  # on homes nobody has seen


if __name__ == "__main__":
    run_job(flame)
