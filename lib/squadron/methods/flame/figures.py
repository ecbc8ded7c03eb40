"""What FLAME's report shows: scores with intervals, curves over rounds, the comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from squadron.core.panels import Curves, Series, Table
from squadron.evaluate.panels import curve, estimate_table
from squadron.evaluate.scores import Scores
from squadron.methods.flame.records import Policy, PolicyScore, PolicyScores, Shard

PUBLISHED_SUCCESS = {"close_box": 0.56}
"""Success of FedAvg in the README of FLAME's public code: RLBench, 400 clients, 30 rounds, 50 local epochs."""


def score(scores: Scores) -> dict[str, PolicyScore]:
    """Success with its 95% interval, and root mean square error, of each policy over all its homes.

    The interval resamples homes, since episodes of one home are alike; with all successes or none, where resampling
    has nothing to vary, it is Wilson's. Errors take one root at the end, not a mean of roots.
    """
    rmse = errors(scores)
    return {
        name: PolicyScore(policy=name, rmse=rmse[name], **dict(scores.estimate(name, "success", share=True)))
        for name in scores.methods
    }


def errors(scores: Scores) -> dict[str, float]:
    """Root mean square error of each policy over all its homes."""
    return {
        name: math.sqrt(scores.total(name, "squared_error") / scores.total(name, "values")) for name in scores.methods
    }


def by_round(candidates: Sequence[Policy], scores: Mapping[str, PolicyScore]) -> tuple[Curves, Curves]:
    """Success, and offline root mean square error, in the evaluation homes against the round."""
    at = {candidate.round or 0: scores[candidate.name] for candidate in candidates}
    return (
        Curves(
            title="Success by round, evaluation homes",
            x_label="round",
            y_label="success rate",
            series=[curve("success", at.items())],
        ),
        error_by_round(candidates, {name: one.rmse for name, one in scores.items()}),
    )


def error_by_round(candidates: Sequence[Policy], rmse: Mapping[str, float]) -> Curves:
    """Offline root mean square error in the evaluation homes against the round."""
    at = {candidate.round or 0: rmse[candidate.name] for candidate in candidates}
    return Curves(
        title="Offline error by round, evaluation homes",
        x_label="round",
        y_label="RMSE of actions",
        series=[Series(name="RMSE", x=list(at), y=list(at.values()))],
    )


def demonstrations(train: Sequence[Shard], held_out: Sequence[Shard]) -> Table:
    """How many demonstrations there are and how long, for the homes that train and for those held out."""
    rows = [_amounts(name, shards) for name, shards in (("training", train), ("held out", held_out)) if shards]
    note = "A step is 50 ms. An attempt in which the expert did not succeed is not kept."
    columns = ["homes", "number", "episodes", "attempts", "steps", "fewest in a home", "most in a home"]
    return Table(title="Demonstrations", columns=columns, rows=rows, note=note)


def comparison(task: str, scores: Iterable[PolicyScore]) -> Table:
    """All policies side by side on the test homes, with the published figure where there is one."""
    published = PUBLISHED_SUCCESS.get(task)
    name = "FLAME's published FedAvg (RLBench)"
    return estimate_table(
        "Success and error on unseen homes",
        ["policy"],
        "success",
        [([one.policy], one, [str(one.trials), f"{one.rmse:.4f}"]) for one in scores],
        form=".1%",
        interval_form=".0%",
        others=["episodes", "RMSE"],
        published=[] if published is None else [[name, f"{published:.1%}", "not given", "50", "not given"]],
        note="Homes that took no part in training. The interval resamples homes. RMSE: all steps, all eight action "
        "values.",
    )


def all_tasks(tasks: Sequence[PolicyScores]) -> Table:
    """Every policy of every task on its test homes."""
    return estimate_table(
        "All tasks and strategies",
        ["task", "policy"],
        "success",
        [([one.task, score.policy], score, [f"{score.rmse:.4f}"]) for one in tasks for score in one.scores],
        form=".1%",
        interval_form=".0%",
        others=["RMSE"],
        note="Homes that took no part in training. The interval resamples homes.",
    )


def success_by_home(scores: Scores) -> Table:
    """Successes of each policy in each test home."""

    def cell(policy: str, home: int) -> str:
        successes = scores.of(policy, "success")[home]
        there = successes[np.isfinite(successes)]
        return f"{int(there.sum())}/{len(there)}" if len(there) else "failed"

    rows = [
        [str(problem.name), *(cell(policy, home) for policy in scores.methods)]
        for home, problem in enumerate(scores.problems)
    ]
    return Table(title="Successes by home", columns=["home", *scores.methods], rows=rows, note="")


def _amounts(name: str, shards: Sequence[Shard]) -> list[str | int]:
    steps = [shard.steps for shard in shards]
    episodes, attempts = sum(shard.episodes for shard in shards), sum(shard.attempts for shard in shards)
    return [name, len(shards), episodes, attempts, sum(steps), min(steps), max(steps)]
