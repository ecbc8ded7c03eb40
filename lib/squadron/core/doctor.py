"""Checks of an installation, each with what to do if it fails."""

from __future__ import annotations

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

OPTIONAL = {"transformers", "deepspeed", "vllm"}


def run(address: str | None) -> None:
    """Print every check with its outcome. Raises SquadronError if one failed."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("Python", _python),
        ("packages", _packages),
        ("machine", _machine),
        ("run folders", _folder),
        ("jobs", _jobs),
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


def _jobs() -> str:
    return ", ".join(registry.load_job(name).name for name in registry.list_jobs())


def _ray(address: str | None) -> str:
    import ray

    from squadron.core.cluster import connect

    started = time.monotonic()
    cluster = connect(address)
    answer = ray.get(ray.remote(num_cpus=0)(lambda: "answers").remote(), timeout=60)
    return f"{answer} after {time.monotonic() - started:.1f} s: {cluster}"
