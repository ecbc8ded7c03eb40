"""On how many workers, and on what share of a node each, a job trains: from its profile and the cluster."""

from __future__ import annotations

import math

from squadron.core.profile import WorkerResources
from squadron.core.run import Stage
from squadron.train.spec import TrainSpec


def place(stage: Stage, spec: TrainSpec) -> tuple[int, WorkerResources]:
    """As many workers as the profile asks for; else one a card, or one a node where there is none.

    Not asked for a number, it takes the largest that the batch can be dealt out to. Waits until they find room
    together. Raises ResourceError if the cluster cannot hold the workers, or has no room for them in `wait_s` of the
    profile; ConfigError if the batch cannot be dealt out to as many as were asked for.
    """
    cluster, profile = stage.claim_cluster(), stage.run.profile
    share = profile.trainer
    if share is None:
        node = max(cluster.nodes, key=lambda node: (node.gpus, node.cpus))
        parts = int(node.gpus) or math.ceil((profile.workers or 1) / len(cluster.nodes))
        share = WorkerResources(cpus=max(1, node.cpus // parts), gpus=min(1, node.gpus))
    count = profile.trainers or max(1, cluster.fit(share, profile.max_workers))
    cluster.require(count, share, "training", profile.wait_s)
    if profile.workers is None:
        count = spec.most_workers(count)
    spec.accumulation(count)
    cluster.gather(count, share, "training", profile.wait_s)
    return count, share
