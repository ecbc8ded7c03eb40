"""Memory and processors: what the kernel and its control groups allow, against what Ray counts on."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from squadron.cluster.doctor.finding import Finding, ok, warning

_GB = 2**30
_NO_OVERCOMMIT = 2
_ROUNDING_GB = 0.1
_MUCH_SWAP = 0.1  # of the memory


@dataclass(frozen=True)
class Counted:
    """What Ray takes a node to have."""

    cpus: float
    memory_gb: float
    object_store_gb: float


@dataclass(frozen=True)
class Memory:
    """What processes on a machine may use. Sizes in GiB."""

    total_gb: float
    limit_gb: float | None  # of the control group; None: none
    swap_used_gb: float
    overcommit: int  # vm.overcommit_memory
    shared_gb: float | None  # the size of /dev/shm; None: the system has none
    cpus: int  # on which this process may run
    quota: float | None  # CPUs' worth of time by the control group; None: no limit

    @property
    def usable_gb(self) -> float:
        return self.total_gb if self.limit_gb is None else min(self.total_gb, self.limit_gb)

    @property
    def usable_cpus(self) -> float:
        return self.cpus if self.quota is None else min(self.cpus, self.quota)


def find_memory() -> Memory:
    """Of this machine, for this process."""
    import psutil

    shared = Path("/dev/shm")
    return Memory(
        total_gb=psutil.virtual_memory().total / _GB,
        limit_gb=min(_memory_limits(), default=None),
        swap_used_gb=psutil.swap_memory().used / _GB,
        overcommit=_number(Path("/proc/sys/vm/overcommit_memory")) or 0,
        shared_gb=shutil.disk_usage(shared).total / _GB if shared.is_dir() else None,
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        quota=min(_quotas(), default=None),
    )


def check_memory(memory: Memory, counted: Counted | None) -> Finding:
    """Whether the kernel would end processes before Ray takes the memory to be full."""
    text = f"{memory.usable_gb:.0f} GiB"
    if memory.limit_gb is not None and memory.limit_gb < memory.total_gb:
        text += f", by a limit, of {memory.total_gb:.0f} GiB"
    if counted is None:
        return ok("memory", text)
    asked = counted.memory_gb + counted.object_store_gb
    if asked > memory.usable_gb + _ROUNDING_GB:
        store = math.floor(memory.usable_gb * 0.3)
        fix = (
            f"start the node with `ray start --memory={math.floor(memory.usable_gb * 0.65) * _GB} "
            f"--object-store-memory={max(store, 1) * _GB}`, or raise the limit of its container"
        )
        return warning("memory", f"{text}, but Ray counts on {asked:.0f} GiB: the kernel ends workers first", fix)
    return ok("memory", f"{text}; Ray counts on {asked:.1f} GiB")


def check_cpus(memory: Memory, counted: Counted | None) -> Finding:
    """Whether Ray hands out more processors than there are."""
    text = f"{memory.usable_cpus:g} CPUs"
    if memory.quota is not None and memory.quota < memory.cpus:
        text += f", by a quota, of {memory.cpus}"
    if counted is not None and counted.cpus > memory.usable_cpus + 0.5:
        fix = f"start the node with `ray start --num-cpus={max(1, math.floor(memory.usable_cpus))}`"
        return warning("CPUs", f"{text}, but Ray counts on {counted.cpus:g}: workers wait for each other", fix)
    return ok("CPUs", text)


def check_shared_memory(memory: Memory, counted: Counted | None) -> Finding:
    """Whether Ray's objects find room in shared memory; else they lie in files, and are read and written ten times
    slower."""
    if memory.shared_gb is None:
        return ok("shared memory", "the system has no /dev/shm; Ray maps files")
    wanted = counted.object_store_gb if counted else min(0.3 * memory.usable_gb, 200.0)
    text = f"/dev/shm has {memory.shared_gb:.1f} GiB, Ray's object store wants {wanted:.1f} GiB"
    if wanted > memory.shared_gb + _ROUNDING_GB:
        size = math.ceil(wanted * 1.1)
        fix = (
            f"`docker run --shm-size={size}g`; in Kubernetes mount an emptyDir of medium Memory at /dev/shm; "
            f"else `mount -o remount,size={size}G /dev/shm`"
        )
        return warning("shared memory", text, fix)
    return ok("shared memory", text)


def check_swap(memory: Memory) -> Finding:
    """Whether memory has been moved to disk: what is there is read a thousand times slower."""
    if memory.swap_used_gb > _MUCH_SWAP * memory.usable_gb:
        text = f"{memory.swap_used_gb:.1f} GiB lie in swap"
        return warning("swap", text, "end what is not needed, then `swapoff -a && swapon -a`; fewer workers need less")
    return ok("swap", f"{memory.swap_used_gb:.1f} GiB used" if memory.swap_used_gb else "none used")


def check_overcommit(memory: Memory) -> Finding:
    """Whether the kernel refuses memory that is only reserved, as forks and maps of large files do."""
    if memory.overcommit == _NO_OVERCOMMIT:
        text = "the kernel promises no more memory than there is: forks of large processes fail"
        return warning("overcommit", text, "sysctl vm.overcommit_memory=0")
    return ok("overcommit", "memory may be reserved beyond what there is")


def _memory_limits() -> Iterator[float]:
    """Limits of this process's control group and of all around it, in GiB. Ray reads that of the outermost alone."""
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            if (size := _number(folder / name)) is not None and size < 2**60:  # no limit is a very large one
                yield size / _GB


def _quotas() -> Iterator[float]:
    """CPUs' worth of time that control groups allow."""
    for folder in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                yield int(quota) / int(period)
        quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota_us and period_us and quota_us > 0:
            yield quota_us / period_us


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process is in, the innermost first, of both versions."""
    root = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            place = (root / controller if controllers else root) / path.lstrip("/")
            yield from (one for one in (place, *place.parents) if one == root or root in one.parents)
    yield from (root, root / controller)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
