"""A job of one's own whose training takes two workers of Ray Train."""

from __future__ import annotations

import time

from squadron.core.config import Config
from squadron.core.job import job
from squadron.core.run import Run, Stage


class PairedConfig(Config):
    rate: float = 0.1


class Trained(Config):
    started: float
    ended: float


def work(config: dict[str, float]) -> None:
    """What both workers do."""
    from ray.train import get_context

    assert get_context().get_world_size() == 2
    time.sleep(0.5)


def train(stage: Stage, config: PairedConfig) -> Trained:
    """Train on two workers."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    stage.claim_cluster()
    workers, started = stage.claim_workers("training", 2), time.time()
    scaling = ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 1})
    DataParallelTrainer(
        work,
        train_loop_config={"rate": config.rate},
        scaling_config=scaling,
        run_config=RunConfig(name="train", storage_path=stage.folder.url),
    ).fit()
    stage.measure(loss=config.rate)
    return Trained(started=started, ended=time.time())


@job(PairedConfig, metrics={"loss": "min"})
def paired(run: Run, config: PairedConfig) -> None:
    """Two workers, together or not at all."""
    run.stage(train, config)
