"""How much of the cluster one trial gets, and so how many run at a time.

If trials took what they find, each could hold a part of what it needs and wait forever for the rest. So each sees a
cluster of its own, as large as its share, and shares are dealt out so that all of them fit: jobs ask that cluster how
many workers to start. Ray Train and Ray Data place their workers themselves, outside of placement groups that Ray Tune
would reserve for a trial; its own answer to nesting is to limit the trials at a time, which is what this does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from squadron.core.cluster import Node
from squadron.core.errors import ResourceError
from squadron.core.profile import Profile, WorkerResources

Share = tuple[Node, ...]


def partition(nodes: Sequence[Node], profile: Profile, max_parallel: int | None) -> list[Share | None]:
    """A share for each trial that runs at a time; `[None]`, the whole cluster, where it is one trial.

    A profile that asks for a number of workers says how many seats a trial needs: as many trials run as fit, at most
    `max_parallel`. Otherwise `max_parallel` trials divide the seats, and without it each trial has the whole cluster.
    Raises ResourceError if one trial does not fit, or `max_parallel` trials do not.
    """
    seat = _seat(profile)
    seats = [node for node in nodes for _ in range(node.fit(seat))]
    where = "; ".join(map(str, nodes))
    if profile.workers is not None:
        room = len(seats) // profile.workers
        if room == 0:
            what = f"a trial asks for {profile.workers} workers; the cluster has room for {len(seats)}"
            raise ResourceError(what, where=where, fix="lower --workers, or add nodes")
        count, size = min(room, max_parallel or room), profile.workers
    else:
        count = max_parallel or 1
        size = len(seats) // count
    if size == 0 or (max_parallel or 0) > count:
        what = f"{max_parallel} trials do not fit at a time; {len(seats) // max(1, profile.workers or 1)} do"
        raise ResourceError(what, where=where, fix="lower --max-parallel, or add nodes")
    if count == 1 and profile.workers is None:
        return [None]
    return [_share(seats[number * size : (number + 1) * size], seat) for number in range(count)]


def _seat(profile: Profile) -> WorkerResources:
    """What the larger of the two kinds of workers takes: a job has one kind at a time."""
    one, other = profile.worker, profile.trainer or profile.worker
    return WorkerResources(
        cpus=max(one.cpus, other.cpus), gpus=max(one.gpus, other.gpus), memory_gb=max(one.memory_gb, other.memory_gb)
    )


def _share(seats: Sequence[Node], seat: WorkerResources) -> Share:
    """Seats as nodes of a cluster: as many on each as there are, with as much as they take."""
    counts = {node: seats.count(node) for node in dict.fromkeys(seats)}
    return tuple(
        replace(
            node,
            cpus=seat.cpus * count,
            gpus=seat.gpus * count,
            memory_gb=seat.memory_gb * count if seat.memory_gb else node.memory_gb * count / max(1, node.fit(seat)),
        )
        for node, count in counts.items()
    )
