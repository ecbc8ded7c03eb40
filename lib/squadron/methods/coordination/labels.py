"""Labels: the best plans for each problem, and rows that a network learns from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from squadron.core.errors import WorkerError
from squadron.core.folder import relative
from squadron.core.rows import map_rows
from squadron.core.run import Stage
from squadron.data.rows import write_rows
from squadron.methods.coordination.algorithm import choose_following
from squadron.methods.coordination.config import CostName, FloorLimits, LabelsConfig, ProblemsConfig
from squadron.methods.coordination.exact import Solution, solve_best
from squadron.methods.coordination.features import features
from squadron.methods.coordination.figures import label_table
from squadron.methods.coordination.graph import Graph
from squadron.methods.coordination.problems import training_problem
from squadron.methods.coordination.records import Labels

_AT_ONCE = 25
"""Problems that a worker is handed: most take less than a tenth of a second."""
_ROW_TYPES = {"nodes": "list<float64>", "messages": "list<float64>"}
_ROW_TYPES |= dict.fromkeys(("message", "edges", "robot", "first", "following"), "list<int64>")
"""A graph's features, flat, and a plan."""


def label(stage: Stage, cost: CostName, problems: ProblemsConfig, limits: FloorLimits, config: LabelsConfig) -> Labels:
    """Solve every problem and write rows for training and for the held-out loss, which are of other problems.

    Raises WorkerError if nothing was solved.
    """
    rows = [{"id": str(number), "number": number} for number in range(problems.count)]
    shared: dict[str, Any] = {"cost": cost, "problems": problems, "limits": limits, "config": config}
    answers = map_rows(
        stage, rows, best_plans, unit="problem", timeout_s=config.timeout_s, batch_size=_AT_ONCE, **shared
    )
    stage.show(label_table(answers))
    solved = [answer for answer in answers if answer["plans"]]
    if len(solved) < 2:
        what = f"{len(solved)} of {problems.count} problems were solved"
        raise WorkerError(what, where=str(stage.folder), fix="see the report for each problem's error")
    held = max(1, round(problems.held_out * len(solved)))
    parts = {"held_out": solved[:held], "train": solved[held:]}
    for name, part in parts.items():
        write_rows(stage.folder, f"{name}.arrow", _training_rows(part), _ROW_TYPES)
    plans = [plan for answer in solved for plan in answer["plans"]]
    proven = sum(plan["optimal"] for plan in plans)
    stage.headline(f"optimal plans, {cost.replace('_', ' ')}", f"{len(plans):,} of {len(solved):,} problems")
    return Labels(
        cost=cost,
        train=relative(stage.folder, stage.run.folder, "train.arrow"),
        held_out=relative(stage.folder, stage.run.folder, "held_out.arrow"),
        problems=len(solved),
        plans=len(plans),
        proven=proven,
    )


def best_plans(
    row: Mapping[str, Any], cost: CostName, problems: ProblemsConfig, limits: FloorLimits, config: LabelsConfig
) -> dict[str, Any]:
    """One problem as a network sees it, and its best plans, with what each costs and how far from the best it may be.
    Runs on a worker."""
    graph = training_problem(problems, limits, row["number"])
    found = solve_best(
        graph,
        cost,
        config.count,
        config.solver,
        config.time_limit_s,
        seed=problems.seed,
        distinct=config.distinct,
        within=config.within,
    )
    if cost != "synchronous_completion":
        found = _loosened(graph, found)
    return {
        "number": row["number"],
        "robots": graph.robots,
        "nodes": graph.nodes,
        "edges": graph.edges,
        "graph": {name: np.asarray(values).ravel().tolist() for name, values in features(graph).items()},
        "robot": graph.robot_N.tolist(),
        "plans": [
            {
                "first": one.first_E.astype(int).tolist(),
                "following": one.following_E.astype(int).tolist(),
                "cost": one.cost,
                "optimal": one.optimal,
                "gap": one.gap,
                "seconds": one.seconds,
            }
            for one in found
        ],
    }


def _loosened(graph: Graph, found: list[Solution]) -> list[Solution]:
    """The same plans with every robot following that may, each plan once.

    Following only ever relaxes a wait, so that no cost that grows with waits rises. Solvers leave the type of edges
    that do not matter to chance, and a network would have to learn that chance.
    """
    loosened: dict[bytes, Solution] = {}
    for one in found:
        following_E = choose_following(graph, one.following_E[None].astype(float))[0]
        loosened.setdefault(one.first_E.tobytes() + following_E.tobytes(), one._replace(following_E=following_E))
    return list(loosened.values())


def _training_rows(answers: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each plan: the graph's features, flat, and the plan."""
    for answer in answers:
        for plan in answer["plans"]:
            yield {
                **answer["graph"],
                "robot": answer["robot"],
                "first": plan["first"],
                "following": plan["following"],
            }
