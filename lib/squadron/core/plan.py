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

from pydantic import BaseModel

from squadron.core.config import Config, tells_class
from squadron.core.folder import Folder
from squadron.core.inputs import find_inputs, recall, walk_settings
from squadron.core.job import Estimate, Job
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
    estimates: list[Estimate] = field(default_factory=list)

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
        estimate = getattr(function, "estimate", None)
        if estimate is not None and estimate not in self.estimates:
            self.estimates.append(estimate)
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


def plan_stages(job: Job, config: Config, folder: Folder, profile: Profile) -> Planner:
    """Walk the recipe: name, purpose and state of every stage, and what the stages estimate."""
    recall(folder)
    planner = Planner(folder, profile)
    job.recipe(planner, config)
    return planner


def differing(config: BaseModel, default: BaseModel | None = None) -> dict[str, Any]:
    """The settings, nested as they are, that differ from a default of the same class, or from the class's own defaults:
    with these alone in a file, the configuration is the same."""
    found, dumped = {}, config.model_dump(mode="json")
    for name, declared in type(config).model_fields.items():
        value = getattr(config, name)
        usual = getattr(default, name) if default else declared.get_default(call_default_factory=True)
        if value != usual or (default is None and (declared.is_required() or tells_class(declared))):
            same = isinstance(usual, BaseModel) and type(value) is type(usual)
            found[name] = differing(value, usual if same else None) if isinstance(value, BaseModel) else dumped[name]
    return found


def find_missing(job: Job, config: Config, profile: Profile, machine: Machine) -> list[str]:
    """What the job needs and this machine lacks: modules, files, models, keys, processors."""
    missing = [
        f"the Python module {name} (pip install it)" for name in job.requires if importlib.util.find_spec(name) is None
    ]
    missing += [f"{path}, which {key} names" for key, path in find_inputs(config) if path.is_missing]
    missing += [
        f"the environment variable {name}, which {key} names"
        for key, name in walk_settings(config)
        if key.endswith("_env") and name and not os.environ.get(name, "").strip()
    ]
    if profile.worker.gpus and not machine.gpus:
        missing.append("a GPU, which this profile asks for; connect to a cluster that has one, or use --profile auto")
    if profile.worker.cpus > machine.cpus:
        missing.append(f"{profile.worker.cpus:g} CPUs for one worker; here are {machine.cpus}")
    return missing


def from_hubs(config: Config) -> list[str]:
    """Names of models and data sets that are neither files of this machine nor URLs: a hub is asked for them."""
    paths = [path for _, path in find_inputs(config)]
    return sorted({str(path) for path in paths if not (path.is_local or path.is_missing or "://" in path)})


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
