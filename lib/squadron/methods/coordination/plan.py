"""What a coordination run needs, from its configuration alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from squadron.core.profile import Profile
from squadron.methods.coordination.config import CoordinationConfig


def estimate(config: CoordinationConfig, workers: int, profile: Profile) -> Sequence[tuple[str, str]]:
    """Rows for `squadron plan`: problems, solver time at the most, steps of training, and the comparison."""
    problems, labels, training, contest = config.problems, config.labels, config.training, config.evaluation
    costs = len(config.costs)
    rows = round(problems.count * (1 - problems.held_out)) * labels.count
    steps = training.steps or math.ceil(training.epochs * rows / training.batch_size)
    each = contest.reference_s + contest.back_tracking_s
    fewest, most = problems.robots
    return [
        ("costs", ", ".join(cost.replace("_", " ") for cost in config.costs)),
        ("problems", f"{problems.count:,} of {fewest} to {most} robots, at most {problems.max_intervals} intervals"),
        ("plans to solve for", f"{problems.count * labels.count * costs:,} by {labels.solver}, on {workers} workers"),
        ("network", f"{config.model.layers} layers of {config.model.hidden}, latent vectors of {config.model.latent}"),
        ("training steps", f"{steps:,} for each of {costs} networks, and for each again without a latent vector"),
        ("comparison", f"{contest.problems} problems of {', '.join(map(str, contest.robots))} robots"),
        ("its time", f"about {contest.problems * len(contest.robots) * costs * each / workers / 60:.0f} min"),
    ]
