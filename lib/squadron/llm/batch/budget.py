"""A cap on what asking costs: money is set aside before a request is sent, and what was not needed is given back."""

from __future__ import annotations

import threading
from typing import Any, Protocol

from squadron.core.config import Config, operational
from squadron.core.errors import ResourceError


class SpendingConfig(Config):
    """What may be paid."""

    cap_usd: float | None = operational(None, ge=0, description="never spend more in this run folder; None: no cap")


class SpendCapReached(ResourceError):
    """The next request could cost more than is left."""


class Budget(Protocol):
    """Money that several askers share."""

    def reserve(self, usd: float) -> bool:
        """Set `usd` aside, the most that a request can cost. False if that much is not free now."""

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        """The request that `reserved_usd` was set aside for is over and cost `spent_usd`."""


class LocalBudget:
    """A budget inside one process. `cap_usd` None: no cap, only a count."""

    def __init__(self, cap_usd: float | None = None, spent_usd: float = 0.0) -> None:
        self.cap_usd, self.spent_usd, self.reserved_usd = cap_usd, spent_usd, 0.0
        self._lock = threading.Lock()

    def reserve(self, usd: float) -> bool:
        with self._lock:
            if self.cap_usd is not None and self.spent_usd + self.reserved_usd + usd > self.cap_usd:
                return False
            self.reserved_usd += usd
            return True

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        with self._lock:
            self.reserved_usd -= reserved_usd
            self.spent_usd += spent_usd

    @property
    def free_usd(self) -> float:
        """What is neither spent nor set aside."""
        return float("inf") if self.cap_usd is None else self.cap_usd - self.spent_usd - self.reserved_usd

    def raise_cap(self, usd: float) -> None:
        with self._lock:
            if self.cap_usd is not None:
                self.cap_usd += usd


class Ledger:
    """What all workers of a run have done and spent. A Ray actor."""

    def __init__(self, cap_usd: float | None, spent_usd: float) -> None:
        self._cap_usd, self._given_usd = cap_usd, spent_usd
        self._answered = self._failed = 0

    def count(self, answered: int, failed: int) -> None:
        self._answered += answered
        self._failed += failed

    def counts(self) -> tuple[int, int]:
        return self._answered, self._failed

    def lease(self, least_usd: float) -> float:
        """Give out at least so much, and a hundredth of the cap if there is as much; 0 if there is less than that."""
        if self._cap_usd is None:
            return float("inf")
        left = self._cap_usd - self._given_usd
        given = min(left, max(least_usd, self._cap_usd / 100)) if left >= least_usd else 0.0
        self._given_usd += given
        return given

    def give_back(self, usd: float) -> None:
        self._given_usd -= usd


def open_ledger(cap_usd: float | None, spent_usd: float) -> Any:
    """A ledger on the node of this driver: the loss of any other node does not take it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Ledger).options(scheduling_strategy=here).remote(cap_usd, spent_usd)


class LeasedBudget:
    """A worker's share of the ledger's money, asked for in slices, so that few requests wait for the ledger.

    What a worker that died had leased counts as spent: its requests may have been charged.
    """

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger
        self._local = LocalBudget(0.0)

    def reserve(self, usd: float) -> bool:
        if self._local.reserve(usd):
            return True
        import ray

        short = usd - self._local.free_usd
        self._local.raise_cap(float(ray.get(self._ledger.lease.remote(short))))
        return self._local.reserve(usd)

    def settle(self, reserved_usd: float, spent_usd: float) -> None:
        self._local.settle(reserved_usd, spent_usd)

    def close(self) -> None:
        """Give back what was leased and not needed."""
        free = self._local.free_usd
        if 0 < free < float("inf"):
            self._local.raise_cap(-free)
            self._ledger.give_back.remote(free)
