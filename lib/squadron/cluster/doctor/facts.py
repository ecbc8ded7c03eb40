"""All facts of one machine, and the checks of them."""

from __future__ import annotations

from dataclasses import dataclass

from squadron.cluster.doctor.disk import Disk, check_caches, check_sessions, check_temporary, find_disk
from squadron.cluster.doctor.finding import Finding
from squadron.cluster.doctor.gpus import Gpus, check_gpus, find_gpus
from squadron.cluster.doctor.installation import Installation, check_packages, find_installation
from squadron.cluster.doctor.limits import (
    Limits,
    check_file_size,
    check_locked_memory,
    check_open_files,
    check_processes,
    find_limits,
)
from squadron.cluster.doctor.memory import (
    Counted,
    Memory,
    check_cpus,
    check_memory,
    check_overcommit,
    check_shared_memory,
    check_swap,
    find_memory,
)
from squadron.cluster.doctor.network import Listener, check_listeners, find_listeners


@dataclass(frozen=True)
class Facts:
    """What a machine tells of itself."""

    installation: Installation
    memory: Memory
    limits: Limits
    gpus: Gpus
    disk: Disk
    listeners: tuple[Listener, ...]


def find_facts() -> Facts:
    """Of this machine, as this process sees it. Takes about a second."""
    return Facts(find_installation(), find_memory(), find_limits(), find_gpus(), find_disk(), find_listeners())


def check_facts(facts: Facts, counted: Counted | None, gpus: float | None, strict: bool) -> list[Finding]:
    """All findings of one machine. `counted` and `gpus` are what Ray takes it to have, if one runs there; `strict`
    where it belongs to a cluster."""
    return [
        check_packages(facts.installation),
        check_cpus(facts.memory, counted),
        check_memory(facts.memory, counted),
        check_shared_memory(facts.memory, counted),
        check_swap(facts.memory),
        check_overcommit(facts.memory),
        check_gpus(facts.gpus, gpus),
        check_open_files(facts.limits),
        check_file_size(facts.limits),
        check_processes(facts.limits),
        check_locked_memory(facts.limits),
        check_temporary(facts.disk),
        check_sessions(facts.disk),
        check_caches(facts.disk),
        check_listeners(facts.listeners, strict),
    ]
