"""Room on disk: Ray's temporary folder, what sessions have left, and caches."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from squadron.cluster.doctor.finding import Finding, failed, ok, warning
from squadron.core.ray_sessions import find_dead_sessions, temporary_root
from squadron.core.user_cache import user_cache

_GB, _MB = 2**30, 2**20
_LEAST_FREE_GB = 2.0  # Ray refuses tasks on a disk that is 95% full, and spills objects there
_MUCH_MB = 1024.0
_MUCH_CACHE_GB = 50.0
_COUNTING_S = 1.0


@dataclass(frozen=True)
class Disk:
    """What this user's files take. Sizes in GiB, of sessions in MiB."""

    root: str  # where Ray, and libraries, put files that nobody keeps
    error: str  # why nothing can be written there
    free_gb: float
    free_names: float | None  # the share of files that the disk can still hold; None: it does not count them
    sessions: Sequence[str]  # folders of Ray's sessions that are over
    sessions_mb: float
    caches: Mapping[str, float]  # folders, and what they take at least


def find_disk() -> Disk:
    """Of this machine and user."""
    root, error, free, names = temporary_root(), "", 0.0, None
    try:
        with tempfile.TemporaryDirectory(dir=root):
            free = shutil.disk_usage(root).free / _GB
            counts = os.statvfs(root)
            names = counts.f_favail / counts.f_files if counts.f_files else None
    except OSError as failure:
        error = failure.strerror or str(failure)
    dead = find_dead_sessions()
    return Disk(
        root, error, free, names, [str(one.path) for one in dead], sum(one.size_mb() for one in dead), _caches()
    )


def check_temporary(disk: Disk) -> Finding:
    """Whether Ray can write its files."""
    fix = "free some space there, or set TMPDIR (for Ray alone: RAY_TMPDIR) to another folder"
    if disk.error:
        return failed("temporary folder", f"{disk.root} cannot be written: {disk.error}", fix)
    if disk.free_gb < _LEAST_FREE_GB:
        return failed("temporary folder", f"only {disk.free_gb:.1f} GiB are free in {disk.root}", fix)
    if disk.free_names is not None and disk.free_names < 0.01:
        return failed("temporary folder", f"{disk.root} can hold no more files, however small", fix)
    return ok("temporary folder", f"{disk.free_gb:.0f} GiB free in {disk.root}")


def check_sessions(disk: Disk) -> Finding:
    """Whether sessions of Ray that are over take more than a gigabyte."""
    if not disk.sessions:
        return ok("sessions of Ray", "none is left over")
    text = f"{len(disk.sessions)} that are over, {disk.sessions_mb:,.0f} MiB"
    if disk.sessions_mb > _MUCH_MB:
        return warning("sessions of Ray", text, f"rm -r {' '.join(disk.sessions)}")
    return ok("sessions of Ray", text)


def check_caches(disk: Disk) -> Finding:
    """Whether models and vectors that could be fetched or computed again take much."""
    total = sum(disk.caches.values())
    if total > _MUCH_CACHE_GB:
        largest = max(disk.caches, key=lambda place: disk.caches[place])
        text = f"{total:.0f} GiB at least, most in {largest}"
        return warning("caches", text, f"rm -r {largest}, which is made again when it is needed")
    told = [f"{size:.1f} GiB in {place}" for place, size in disk.caches.items()]
    return ok("caches", ", ".join(told) or "none yet")


def _caches() -> dict[str, float]:
    private = os.path.join(tempfile.gettempdir(), f"squadron-{os.geteuid()}")
    hub = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    places = [Path(user_cache("models").path).parent, Path(private), Path(hub)]
    until = time.monotonic() + _COUNTING_S
    return {str(place): _size(place, until) / _GB for place in places if place.is_dir()}


def _size(place: Path, until: float) -> int:
    """Bytes of the files in a folder, as far as they can be counted in time."""
    total = 0
    for folder, _, files in os.walk(place):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
        if time.monotonic() > until:
            break
    return total
