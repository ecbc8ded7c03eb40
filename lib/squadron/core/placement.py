"""Whether workers of several sizes find room on nodes at the same time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from squadron.core.profile import WorkerResources

# A share such as 0.1 GPU adds up to a hair more or less than a whole card in floating point.
_ROUNDING = 1e-6
_MANY = 1000.0  # workers on a node that need no core of their own


class Capacity(Protocol):
    """What a node has."""

    @property
    def cpus(self) -> float: ...

    @property
    def gpus(self) -> float: ...

    @property
    def memory_gb(self) -> float: ...


def fit(node: Capacity, resources: WorkerResources) -> int:
    """How many workers of this size a whole node holds."""
    fits = [node.cpus / resources.cpus if resources.cpus else _MANY]
    if resources.gpus >= 1:
        fits.append(node.gpus / resources.gpus)
    elif resources.gpus > 0:  # a worker's share of a card must lie on one card
        fits.append(math.floor(node.gpus + _ROUNDING) * math.floor(1 / resources.gpus + _ROUNDING))
    if resources.memory_gb > 0:
        fits.append(node.memory_gb / resources.memory_gb)
    return math.floor(min(fits) + _ROUNDING)


@dataclass(frozen=True)
class Wanted:
    """Workers of one size, and what for."""

    purpose: str
    count: int
    resources: WorkerResources


@dataclass
class _Room:
    """What of a node is still free. A worker's share of a card lies on one card."""

    cpus: float
    memory_gb: float
    cards: list[float]

    def take(self, share: WorkerResources) -> bool:
        """Put a worker there, if it fits."""
        if share.cpus > self.cpus + _ROUNDING or share.memory_gb > self.memory_gb + _ROUNDING:
            return False
        each = min(share.gpus, 1.0)
        count = math.ceil(share.gpus - _ROUNDING)
        fitting = sorted(
            (card for card in range(len(self.cards)) if self.cards[card] >= each - _ROUNDING),
            key=lambda card: self.cards[card],  # the fullest first, so that others stay whole
        )
        if len(fitting) < count:
            return False
        for card in fitting[:count]:
            self.cards[card] -= each
        self.cpus -= share.cpus
        self.memory_gb -= share.memory_gb
        return True


def pack(nodes: Sequence[Capacity], wanted: Sequence[Wanted]) -> list[int]:
    """How many workers of each kind find room, if those that take most are placed first, each on the first node that
    has room for it."""
    rooms = [_Room(node.cpus, node.memory_gb, [1.0] * math.floor(node.gpus + _ROUNDING)) for node in nodes]
    placed = [0] * len(wanted)
    sizes = [(one.resources.gpus, one.resources.cpus, one.resources.memory_gb) for one in wanted]
    for kind in sorted(range(len(wanted)), key=lambda kind: sizes[kind], reverse=True):
        share = wanted[kind].resources
        while placed[kind] < wanted[kind].count and any(room.take(share) for room in rooms):
            placed[kind] += 1
    return placed
