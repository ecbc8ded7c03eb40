"""What an actor_reasoner run needs, from its configuration alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from squadron.core.profile import Profile
from squadron.methods.actor_reasoner.benchmark import ABLATIONS
from squadron.methods.actor_reasoner.config import ActorReasonerConfig


def estimate(config: ActorReasonerConfig, workers: int, profile: Profile) -> Sequence[tuple[str, str]]:
    """Rows for `squadron plan`: the model, episodes of each purpose, and questions to the Reasoner at the most."""
    asked, judged, memory = config.reasoner, config.evaluation, config.memory
    longest_s = config.traffic.ticks * config.traffic.tick_s
    thinkers = 3 + len(judged.memory_sizes) + (len(ABLATIONS) if judged.ablations else 0)
    waiting = math.ceil(longest_s / asked.every_s)
    thinking = math.ceil(longest_s / max(asked.think_s, asked.every_s))
    most = len(config.scenes) * (memory.episodes * waiting + judged.episodes * (waiting + (thinkers - 1) * thinking))
    model = "a small one, trained here" if asked.model is None else asked.model.name
    rows = [
        ("scenes", ", ".join(config.scenes)),
        ("Reasoner", model),
        ("memory", f"filled by {memory.episodes} episodes a scene, at most {memory.capacity:,} of each style"),
        ("compared on", f"{judged.episodes} unseen episodes a scene, of at most {longest_s:g} s"),
        ("questions to the Reasoner", f"at most {most:,}; most episodes are over in a third of their time"),
    ]
    if asked.model is None:
        lessons = config.lessons
        rows.insert(2, ("it learns from", f"{lessons.episodes} episodes a scene, driven by an oracle"))
    if config.live.cars:
        rows.append(("by the clock", f"{config.live.cars} cars a scene, {config.live.reasoners} Reasoners beside them"))
    return rows
