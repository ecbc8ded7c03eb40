"""What a coordination run needs, from its configuration alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from squadron.core.profile import Profile
from squadron.methods.coordination.config import CoordinationConfig

Rows = Sequence[tuple[str, str]]


def labels(config: CoordinationConfig, workers: int, profile: Profile) -> Rows:
    """Problems, and plans to solve for."""
    problems, count = config.problems, config.labels.count
    fewest, most = problems.robots
    plans = problems.count * count * len(config.costs)
    return [
        ("costs", ", ".join(cost.replace("_", " ") for cost in config.costs)),
        ("problems", f"{problems.count:,} of {fewest} to {most} robots, at most {problems.max_intervals} intervals"),
        ("plans to solve for", f"{plans:,} by {config.labels.solver}, on {workers} workers"),
    ]


def training(config: CoordinationConfig, workers: int, profile: Profile) -> Rows:
    """The network, and steps of training."""
    model, spec = config.model, config.training
    rows = round(config.problems.count * (1 - config.problems.held_out)) * config.labels.count
    steps = spec.steps or math.ceil(spec.epochs * rows / spec.batch_size)
    networks = f"{len(config.costs)} networks, and for each again without a latent vector"
    return [
        ("network", f"{model.layers} layers of {model.hidden}, latent vectors of {model.latent}"),
        ("training steps", f"{steps:,} for each of {networks}"),
    ]


def comparison(config: CoordinationConfig, workers: int, profile: Profile) -> Rows:
    """Problems compared on, and solver time at most."""
    asked = config.evaluation
    each_s = asked.reference_s + asked.back_tracking_s
    total_s = asked.problems * len(asked.robots) * len(config.costs) * each_s
    return [
        ("comparison", f"{asked.problems} problems of {', '.join(map(str, asked.robots))} robots"),
        ("its time", f"about {total_s / workers / 60:.0f} min"),
    ]
