"""Where robots are under a plan, at any time.

A robot drives at one metre a second and waits only where nobody else's route comes near: in front of an interval. One
whose start lies within an interval stands next to the floor until it may enter, and one whose goal does leaves the
floor when it arrives, as at a dock; others are on the floor all the time.

Letters: T times, R robots, N nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from squadron.methods.coordination.algorithm import completion_times
from squadron.methods.coordination.graph import TICK_M, Graph


@dataclass(frozen=True, eq=False)
class Schedule:
    """A plan for one graph and the times (N) at which robots enter each interval, in seconds."""

    graph: Graph
    first_E: np.ndarray
    following_E: np.ndarray
    enter_N: np.ndarray

    @property
    def end_s(self) -> float:
        """When the last robot has arrived."""
        return float(completion_times(self.graph, self.enter_N[None]).max())

    def arcs(self, times_T: np.ndarray) -> np.ndarray:
        """How far each robot has come (T, R), in metres of its route."""
        graph = self.graph
        arc_TR = np.minimum(times_T[:, None], graph.length_R)
        first_N = graph.before_N < 0
        arc_TR[:, graph.robot_N[first_N]] = np.minimum(times_T[:, None], graph.enter_N[first_N])
        after_N = np.where(np.append(first_N[1:], True), graph.length_R[graph.robot_N], np.append(graph.enter_N[1:], 0))
        for node in range(graph.nodes):  # a later interval overrides what the one before says
            inside_T = times_T >= self.enter_N[node]
            driven_T = graph.enter_N[node] + times_T - self.enter_N[node]
            robot = graph.robot_N[node]
            arc_TR[inside_T, robot] = np.minimum(driven_T, after_N[node])[inside_T]
        return arc_TR

    def on_floor(self, times_T: np.ndarray) -> np.ndarray:
        """Which robots are on the floor (T, R)."""
        graph = self.graph
        enter_R, leave_R = np.full(graph.robots, -np.inf), np.full(graph.robots, np.inf)
        docked = (graph.before_N < 0) & (graph.enter_N == 0)
        enter_R[graph.robot_N[docked]] = self.enter_N[docked]
        meets = graph.last_R >= 0
        done_R = completion_times(graph, self.enter_N[None])[0]
        leaves = meets & (graph.leave_N[graph.last_R] >= graph.length_R - TICK_M) if graph.nodes else meets
        leave_R[leaves] = done_R[leaves]
        on_TR: np.ndarray = (times_T[:, None] >= enter_R) & (times_T[:, None] < leave_R)
        return on_TR
