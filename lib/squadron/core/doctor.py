"""Checks of an installation, each with what to do if it fails."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from squadron.core import console, registry
from squadron.core.errors import SquadronError
from squadron.core.folder import Folder
from squadron.core.manifest import PACKAGES, installed_version
from squadron.core.plan import inspect_machine
from squadron.core.ray_sessions import find_dead_sessions, temporary_root

OPTIONAL = {"transformers", "deepspeed", "vllm"}
_MUCH_MB = 1024
_LEAST_FILES = 1024
_LEAST_FREE_GB = 2  # Ray refuses tasks on a disk that is 95% full, and spills objects there


def run(address: str | None) -> None:
    """Print every check with its outcome. Raises SquadronError if one failed."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("machine", _machine),
        ("run folders", _folder),
        ("jobs", _jobs),
        ("temporary folder", _temporary),
        ("limits", _limits),
        ("sessions of Ray", _sessions),
        ("Ray", lambda: _ray(address)),
    ]
    failed = []
    for name, check in checks:
        try:
            console.say(f"[green]✓[/green] {name}: {console.plain(check())}")
        except (SquadronError, OSError) as error:
            failed.append(name)
            console.say(f"[red]✗[/red] {name}: {console.plain(str(error))}")
    if failed:
        raise SquadronError(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}", fix="see the lines marked ✗"
        )
    console.say("All is well. Try: squadron run flame")


def _python() -> str:
    return sys.version.split()[0]


def _packages() -> str:
    versions = {name: installed_version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if not version and name not in OPTIONAL]
    if versions["vllm"] and missing == ["flwr"]:
        return "all but flwr, which cannot live beside vLLM: federated jobs need an environment without the gpu extra"
    if missing:
        raise SquadronError(f"not installed: {', '.join(missing)}", fix=f"pip install {' '.join(missing)}")
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _machine() -> str:
    machine = inspect_machine(Folder("runs"))
    gpus = ", ".join(machine.gpus) or "no GPU"
    return (
        f"{machine.cpus} CPUs, {machine.memory_gb:.0f} GiB memory, {gpus}, {machine.disk_free_gb:.0f} GiB of disk free"
    )


def _folder() -> str:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        Folder(place).write_json("probe.json", {})
    return f"can be written in {Path.cwd()}"


def _temporary() -> str:
    """Where Ray, and libraries, put files that nobody keeps. Raises SquadronError if it is nearly full or read-only."""
    root = temporary_root()
    fix = "free some space there, or set TMPDIR (for Ray alone: RAY_TMPDIR) to another folder"
    try:
        with tempfile.TemporaryDirectory(dir=root):
            free_gb = shutil.disk_usage(root).free / 2**30
    except OSError as error:
        raise SquadronError(f"cannot be written: {error.strerror or error}", where=root, fix=fix) from None
    if free_gb < _LEAST_FREE_GB:
        raise SquadronError(f"only {free_gb:.1f} GiB are free", where=root, fix=fix)
    return f"{free_gb:.0f} GiB free in {root}"


def _limits() -> str:
    """Limits of this process that a run meets late. Raises SquadronError for one that is too low."""
    files, largest = resource.getrlimit(resource.RLIMIT_NOFILE)[0], resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY:
        what = f"files may be no larger than {largest / 2**20:,.0f} MiB"
        raise SquadronError(what, where="ulimit -f", fix="ulimit -f unlimited")
    if 0 <= files < _LEAST_FILES:
        what = f"no more than {files} files may be open"
        raise SquadronError(what, where="ulimit -n", fix="ulimit -n 65536")
    return "files of any size, " + ("any number open" if files < 0 else f"{files:,} open")


def _jobs() -> str:
    return ", ".join(registry.load_job(name).name for name in registry.list_jobs())


def _ray(address: str | None) -> str:
    import ray

    from squadron.core.cluster import connect

    started = time.monotonic()
    cluster = connect(address)
    answer = ray.get(ray.remote(num_cpus=0)(lambda: "answers").remote(), timeout=60)
    return f"{answer} after {time.monotonic() - started:.1f} s: {cluster}"


def _sessions() -> str:
    """Raises SquadronError if sessions that are over take more than a gigabyte."""
    dead = find_dead_sessions()
    size_mb = sum(one.size_mb() for one in dead)
    if size_mb > _MUCH_MB:
        raise SquadronError(
            f"{len(dead)} sessions of Ray that are over take {size_mb:,.0f} MiB",
            where=str(dead[0].path.parent),
            fix=f"rm -r {' '.join(str(one.path) for one in dead)}",
        )
    return f"{len(dead)} that are over, {size_mb:,.0f} MiB" if dead else "none is left over"
