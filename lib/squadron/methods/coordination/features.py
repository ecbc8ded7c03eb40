"""Graphs as numbers for a network: features of nodes and edges, and many graphs as one.

Letters: N nodes, E joint-action edges, M messages (each joint-action edge both ways, and each step of a route forwards
and backwards), F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from squadron.methods.coordination.graph import Graph

SCALE_M = 10.0
"""Lengths in features are divided by it, so that they are about one."""
NODE_FEATURES = 6
MESSAGE_FEATURES = 7
PLAN_FEATURES = 4
"""A message along an edge of a plan says whether its sender goes first, and in which type."""


def features(graph: Graph) -> dict[str, np.ndarray]:
    """What a network sees of a graph.

    `nodes` (N, F): where the interval begins and ends, its length, what is left of the route behind it, one over its
    density limit, and whether it is the route's first. `message` (2, M): from which node to which. `messages` (M, F):
    joint action, next or before on the route; then, for joint actions, where the shared stretch begins and ends on the
    sender's and the receiver's interval, and along a route the way between both entries. `edges` (2, E): the ends of
    each joint-action edge; its messages are numbers e and E + e.

    The paper's features are the interval, its density, and the shared stretch; what is left of a route is ours, without
    which no network can tell who arrives last.
    """
    u_E, v_E = graph.edge_E2.T
    node = np.flatnonzero(graph.before_N >= 0)
    before = graph.before_N[node]
    nodes_NF = np.stack(
        [
            graph.enter_N / SCALE_M,
            graph.leave_N / SCALE_M,
            (graph.leave_N - graph.enter_N) / SCALE_M,
            (graph.length_R[graph.robot_N] - graph.leave_N) / SCALE_M,
            1 / graph.density_N,
            graph.before_N < 0,
        ],
        axis=1,
    )
    entry_E2 = graph.enter_N[graph.edge_E2]
    start_E2, end_E2 = (graph.zone_start_E2 - entry_E2) / SCALE_M, (graph.zone_end_E2 - entry_E2) / SCALE_M
    joint_E4 = np.stack([start_E2[:, 0], end_E2[:, 0], start_E2[:, 1], end_E2[:, 1]], axis=1)
    way = graph.travel_N[node] / SCALE_M
    routes_F = np.stack([way, np.zeros_like(way), np.zeros_like(way), np.zeros_like(way)], axis=1)
    kinds = np.repeat(np.eye(3), [2 * graph.edges, len(node), len(node)], axis=0)
    rest = np.concatenate([joint_E4, joint_E4[:, [2, 3, 0, 1]], routes_F, routes_F])
    return {
        "nodes": nodes_NF.astype(np.float32),
        "message": np.array([np.concatenate([u_E, v_E, before, node]), np.concatenate([v_E, u_E, node, before])]),
        "messages": np.concatenate([kinds, rest], axis=1).astype(np.float32),
        "edges": graph.edge_E2.T.copy(),
    }


def join(graphs: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Features of several graphs as those of one that falls into them; `graph` (N) says which one a node is of.

    Messages are in the order of kinds, as for one graph: joint actions of all graphs forwards, then backwards, then
    routes.
    """
    counts = [len(one["nodes"]) for one in graphs]
    edges = [one["edges"].shape[1] for one in graphs]
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    parts = [
        [slice(0, e), slice(e, 2 * e), slice(2 * e, one["message"].shape[1])]
        for one, e in zip(graphs, edges, strict=True)
    ]
    shifted = [one["message"] + offset for one, offset in zip(graphs, offsets, strict=True)]
    return {
        "nodes": np.concatenate([one["nodes"] for one in graphs]),
        "message": np.concatenate([m[:, cut[k]] for k in range(3) for m, cut in zip(shifted, parts, strict=True)], 1),
        "messages": np.concatenate(
            [one["messages"][cut[k]] for k in range(3) for one, cut in zip(graphs, parts, strict=True)]
        ),
        "edges": np.concatenate([one["edges"] + offset for one, offset in zip(graphs, offsets, strict=True)], 1),
        "graph": np.repeat(np.arange(len(graphs)), counts),
    }
