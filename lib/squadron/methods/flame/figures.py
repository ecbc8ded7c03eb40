"""What FLAME's report shows: scores with intervals, curves over rounds, the comparison."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from squadron.core.panels import Curves, Series, Table
from squadron.methods.flame.records import Policy, Score, Shard
from squadron.metrics.statistics import cluster_bootstrap_interval, wilson_interval

PUBLISHED_SUCCESS = {"close_box": 0.56}
"""Success of FedAvg in the README of FLAME's public code: RLBench, 400 clients, 30 rounds, 50 local epochs."""


def score(results: Sequence[dict[str, Any]]) -> dict[str, Score]:
    """Success with its 95% interval, and root mean square error, of each policy over all its homes.

    The interval resamples homes, since episodes of one home are alike; with all successes or none, where resampling
    has nothing to vary, it is Wilson's.
    """
    by_policy: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        by_policy[result["policy"]].append(result)
    return {name: _score(name, rows) for name, rows in by_policy.items()}


def success_by_round(candidates: Sequence[Policy], scores: dict[str, Score]) -> Curves:
    """Online success in the evaluation homes against the round."""
    kept = [scores[c.name] for c in candidates]
    series = Series(
        name="success",
        x=[c.round or 0 for c in candidates],
        y=[s.successes / s.episodes for s in kept],
        low=[s.low for s in kept],
        high=[s.high for s in kept],
    )
    return Curves(title="Success by round, evaluation homes", x_label="round", y_label="success rate", series=[series])


def error_by_round(candidates: Sequence[Policy], scores: dict[str, Score]) -> Curves:
    """Offline root mean square error in the evaluation homes against the round."""
    series = Series(name="RMSE", x=[c.round or 0 for c in candidates], y=[scores[c.name].rmse for c in candidates])
    return Curves(
        title="Offline error by round, evaluation homes",
        x_label="round",
        y_label="RMSE of actions",
        series=[series],
    )


def demonstrations(train: Sequence[Shard], held_out: Sequence[Shard]) -> Table:
    """How many demonstrations there are and how long, for the homes that train and for those held out."""
    rows = [_amounts(name, shards) for name, shards in (("training", train), ("held out", held_out)) if shards]
    note = "A step is 50 ms. An attempt in which the expert did not succeed is not kept."
    columns = ["homes", "number", "episodes", "attempts", "steps", "fewest in a home", "most in a home"]
    return Table(title="Demonstrations", columns=columns, rows=rows, note=note)


def round_losses(metrics: Sequence[dict[str, Any]]) -> Curves:
    """Training loss of the visited clients, and validation loss of those asked, against the round."""
    series = []
    for key, name in (("loss", "training"), ("validation_loss", "validation, sampled clients")):
        points = [(row["step"], row[key]) for row in metrics if row.get(key) is not None]
        if points:
            series.append(Series(name=name, x=[x for x, _ in points], y=[y for _, y in points]))
    return Curves(title="Loss by round", x_label="round", y_label="mean squared error", series=series)


def baseline_losses(answers: Sequence[dict[str, Any]]) -> Curves:
    """Training loss of the baselines against the number of rounds' worth of steps."""
    series = [Series(name=a["name"], x=list(range(1, len(a["losses"]) + 1)), y=a["losses"]) for a in answers]
    return Curves(
        title="Baselines' loss", x_label="rounds' worth of steps", y_label="mean squared error", series=series
    )


def comparison(task: str, scores: Sequence[Score]) -> Table:
    """All policies side by side on the test homes, with the published figure where there is one."""
    rows = [
        [
            s.policy,
            f"{s.successes / s.episodes:.1%}",
            f"{s.low:.0%} to {s.high:.0%}",
            str(s.episodes),
            f"{s.rmse:.4f}",
        ]
        for s in scores
    ]
    if task in PUBLISHED_SUCCESS:
        rows.append(
            [
                "FLAME's published FedAvg (RLBench)",
                f"{PUBLISHED_SUCCESS[task]:.1%}",
                "not given",
                "50",
                "not given",
            ]
        )
    note = (
        "Homes that took no part in training. The interval resamples homes. RMSE: all steps, all eight action values."
    )
    return Table(
        title="Success and error on unseen homes",
        columns=["policy", "success", "95% interval", "episodes", "RMSE"],
        rows=rows,
        note=note,
    )


def success_by_home(results: Sequence[dict[str, Any]]) -> Table:
    """Successes of each policy in each test home."""
    homes = sorted({r["client_id"] for r in results})
    policies = list(dict.fromkeys(r["policy"] for r in results))
    cells = {(r["policy"], r["client_id"]): f"{sum(r['successes'])}/{len(r['successes'])}" for r in results}
    rows = [[str(home), *(cells.get((policy, home), "failed") for policy in policies)] for home in homes]
    return Table(title="Successes by home", columns=["home", *policies], rows=rows, note="")


def _amounts(name: str, shards: Sequence[Shard]) -> list[str | int]:
    steps = [shard.steps for shard in shards]
    episodes, attempts = sum(shard.episodes for shard in shards), sum(shard.attempts for shard in shards)
    return [name, len(shards), episodes, attempts, sum(steps), min(steps), max(steps)]


def _score(name: str, rows: Sequence[dict[str, Any]]) -> Score:
    outcomes = [[float(s) for s in row["successes"]] for row in rows]
    successes, episodes = int(sum(map(sum, outcomes))), sum(map(len, outcomes))
    if 0 < successes < episodes and len(outcomes) > 1:
        low, high = cluster_bootstrap_interval(outcomes)
    else:
        low, high = wilson_interval(successes, episodes)
    rmse = math.sqrt(math.fsum(row["squared_error"] for row in rows) / sum(row["values"] for row in rows))
    return Score(policy=name, rmse=rmse, successes=successes, episodes=episodes, low=low, high=high)
