"""What a FLAME run needs, from its configuration alone."""

from __future__ import annotations

import math

from squadron.core.profile import Profile
from squadron.methods.flame.config import FlameConfig

STEPS_PER_EPISODE = 80
"""Length of an expert's episode, about: 4 s of 50 ms steps."""

FRAMES_PER_SECOND = {64: 380, 128: 150}
"""Demonstration steps a core makes in a second, physics and camera, by image size."""

BATCH_SECONDS = {64: 0.036, 128: 0.14}
"""One optimisation step of 32 samples in float32 on one core while the other is busy too; bfloat16 takes two thirds."""


def estimate(config: FlameConfig, workers: int, profile: Profile) -> list[tuple[str, str]]:
    """Rows for `squadron plan`: sizes from the shapes, times from the rates above, which are this project's own
    measurements on a 2-core machine and only a first guess elsewhere."""
    size = config.demos.image_size
    episodes = config.homes.clients * config.demos.per_home
    held_out = config.homes.eval_homes + config.homes.test_homes
    steps = STEPS_PER_EPISODE * (episodes + held_out * config.demos.held_out_per_home)
    step_bytes = size * size * 3 + 16 * 4
    per_home = config.demos.per_home * STEPS_PER_EPISODE * 0.9
    epochs = config.training.local_epochs * math.ceil(per_home / config.training.batch_size)
    visit = min(epochs, config.training.local_steps or epochs)
    batches = visit * config.federation.clients_per_round * config.federation.rounds
    parameters = policy_parameters(size)
    speed = 0.66 if config.training.precision == "bf16" else 1.0  # auto: what a worker has is not known here
    training_s = speed * batches * BATCH_SECONDS[size] * config.training.batch_size / 32 / workers
    worker_bytes = 8 * per_home * step_bytes + 5 * 4 * parameters
    return [
        ("policy", f"{parameters / 1e6:.2f} M parameters, {parameters * 4 / 2**20:.1f} MiB a model"),
        (
            "demonstrations",
            f"{episodes} episodes, about {steps:,} steps, {steps * step_bytes / 2**30:.2f} GiB before compression",
        ),
        ("a worker's memory", f"about {0.6 + worker_bytes / 2**30:.1f} GiB"),
        (
            "the driver's memory",
            f"about {0.8 + 4 * parameters * (config.federation.clients_per_round + 4) / 2**30:.1f} GiB",
        ),
        ("optimisation steps", f"{batches:,} of {config.training.batch_size} samples"),
        (
            "time on CPUs like ours",
            f"demonstrations {_minutes(steps / FRAMES_PER_SECOND[size] / workers)}, rounds {_minutes(training_s)}",
        ),
    ]


def policy_parameters(image_size: int) -> int:
    """Number of parameters of `BCPolicy`, without building it."""
    side = math.ceil(math.ceil(math.ceil(image_size / 2) / 2) / 2)
    layers = [
        (3 * 9, 32),
        (32 * 9, 64),
        (64 * 9, 128),
        (128 * side * side, 256),
        (8, 256),
        (256, 128),
        (384, 512),
        (512, 8),
    ]
    return sum(inputs * outputs + outputs for inputs, outputs in layers)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
