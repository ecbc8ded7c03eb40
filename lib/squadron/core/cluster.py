"""The connection to Ray: this machine, a cluster by address, or the cluster that a submitted job runs on."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from squadron.core.ending import keeping_handlers
from squadron.core.errors import InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.gang import Room, await_room, describe, grows
from squadron.core.placement import Wanted, fit, pack
from squadron.core.profile import WAIT_S, Profile, WorkerResources
from squadron.core.ray_sessions import remove_dead_sessions, temporary_root

_GB = 1024**3
# That long an idle process is kept. Ray's one second loses all that it has imported and loaded: ten with a model.
_WARM_S = 60


@dataclass(frozen=True)
class Node:
    """One machine of the cluster with all that it has, whether in use or not."""

    id: str
    address: str
    cpus: float
    gpus: float
    memory_gb: float

    def fit(self, resources: WorkerResources) -> int:
        """How many workers of this size the whole node holds."""
        return fit(self, resources)

    def __str__(self) -> str:
        return f"{self.address}: {describe(self.cpus, self.gpus, self.memory_gb)}"


@dataclass(frozen=True)
class Cluster:
    """The cluster that this process is connected to, as it is at the moment of asking; or a `share` of it, where
    several runs work side by side, each as if it had a smaller cluster to itself."""

    share: tuple[Node, ...] | None = None

    def __str__(self) -> str:
        count = len(self.nodes)
        return f"{count} node{'s' * (count > 1)}, {self.cpus:g} CPUs, {self.gpus:g} GPUs"

    @property
    def nodes(self) -> list[Node]:
        """Live nodes, sorted by address."""
        if self.share is not None:
            return list(self.share)
        return sorted(
            (
                Node(
                    id=entry["NodeID"],
                    address=entry["NodeManagerAddress"],
                    cpus=entry["Resources"].get("CPU", 0.0),
                    gpus=entry["Resources"].get("GPU", 0.0),
                    memory_gb=entry["Resources"].get("memory", 0.0) / _GB,
                )
                for entry in ray.nodes()
                if entry["Alive"]
            ),
            key=lambda node: (node.address, node.id),
        )

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    @property
    def memory_gb(self) -> float:
        return sum(node.memory_gb for node in self.nodes)

    def fit(self, resources: WorkerResources, max_workers: int | None = None) -> int:
        """How many workers of this size the cluster holds, node by node, at most `max_workers`."""
        count = sum(node.fit(resources) for node in self.nodes)
        return count if max_workers is None else min(count, max_workers)

    def room(self, profile: Profile) -> int:
        """How many workers of a profile to start: as many as fit here, or on its machines if they can be added."""
        here = self.fit(profile.worker, profile.max_workers)
        if profile.cpus is None or self.share is not None or not grows():
            return here
        machine = Room(profile.cpus, profile.cards or 0, profile.memory_gb or 0)
        planned = profile.nodes * fit(machine, profile.worker)
        return max(here, min(planned, profile.max_workers or planned))

    def require(self, count: int, resources: WorkerResources, purpose: str, wait_s: float = WAIT_S) -> None:
        """Raise ResourceError at once if `count` workers of this size can never run together here.

        A cluster that can grow is asked to, and has `wait_s` for it.
        """
        room = self.fit(resources)
        if room >= count:
            return
        if self.share is None and grows():
            return await_room(count, resources, purpose, wait_s)
        asked = describe(resources.cpus, resources.gpus, resources.memory_gb)
        plural = "" if count == 1 else "s"
        advice = f"set max_workers to {room}" if room else "lower the worker's cpus, gpus or memory_gb"
        raise ResourceError(
            f"{purpose} asks for {count} worker{plural} of {asked} each; there is room for {room}",
            where="; ".join(str(node) for node in self.nodes),
            fix=f"{advice} in the profile (--profile), or add nodes to the cluster",
        )

    def gather(self, count: int, resources: WorkerResources, purpose: str, wait_s: float) -> None:
        """As `require`, and wait until as much is free: for workers that need each other from their first moment.

        Raises ResourceError after `wait_s`, with what is free on each node.
        """
        self.require(count, resources, purpose, wait_s)
        await_room(count, resources, purpose, wait_s)

    def require_together(self, wanted: Sequence[Wanted]) -> None:
        """Raise ResourceError at once if all these workers can never run at the same time here."""
        for one in wanted:
            self.require(one.count, one.resources, one.purpose)
        nodes = self.nodes
        placed = pack(nodes, wanted)
        left_out = [(one, count) for one, count in zip(wanted, placed, strict=True) if count < one.count]
        if not left_out:
            return
        shares = [(one.resources, one.count) for one in wanted]
        cpus, gpus, memory_gb = (
            sum(count * getattr(share, name) for share, count in shares) for name in ("cpus", "gpus", "memory_gb")
        )
        lacking = ", ".join(f"{one.purpose} ({count} of {one.count} fit)" for one, count in left_out)
        raise ResourceError(
            f"all together ask for {describe(cpus, gpus, memory_gb)}; there is no room for {lacking}",
            where="; ".join(str(node) for node in nodes),
            fix="leave some out, lower their number or share, or add nodes to the cluster",
        )


def connect(
    address: str | None = None,
    cpus: int | None = None,
    *,
    dashboard: bool = False,
    worker_logs: bool = False,
    runtime_env: dict[str, Any] | None = None,
) -> Cluster:
    """Connect this process to Ray and return the cluster. A second call returns the same connection.

    `address` is a cluster's address or "auto". Without one, the cluster named by RAY_ADDRESS is used, which is
    what a submitted job finds in its environment; failing that, Ray starts on this machine with `cpus` CPUs
    (None: all of them). `dashboard` starts Ray's dashboard and state service, which Ray Train needs.
    `worker_logs` prints what workers print. `runtime_env` is what its workers shall find (Ray's own term).

    Raises ResourceError if the cluster at `address` does not answer, or Ray cannot write its files on this machine.
    """
    if ray.is_initialized():
        return Cluster()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    _probe(address)
    if address == "local":
        forget_gone_cluster()
        remove_dead_sessions()
        os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(1000 * _WARM_S))
    local: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": dashboard} if address == "local" else {}
    if runtime_env:
        local["runtime_env"] = runtime_env
    try:
        with keeping_handlers():
            ray.init(address=address, log_to_driver=worker_logs, logging_level=logging.ERROR, **local)
    except (ConnectionError, TimeoutError) as error:
        raise _no_answer(address, error) from error
    except (OSError, ValueError) as error:
        told = _no_start(error)
        if told is None:
            raise
        raise told from error
    return Cluster()


def check_shared(folder: Folder, timeout_s: float = 60) -> None:
    """Make sure that every node of the cluster sees `folder`.

    Raises InputError naming the nodes that do not. One node alone sees its own disk and is not asked, and one that is
    lost meanwhile need not see it.
    """
    nodes = Cluster().nodes
    if len(nodes) < 2:
        return
    token, name = uuid.uuid4().hex, f".shared-{uuid.uuid4().hex[:8]}"
    folder.write_bytes(name, token.encode())
    try:
        sees = ray.remote(num_cpus=0, max_retries=0)(_sees)
        asked = {
            sees.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
                folder.url, name, token
            ): node
            for node in nodes
        }
        done, late = ray.wait(list(asked), num_returns=len(asked), timeout=timeout_s)
        blind = [asked[ref] for ref in late] + [asked[ref] for ref in done if not _answer(ref)]
        alive = {node.id for node in Cluster().nodes}
        blind = [node for node in blind if node.id in alive]
    finally:
        folder.remove(name)
    if blind:
        raise InputError(
            f"{len(blind)} of {len(nodes)} nodes cannot see the run folder {folder.url}",
            where=", ".join(sorted(node.address for node in blind)),
            fix="give a folder that all nodes share: a network disk, or a URL such as s3://bucket/runs",
        )


def _probe(address: str) -> None:
    """Ray ends the whole process where no cluster answers, after a minute; find out first."""
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise _no_answer(address, error) from error


def forget_gone_cluster() -> None:
    """Remove the note that a cluster which is gone, by a crash, has left on this machine.

    By that note Ray's helpers find the cluster; with it, each run of Ray Train waits twelve seconds at its end for one
    that asks in vain.
    """
    note = os.path.join(temporary_root(), "ray", "ray_current_cluster")
    with contextlib.suppress(OSError):
        with open(note) as file:
            address = file.read().strip()
        try:
            _probe(address)
        except ResourceError:
            os.remove(note)


def _no_answer(address: str, error: Exception) -> ResourceError:
    fix = "start one with `ray start --head`, correct RAY_ADDRESS, or unset it to use this machine"
    return ResourceError(f"no Ray cluster answers: {error}", where=f"address {address}", fix=fix)


def _no_start(error: Exception) -> ResourceError | None:
    """Why Ray cannot start here: its folder cannot be written, or is so deep that no socket can be made in it. None for
    another error."""
    root = os.path.join(temporary_root(), "ray")
    if "AF_UNIX" in str(error):
        fix = "set RAY_TMPDIR to a shorter path, such as /tmp"
        return ResourceError("the path of Ray's files is too long for its sockets", where=root, fix=fix)
    if not isinstance(error, OSError):
        return None
    what = f"Ray cannot write its files: {error.strerror or error}"
    fix = "free some space there, or set RAY_TMPDIR to a folder that can be written"
    return ResourceError(what, where=error.filename or root, fix=fix)


def _sees(url: str, name: str, token: str) -> bool:
    folder = Folder(url)
    return folder.exists(name) and folder.read_bytes(name).decode() == token


def _answer(ref: ray.ObjectRef) -> bool:
    try:
        return bool(ray.get(ref, timeout=10))
    except Exception:  # a node that cannot even run the check does not see the folder
        return False
