"""What a run would do, and whether this machine can do it, without starting anything."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.core.job import Job
from squadron.core.profile import Profile
from squadron.core.run import Stage


class Pending:
    """Stands for the output of a stage that has not run yet."""


@dataclass
class Planner:
    """Walks a recipe as a `Run` would, and notes each stage instead of running it."""

    folder: Folder
    profile: Profile
    steps: list[tuple[str, str, str]] = field(default_factory=list)

    def stage(self, function: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        """Note the stage; hand on its output if an earlier run finished it, else a `Pending`."""
        purpose = (function.__doc__ or "").strip().partition("\n")[0]
        output, state = Pending(), "to do"
        if not any(map(_is_pending, (*inputs, *named.values()))):
            stage = Stage.of(self, function, inputs, named)  # type: ignore[arg-type]
            if stage.done:
                output = stage.kept(get_type_hints(function)["return"])
                state = f"{stage.rows_to_retry} rows to retry" if stage.rows_to_retry else "finished"
            elif stage.folder.exists("started.json"):
                state = "unfinished, goes on"
        self.steps.append((function.__name__, purpose, state))
        return output


def _is_pending(value: Any) -> bool:
    return any(map(_is_pending, value)) if isinstance(value, list | tuple) else isinstance(value, Pending)


@dataclass(frozen=True)
class Machine:
    """What this machine has. Sizes in GiB."""

    cpus: int
    memory_gb: float
    gpus: tuple[str, ...]
    disk_free_gb: float


def inspect_machine(folder: Folder) -> Machine:
    """CPUs and memory that this process may use, GPUs by name, and disk free where the run would live."""
    place = Path(folder.path or ".")
    while not place.exists():
        place = place.parent
    return Machine(
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=_memory_bytes() / 2**30,
        gpus=_gpu_names(),
        disk_free_gb=shutil.disk_usage(place).free / 2**30,
    )


def missing_modules(job: Job) -> list[str]:
    """Modules that the job's stages import and that are not installed."""
    return [name for name in job.requires if importlib.util.find_spec(name) is None]


def plan_stages(job: Job, config: Config, folder: Folder, profile: Profile) -> list[tuple[str, str, str]]:
    """Name, purpose and state of every stage of the recipe."""
    planner = Planner(folder, profile)
    job.recipe(planner, config)
    return planner.steps


def _memory_bytes() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def _gpu_names() -> tuple[str, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in lines if line.strip())
