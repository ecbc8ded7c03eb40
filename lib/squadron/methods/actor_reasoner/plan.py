"""What an actor_reasoner run needs, from its configuration alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from squadron.core.profile import Profile
from squadron.methods.actor_reasoner.benchmark import ABLATIONS
from squadron.methods.actor_reasoner.config import ActorReasonerConfig

Rows = Sequence[tuple[str, str]]


def reasoner(config: ActorReasonerConfig, workers: int, profile: Profile) -> Rows:
    """The language model, and what a small one learns from."""
    if (model := config.reasoner.model) is not None:
        return [("Reasoner", model.name)]
    learns = f"{config.lessons.episodes} episodes a scene, driven by an oracle"
    return [("Reasoner", "a small one, trained here"), ("it learns from", learns)]


def memories(config: ActorReasonerConfig, workers: int, profile: Profile) -> Rows:
    """Scenes, and how memories are filled."""
    memory = config.memory
    filled = f"filled by {memory.episodes} episodes a scene, at most {memory.capacity:,} of each style"
    return [("scenes", ", ".join(config.scenes)), ("memory", filled)]


def comparison(config: ActorReasonerConfig, workers: int, profile: Profile) -> Rows:
    """Unseen episodes, and questions to the Reasoner at most."""
    asked, judged = config.reasoner, config.evaluation
    longest_s = config.traffic.ticks * config.traffic.tick_s
    thinkers = 3 + len(judged.memory_sizes) + (len(ABLATIONS) if judged.ablations else 0)
    waiting = math.ceil(longest_s / asked.every_s)
    thinking = math.ceil(longest_s / max(asked.think_s, asked.every_s))
    each = config.memory.episodes * waiting + judged.episodes * (waiting + (thinkers - 1) * thinking)
    most = len(config.scenes) * each
    return [
        ("compared on", f"{judged.episodes} unseen episodes a scene, of at most {longest_s:g} s"),
        ("questions to the Reasoner", f"at most {most:,}; most episodes are over in a third of their time"),
    ]


def live(config: ActorReasonerConfig, workers: int, profile: Profile) -> Rows:
    """Cars by the clock."""
    return [("by the clock", f"{config.live.cars} cars a scene, {config.live.reasoners} Reasoners next to them")]
