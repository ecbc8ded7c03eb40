"""Where workers of a training come from: a group by Ray Train, or one task where a single worker is all it takes.

Ray Train brings a controller and three helpers of its own, which costs a CPU worker fifteen seconds before its first
step; a single worker without a GPU has nobody to be grouped with. Its process may have trained before, and then has
loaded its libraries already.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from typing import Any

import ray

from squadron.core.disk_errors import explain_disk_error
from squadron.core.errors import SquadronError
from squadron.core.host import reuse_freed_memory, use_threads
from squadron.core.masking import mask_text
from squadron.core.profile import WorkerResources
from squadron.core.ray_data import ray_storage
from squadron.train.guard import TrainingStopped
from squadron.train.worker import Training, train


def in_group(training: Training, mailbox: Any, workers: int, resources: WorkerResources) -> Callable[[], Any]:
    """A call that trains by Ray Train, starting the group again up to `guard.max_restarts` times."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray's watcher of preempted nodes is a process more for each run, and tells workers what ours do not listen to:
    # a lost worker is started again from its checkpoint.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    cuda = resources.gpus > 0
    share = {"CPU": resources.cpus, **({"GPU": resources.gpus} if cuda else {})}
    if resources.memory_gb:
        share["memory"] = resources.memory_gb * 1024**3
    trainer = TorchTrainer(
        _of_group,
        train_loop_config={"training": training, "mailbox": mailbox, "cpus": resources.cpus},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=cuda, resources_per_worker=share),
        torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
        run_config=RunConfig(
            name="ray-train",
            **ray_storage(training.store),
            failure_config=FailureConfig(max_failures=training.spec.guard.max_restarts),
        ),
    )
    return trainer.fit


class Alone:
    """A call that trains in one task, starting it again up to `guard.max_restarts` times."""

    def __init__(self, training: Training, mailbox: Any, resources: WorkerResources) -> None:
        self._training, self._mailbox, self._resources = training, mailbox, resources
        self._attempt: ray.ObjectRef | None = None
        self._stopped = False

    def __call__(self) -> None:
        """Raises what the last attempt ended with: ray.exceptions.RayError."""
        resources, error = self._resources, None
        memory = {"memory": resources.memory_gb * 1024**3} if resources.memory_gb else {}
        work: Any = ray.remote(num_cpus=resources.cpus, max_retries=0)(_alone)
        for _ in range(self._training.spec.guard.max_restarts + 1):
            self._attempt = work.options(**memory).remote(self._training, self._mailbox, resources.cpus)
            try:
                ray.get(self._attempt)
                return
            except ray.exceptions.RayError as failed:
                error = failed
            if self._stopped:
                break
        assert error is not None
        raise error

    def stop(self) -> None:
        """End the worker, and start no other."""
        self._stopped = True
        if self._attempt is not None:
            ray.cancel(self._attempt, force=True)


def join_alone() -> None:
    """Make this process the only one of its group."""
    import torch

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}  # DeepSpeed reads them
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


def _alone(training: Training, mailbox: Any, cpus: float) -> None:
    join_alone()
    _work(training, mailbox, cpus, 0, 1)


def _of_group(config: dict[str, Any]) -> None:
    """The function that Ray Train runs on every worker."""
    from ray.train import get_context

    context = get_context()
    _work(**config, rank=context.get_world_rank(), workers=context.get_world_size())


def _work(training: Training, mailbox: Any, cpus: float, rank: int, workers: int) -> None:
    import torch

    attempt, go = ray.get(mailbox.start.remote(workers))
    if not go:
        return
    cuda = torch.cuda.is_available() and torch.distributed.get_backend() == "nccl"
    if not cuda:
        use_threads(max(1, int(cpus)))
        reuse_freed_memory()
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")

    def report(step: int, metrics: dict[str, float]) -> None:
        mailbox.step.remote(step, metrics)

    def warn(text: str) -> None:
        mailbox.warn.remote(text)

    try:
        train(training, rank, workers, device, report, warn)
    except SquadronError as error:
        if rank == 0 or not isinstance(error, TrainingStopped):
            ray.get(mailbox.refuse.remote(type(error).__name__, error.what, error.where, error.fix))
        if not isinstance(error, TrainingStopped):
            raise  # the others may be waiting for this worker
    except Exception as error:
        if told := explain_disk_error(error):
            where = told.where or training.store.url
            ray.get(mailbox.refuse.remote(type(told).__name__, told.what, where, told.fix))
        elif not _lost_a_peer(error):
            ray.get(mailbox.error.remote(attempt, rank, mask_text(traceback.format_exc())))
        if workers > 1:
            time.sleep(1)  # let the others' reports arrive before the group is taken down
        raise


def _lost_a_peer(error: Exception) -> bool:
    """Whether this is what the other workers see when one of them is gone."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or "gloo" in text or "nccl" in text
