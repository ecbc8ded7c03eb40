"""What coordination's report shows: ratios and times by size, distributions, labels, training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from squadron.core.panels import Curves, Histogram, Sample, Series, Table
from squadron.methods.coordination.config import CostName
from squadron.methods.coordination.records import Ratio
from squadron.metrics.statistics import cluster_bootstrap_interval

PUBLISHED = {5: 0.985, 10: 0.965, 15: 0.957, 25: 0.95, 50: 0.937, 100: 0.924, 250: 0.913}
"""Optimality ratio of the paper's network on average completion time by robots, read off its figure (±0.01)."""


def ratio(result: dict[str, Any], method: str) -> float | None:
    """The least cost that any method reached over this one's; None where it found no plan. With costs of nothing it is
    1 for nothing."""
    costs = [one["cost"] for one in result["results"].values() if one["cost"] is not None]
    cost = result["results"][method]["cost"]
    if cost is None:
        return None
    return 1.0 if cost <= 1e-9 else max(0.0, min(costs)) / cost


def ratios(results: Sequence[dict[str, Any]], cost: CostName) -> list[Ratio]:
    """Mean ratio with its 95% interval over problems, and seconds, of each method, kind of world and size."""
    table = []
    for world, robots in sorted({(result["world"], result["robots"]) for result in results}):
        rows = [result for result in results if (result["world"], result["robots"]) == (world, robots)]
        for method in rows[0]["results"]:
            values = [value for row in rows if (value := ratio(row, method)) is not None]
            low, high = cluster_bootstrap_interval([[value] for value in values]) if values else (0.0, 0.0)
            table.append(
                Ratio(
                    method=method,
                    cost=cost,
                    world=world,
                    robots=robots,
                    problems=len(rows),
                    mean=float(np.mean(values)) if values else 0.0,
                    low=low,
                    high=high,
                    seconds=float(np.mean([row["results"][method]["seconds"] for row in rows])),
                    unsolved=len(rows) - len(values),
                )
            )
    return table


def ratio_curves(table: Sequence[Ratio], cost: CostName) -> list[Curves]:
    """Ratio to the best known plan against the number of robots, all methods, for each kind of world."""
    return [_ratio_curves([row for row in table if row.world == world], cost, world) for world in _worlds(table)]


def _ratio_curves(table: Sequence[Ratio], cost: CostName, world: str) -> Curves:
    series = [
        Series(
            name=method,
            x=[row.robots for row in rows],
            y=[row.mean for row in rows],
            low=[row.low for row in rows],
            high=[row.high for row in rows],
        )
        for method, rows in _by_method(table).items()
        if method != "exact solver"  # what it adds to the best of the others is in the table
    ]
    if cost == "average_completion" and world == "open floor":
        sizes = [robots for robots in PUBLISHED if robots <= max(row.robots for row in table)]
        series.append(Series(name="published network", x=sizes, y=[PUBLISHED[robots] for robots in sizes]))
    return Curves(
        title=f"Ratio to the best known plan, {cost.replace('_', ' ')}, {world}",
        x_label="robots",
        y_label="least known cost over cost",
        series=series,
        note="Means over problems, with 95% intervals. The best known plan is the best that any method found.",
    )


def savings_table(results: Sequence[dict[str, Any]], method: str, other: str) -> Table:
    """How much less plans of one method cost than another's on the same problem, by size, and how often."""
    rows = []
    for world, robots in sorted({(result["world"], result["robots"]) for result in results}):
        costs = [
            (result["results"][method]["cost"], result["results"][other]["cost"])
            for result in results
            if (result["world"], result["robots"]) == (world, robots) and result["results"][other]["cost"]
        ]
        if costs:
            saved = [1 - mine / theirs for mine, theirs in costs]
            low, high = cluster_bootstrap_interval([[value] for value in saved])
            wins = sum(value > 1e-9 for value in saved)
            share = f"{np.mean(saved):.1%}"
            rows.append([world, robots, share, f"{low:.1%} to {high:.1%}", f"{wins} of {len(saved)}"])
    columns = ["world", "robots", "saved", "95% interval", "problems on which it is cheaper"]
    return Table(title=f"What {method} saves against {other}", columns=columns, rows=rows)


def time_curves(table: Sequence[Ratio]) -> list[Curves]:
    """Seconds a problem against the number of robots, without the exact solver, whose time is given."""
    return [_time_curves([row for row in table if row.world == world], world) for world in _worlds(table)]


def _time_curves(table: Sequence[Ratio], world: str) -> Curves:
    series = [
        Series(name=method, x=[row.robots for row in rows], y=[row.seconds for row in rows])
        for method, rows in _by_method(table).items()
        if method != "exact solver"
    ]
    return Curves(title=f"Time, {world}", x_label="robots", y_label="seconds a problem", series=series)


def ratio_table(table: Sequence[Ratio]) -> Table:
    """Every method on every size, in numbers."""
    rows = [
        [
            row.world,
            row.robots,
            row.method,
            f"{row.mean:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
            f"{row.seconds:.3f}",
            row.unsolved,
        ]
        for row in table
    ]
    columns = ["world", "robots", "method", "ratio", "95% interval", "seconds", "problems without a plan"]
    return Table(title="Methods by size", columns=columns, rows=rows)


def ratio_spread(results: Sequence[dict[str, Any]], methods: Sequence[str]) -> Histogram:
    """How ratios are distributed over problems of all sizes."""
    groups = [Sample(name=name, values=[ratio(result, name) for result in results]) for name in methods]
    return Histogram(title="Ratios of single problems", x_label="least known cost over cost", groups=groups)


def label_table(answers: Sequence[dict[str, Any]]) -> Table:
    """How many problems of each size were solved, how well, and how fast."""
    rows: list[list[Any]] = []
    for robots in sorted({answer["robots"] for answer in answers}):
        some = [answer for answer in answers if answer["robots"] == robots]
        plans = [plan for answer in some for plan in answer["plans"]]
        proven = sum(plan["optimal"] for plan in plans) / max(1, len(plans))
        gap = max((plan["gap"] for plan in plans), default=None)
        seconds = sum(plan["seconds"] for plan in plans) / len(some)
        sizes = [float(np.mean([answer[name] for answer in some])) for name in ("nodes", "edges")]
        rows.append([robots, len(some), *sizes, len(plans), f"{proven:.1%}", gap, seconds])
    columns = [
        "robots",
        "problems",
        "intervals",
        "encounters",
        "plans",
        "proven optimal",
        "largest gap",
        "seconds each",
    ]
    note = "Intervals and encounters are means. Where a plan is not proven the best, another may cost less by the gap."
    return Table(title="Labelled problems", columns=columns, rows=rows, note=note)


def loss_curves(metrics: Sequence[dict[str, Any]], name: str) -> Curves:
    """The terms of the loss against the step, and the loss on problems that were held out."""
    series = []
    for key, shown in (("order", "order"), ("following", "type"), ("loss", "all"), ("held_out_loss", "held out, all")):
        points = [(row["step"], row[key]) for row in metrics if row.get(key) is not None]
        if points:
            series.append(Series(name=shown, x=[x for x, _ in points], y=[y for _, y in points]))
    return Curves(title=f"Loss of {name}", x_label="step", y_label="loss", series=series)


def _worlds(table: Sequence[Ratio]) -> list[str]:
    return sorted({row.world for row in table}, reverse=True)


def _by_method(table: Sequence[Ratio]) -> dict[str, list[Ratio]]:
    methods = dict.fromkeys(row.method for row in table)
    return {
        method: [row for row in table if row.method == method and row.unsolved < row.problems] for method in methods
    }
