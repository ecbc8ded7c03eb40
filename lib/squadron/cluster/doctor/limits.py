"""Limits of a process that a run meets late."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from squadron.cluster.doctor.finding import Finding, failed, ok, warning

_LEAST_FILES, _GOOD_FILES = 1024, 4096
_LEAST_PROCESSES = 4096  # threads count as processes, and a worker of Ray has dozens
_LEAST_LOCKED_MB = 64
_INFINITE = resource.RLIM_INFINITY


@dataclass(frozen=True)
class Limits:
    """Soft limits of a process; None: there is none. Sizes in MiB."""

    open_files: int | None
    file_mb: float | None
    processes: int | None
    locked_mb: float | None
    infiniband: bool


def find_limits() -> Limits:
    """Of this process, and so of what it starts."""

    def soft(which: int) -> int | None:
        value = resource.getrlimit(which)[0]
        return None if value == _INFINITE else value

    size, locked = soft(resource.RLIMIT_FSIZE), soft(resource.RLIMIT_MEMLOCK)
    return Limits(
        open_files=soft(resource.RLIMIT_NOFILE),
        file_mb=None if size is None else size / 2**20,
        processes=None if os.geteuid() == 0 else soft(resource.RLIMIT_NPROC),  # root is not held to it
        locked_mb=None if locked is None else locked / 2**20,
        infiniband=os.path.isdir("/dev/infiniband"),
    )


def check_open_files(limits: Limits) -> Finding:
    """Ray holds a socket for each worker and each other node."""
    files, fix = limits.open_files, "ulimit -n 65536"
    if files is None:
        return ok("open files", "any number")
    if files < _LEAST_FILES:
        return failed("open files", f"no more than {files} files may be open", fix)
    if files < _GOOD_FILES:
        return warning("open files", f"no more than {files} files may be open: enough for some dozen workers", fix)
    return ok("open files", f"{files:,}")


def check_file_size(limits: Limits) -> Finding:
    """Models and datasets are files of gigabytes."""
    if limits.file_mb is not None:
        text = f"files may be no larger than {limits.file_mb:,.0f} MiB"
        return failed("largest file", text, "ulimit -f unlimited")
    return ok("largest file", "of any size")


def check_processes(limits: Limits) -> Finding:
    """Each worker is a process of dozens of threads, which the kernel counts alike."""
    if limits.processes is not None and limits.processes < _LEAST_PROCESSES:
        text = f"no more than {limits.processes} processes and threads may run"
        return warning("processes", text, f"ulimit -u {16 * _LEAST_PROCESSES}")
    return ok("processes", "any number" if limits.processes is None else f"{limits.processes:,}")


def check_locked_memory(limits: Limits) -> Finding:
    """NCCL locks the buffers that an InfiniBand card reads by itself."""
    if limits.infiniband and limits.locked_mb is not None and limits.locked_mb < _LEAST_LOCKED_MB:
        text = f"InfiniBand is there, but only {limits.locked_mb:.1f} MiB may be locked"
        return warning("locked memory", text, "ulimit -l unlimited; `docker run --ulimit memlock=-1`")
    return ok("locked memory", "no limit" if limits.locked_mb is None else f"{limits.locked_mb:,.0f} MiB")
