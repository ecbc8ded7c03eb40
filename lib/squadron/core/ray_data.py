"""Where executions of Ray Data are set up, and where Ray's libraries keep their files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from squadron.core.errors import WorkerError
from squadron.core.folder import Folder
from squadron.core.host import settle_worker
from squadron.core.profile import WorkerResources
from squadron.core.remote_store import open_store


def run_batches(
    batches: Sequence[dict[str, Any]],
    worker: Callable[..., dict[str, Any]] | type,
    arguments: tuple[Any, ...],
    workers: int,
    resources: WorkerResources,
) -> Iterator[dict[str, Any]]:
    """Hand every batch to a worker, and yield what it returned, in the order of completion.

    `worker` is a function, called as `worker(batch, *arguments)` in a Ray task, or a class: then each of `workers`
    actors builds one with `arguments` and calls it. It returns a dictionary of plain values. A batch whose worker dies
    is handed to another one, without end: the worker itself has to count attempts. Ray's errors pass through.
    """
    import ray.data

    quiet_ray_data()
    workers = min(workers, len(batches))
    tasks = ray.data.TaskPoolStrategy(workers)
    form: dict[str, Any] = {"fn": _call, "fn_args": (worker, *arguments), "compute": tasks}
    if isinstance(worker, type):
        actors = ray.data.ActorPoolStrategy(size=workers)
        form = {"fn": _Resident, "fn_constructor_args": (worker, arguments), "compute": actors}
    done = ray.data.from_items(list(batches), override_num_blocks=len(batches)).map_batches(
        **form,
        batch_size=1,
        num_cpus=resources.cpus,
        num_gpus=resources.gpus or None,
        memory=resources.memory_gb * 2**30 or None,
    )
    for batch in done.iter_batches(batch_size=1, prefetch_batches=0):
        yield {name: values[0] for name, values in batch.items()}


def ray_storage(folder: Folder) -> dict[str, Any]:
    """Where Ray Train and Ray Tune keep their files, in their words: behind a URL, by the driver of all other files."""
    if folder.path:
        return {"storage_path": folder.path}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem, path = open_store(folder.url)
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(filesystem))}


def quiet_ray_data() -> None:
    """Leave to the stage what Ray Data would do on its own.

    The stage has a progress bar of its own; Ray Data's logs still go to its log files. How long an item may take is
    the stage's to say as well: by default Ray Data ends an execution in which no batch was finished for half an hour.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.execution_no_progress_timeout_s = -1
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)


@contextlib.contextmanager
def explaining_lost_workers(stage: str) -> Iterator[None]:
    """Turn an error of Ray's into one that says what stopped and what to do."""
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        fix = "give the same command again: finished work is kept"
        raise WorkerError(f"the workers of {stage} stopped: {last[0]}", fix=fix) from error


def _call(batch: dict[str, Any], function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, list[Any]]:
    """A task. Ray Data's columns, of a batch and of what is returned, hold one value each."""
    settle_worker()
    return _on_columns(batch, function, *arguments)


def _on_columns(batch: dict[str, Any], function: Callable[..., Any], *arguments: Any) -> dict[str, list[Any]]:
    given = {name: values[0] for name, values in batch.items()}
    return {name: [value] for name, value in function(given, *arguments).items()}


class _Resident:
    """An actor, which builds its worker once."""

    def __init__(self, worker: Callable[..., Callable[..., dict[str, Any]]], arguments: tuple[Any, ...]) -> None:
        settle_worker()
        self._worker = worker(*arguments)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        return _on_columns(batch, self._worker)
