"""The worker's side of an actor pool: the actor around one worker object, its memory and its log."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from squadron.core.masking import mask_logs, mask_text

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_HEAP_BLOCK, _KEPT_FREE = 32 * 1024**2, 512 * 1024**2  # bytes; glibc allows no larger block
_SPINS = "10000"
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Host:
    """The actor around one worker object. Errors travel as text, so no exception has to be unpickled."""

    def __init__(self, factory: bytes, threads: int, paths: list[str]) -> None:
        sys.path += [path for path in paths if path not in sys.path]  # so that modules next to the script are found
        use_threads(threads)  # before the factory's imports: numerical libraries read the variables once
        mask_logs()
        self._factory, self._threads, self._worker = factory, threads, None
        reuse_freed_memory()

    def start(self) -> tuple[bool, Any]:
        """Make the worker and say where it runs, or why it could not be made."""
        try:
            self._worker = cloudpickle.loads(self._factory)()
        except Exception:
            return False, mask_text(traceback.format_exc())
        use_threads(self._threads)
        context = ray.get_runtime_context()
        logs = [os.readlink(f"/proc/self/fd/{fd}") if os.path.islink(f"/proc/self/fd/{fd}") else "" for fd in (1, 2)]
        address = ray.util.get_node_ip_address()
        return True, {"pid": os.getpid(), "node_id": context.get_node_id(), "address": address, "logs": logs}

    def call(self, method: str, args: tuple[Any, ...]) -> tuple[bool, Any]:
        try:
            return True, getattr(self._worker, method)(*args)
        except Exception:
            return False, mask_text(traceback.format_exc())


def use_threads(count: int) -> None:
    """Compute with so many threads in this process. Ray's num_cpus only counts; it binds nothing itself.

    Threads that wait for each other spin for half a millisecond at most before they sleep: by GNU OpenMP's own default
    for ten times as long and more, in which time they hold the cores that the others wait for. What the user has set
    in the environment holds.
    """
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(count)))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def settle_worker() -> None:
    """Give this Ray worker the threads that were reserved for it, so that workers do not crowd each other."""
    use_threads(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))))
    reuse_freed_memory()


def end_with_parent() -> None:
    """Ask Linux to kill this process when the thread that started it ends. Nothing happens elsewhere."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def reuse_freed_memory() -> None:
    """Let this process keep the large blocks that it frees for its next ones.

    By default glibc hands them back to the kernel and takes new, zeroed pages each time, which costs a small network
    a third of its training step. Nothing happens where there is no glibc, or the user has set MALLOC_ variables.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)


def last_lines(about: dict[str, Any], count: int) -> tuple[str, ...]:
    """The last lines that a worker wrote, read on its own node; empty if the node is gone."""
    if about["node_id"] == ray.get_runtime_context().get_node_id():
        return _tail(about["logs"], count)
    there = NodeAffinitySchedulingStrategy(about["node_id"], soft=False)
    tail = ray.remote(num_cpus=0, max_retries=0)(_tail).options(scheduling_strategy=there)
    try:
        lines: tuple[str, ...] = ray.get(tail.remote(about["logs"], count), timeout=10)
        return lines
    except RayError:
        return ()


def _tail(paths: list[str], count: int) -> tuple[str, ...]:
    lines: list[str] = []
    for path in paths:
        with contextlib.suppress(OSError):
            text = Path(path).read_text(errors="replace") if os.path.isfile(path) else ""
            # Ray marks task boundaries with lines of its own that begin with colons.
            lines += [line for line in text.splitlines() if line.strip() and not line.startswith(":")][-count:]
    return tuple(map(mask_text, lines[-count:]))


def oom_kills() -> int:
    """How many processes the kernel has killed on this machine for want of memory."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
