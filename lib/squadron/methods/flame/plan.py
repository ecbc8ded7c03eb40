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


Rows = list[tuple[str, str]]


def demonstrations(config: FlameConfig, workers: int, profile: Profile) -> Rows:
    """How many steps are demonstrated, how large they are, how long it takes. Rates are this project's own
    measurements on a 2-core machine and only a first guess elsewhere."""
    size = config.demos.image_size
    episodes = config.homes.clients * config.demos.per_home
    held_out = config.homes.eval_homes + config.homes.test_homes
    steps = STEPS_PER_EPISODE * (episodes + held_out * config.demos.held_out_per_home)
    gib = steps * _step_bytes(size) / 2**30
    return [
        *_several("tasks, each with demonstrations", len(config.tasks)),
        ("demonstrations", f"{episodes} episodes, about {steps:,} steps, {gib:.2f} GiB before compression"),
        ("their time", f"{_minutes(steps / FRAMES_PER_SECOND[size] / workers)} on CPUs like ours"),
    ]


def rounds(config: FlameConfig, workers: int, profile: Profile) -> Rows:
    """Size of the policy, memory of worker and driver, optimisation steps and their time."""
    size, federation = config.demos.image_size, config.federation
    per_home = config.demos.per_home * STEPS_PER_EPISODE * 0.9
    epochs = config.training.local_epochs * math.ceil(per_home / config.training.batch_size)
    batches = min(epochs, config.training.local_steps or epochs) * federation.clients_per_round * federation.rounds
    parameters = policy_parameters(size)
    speed = 0.66 if config.training.precision == "bf16" else 1.0  # auto: what a worker has is not known here
    training_s = speed * batches * BATCH_SECONDS[size] * config.training.batch_size / 32 / workers
    worker_gib = 0.6 + (8 * per_home * _step_bytes(size) + 5 * 4 * parameters) / 2**30
    driver_gib = 0.8 + 4 * parameters * (federation.clients_per_round + 4) / 2**30
    return [
        *_several("federations, each with rounds", len(config.tasks) * len(config.strategies)),
        ("policy", f"{parameters / 1e6:.2f} M parameters, {parameters * 4 / 2**20:.1f} MiB a model"),
        ("a worker's memory", f"about {worker_gib:.1f} GiB"),
        ("the driver's memory", f"about {driver_gib:.1f} GiB"),
        ("optimisation steps", f"{batches:,} of {config.training.batch_size} samples"),
        ("time of the rounds", f"{_minutes(training_s)} on CPUs like ours"),
    ]


def _several(what: str, count: int) -> Rows:
    return [(what, str(count))] if count > 1 else []


def _step_bytes(image_size: int) -> int:
    return image_size * image_size * 3 + 16 * 4


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
