"""Waiting until workers find room together: other work on the cluster ends, or its autoscaler adds machines.

Workers that start one by one as room comes can hold a part of what they need and wait forever for the rest. So room is
asked for as a whole, by a placement group, which Ray fills all at once or not at all, and which its autoscaler counts
as demand. It is given up as soon as it is there, for whoever starts the workers reserves it again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from squadron.core import console
from squadron.core.errors import ResourceError
from squadron.core.placement import fit
from squadron.core.profile import WorkerResources

_GB = 1024**3
_LOOK_S = 1.0
_REPLY_S = 30
_FIX = "lower --workers, end other work, or add nodes; --wait-s says how long to wait"


@dataclass(frozen=True)
class Room:
    """What a node has, or what of it is free. Memory in GiB."""

    cpus: float
    gpus: float
    memory_gb: float

    @staticmethod
    def of(resources: Mapping[str, float]) -> Room:
        """From Ray's names and units."""
        return Room(resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", 0.0) / _GB)

    def __str__(self) -> str:
        return describe(self.cpus, self.gpus, self.memory_gb)


def describe(cpus: float, gpus: float, memory_gb: float) -> str:
    """Amounts in words: "8 CPUs, 1 GPU"."""
    parts = [f"{cpus:g} CPU{'' if cpus == 1 else 's'}"]
    if gpus:
        parts.append(f"{gpus:g} GPU{'' if gpus == 1 else 's'}")
    if memory_gb:
        parts.append(f"{memory_gb:.3g} GB of memory")
    return ", ".join(parts)


def grows() -> bool:
    """Whether the cluster that this process is connected to has an autoscaler that may add machines: Ray's second one,
    as KubeRay's clusters and those of `cluster/` have it."""
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    return bool(is_autoscaler_v2(fetch_from_server=True))


def await_room(count: int, resources: WorkerResources, purpose: str, timeout_s: float) -> None:
    """Return when `count` workers of this size find room at the same time.

    Raises ResourceError, with what is free on each node, if that is not so after `timeout_s`, or as soon as the
    autoscaler says that it has no machines for them.
    """
    if _free_room(resources) >= count:
        return
    from ray.util.placement_group import placement_group, remove_placement_group

    started = time.monotonic()
    wanted = f"{count} worker{'' if count == 1 else 's'} of {_amounts(resources)} each"
    console.say(f"[dim]{purpose} waits for room for {wanted}, {timeout_s:g} s at most[/dim]")
    group = placement_group([_bundle(resources)] * count, strategy="PACK")
    try:
        while not group.wait(min(_LOOK_S, timeout_s)):
            late = time.monotonic() - started >= timeout_s
            # Of one that is busy with other work the autoscaler says it too; that work ends.
            if late or (_whole_room(resources) < count and _is_infeasible(group.id.hex())):
                raise _no_room(wanted, resources, purpose, time.monotonic() - started if late else None)
    finally:
        remove_placement_group(group)
    console.say(f"[dim]room for {purpose} after {time.monotonic() - started:.0f} s[/dim]")


def free_by_node() -> list[tuple[str, Room, Room]]:
    """Address, what is free and what there is, of every live node."""
    import ray
    from ray._private.state import available_resources_per_node

    free: dict[str, dict[str, float]] = available_resources_per_node()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [
        (node["NodeManagerAddress"], Room.of(free.get(node["NodeID"], {})), Room.of(node["Resources"]))
        for node in sorted(nodes, key=lambda node: (node["NodeManagerAddress"], node["NodeID"]))
    ]


def _free_room(resources: WorkerResources) -> int:
    return sum(fit(free, resources) for _, free, _ in free_by_node())


def _whole_room(resources: WorkerResources) -> int:
    return sum(fit(whole, resources) for _, _, whole in free_by_node())


def _no_room(wanted: str, resources: WorkerResources, purpose: str, waited_s: float | None) -> ResourceError:
    nodes = free_by_node()
    room = sum(fit(free, resources) for _, free, _ in nodes)
    why = "the autoscaler has no machines for them" if waited_s is None else f"after {waited_s:.0f} s"
    there = "; ".join(
        f"{address}: {fit(free, resources)} fit, free are {free} of {whole}" for address, free, whole in nodes
    )
    return ResourceError(f"{purpose} wants {wanted}; there is room for {room}, {why}", where=there, fix=_FIX)


def _is_infeasible(group: str) -> bool:
    """Whether the autoscaler has said that it can never make room for this placement group."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

    if not grows():
        return False
    address = ray.get_runtime_context().gcs_address
    reply = GetClusterStatusReply.FromString(GcsClient(address).get_cluster_status(timeout_s=_REPLY_S))
    refused: Sequence[Any] = reply.autoscaling_state.infeasible_gang_resource_requests
    return any(group in request.details for request in refused)


def _bundle(resources: WorkerResources) -> dict[str, float]:
    bundle = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": resources.memory_gb * _GB}
    return {name: amount for name, amount in bundle.items() if amount} or {"CPU": 0.001}


def _amounts(resources: WorkerResources) -> str:
    return describe(resources.cpus, resources.gpus, resources.memory_gb)
