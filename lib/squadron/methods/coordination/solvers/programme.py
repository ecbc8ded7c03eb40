"""What the programme of any solver does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from squadron.methods.coordination.graph import Graph


class Found(NamedTuple):
    """What a solver came up with: a plan, its cost by the solver's own account, and a bound below every plan's cost."""

    first_E: np.ndarray
    following_E: np.ndarray
    objective: float
    bound: float
    optimal: bool


class Programme(Protocol):
    """A mixed-integer programme of one graph and one cost."""

    def minimise(self, time_limit_s: float) -> Found | None:
        """The best plan found within the time, if any."""

    def forbid(self, first: Mapping[int, bool], following: Mapping[int, bool]) -> None:
        """No plan may have all of these values, by edge."""


def horizon(graph: Graph) -> float:
    """Seconds after which every robot is through under any plan: no chain of waits holds an interval twice."""
    return float(graph.length_R.sum() + (graph.leave_N - graph.enter_N).sum())
