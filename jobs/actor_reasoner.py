"""Actor and Reasoner: an automated car decides at once, from memory, while a language model thinks about the driver.

    python jobs/actor_reasoner.py                                      # the demo, on this machine
    squadron run actor_reasoner full reasoner.model='{provider: openai, name: llama3, model: llama3, base_url: "http://…/v1"}'
    squadron run actor_reasoner paper --address auto

LLM-driven Actor-Reasoner for interaction of automated vehicles, arXiv 2503.00502.
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import job
from squadron.core.run import Run
from squadron.methods.actor_reasoner.config import ActorReasonerConfig, SceneConfig
from squadron.methods.actor_reasoner.endpoint import services
from squadron.methods.actor_reasoner.records import LearnedDriver
from squadron.methods.actor_reasoner.rehearsal import REPLIES
from squadron.methods.actor_reasoner.stages import (
    build_memory,
    check_recordings,
    compare,
    drive_live,
    drive_recorded,
    prepare_reasoner,
    reinforce,
)

NEEDS = ("ray", "torch", "transformers", "deepspeed", "sentence_transformers", "shapely", "pyarrow")


@job(
    ActorReasonerConfig,
    requires=NEEDS,
    services=services,
    metrics={"collided": "min", "succeeded": "max"},
    replies=REPLIES,
)
def actor_reasoner(run: Run, config: ActorReasonerConfig) -> None:
    """Cars that meet human drivers: who gets through, how safely and how soon."""
    if config.recorded:
        run.stage(check_recordings, config.recorded)
    worlds = tuple(map(config.world, config.scenes))
    scenes, asked = tuple(world.only(SceneConfig) for world in worlds), config.reasoner
    reasoner = run.stage(prepare_reasoner, scenes, asked.model, asked.display_words, config.lessons)
    learned = LearnedDriver(file=None)
    if config.ppo is not None:
        learned = run.stage(reinforce, scenes, config.ppo)  # PPO by RLlib, to compare with
    for world in worlds:
        memories = run.stage(build_memory, world, reasoner, config.memory)  # the world waits for the Reasoner
        run.stage(compare, world, reasoner, memories, learned, config.evaluation)  # and everybody else
        if config.live.cars:
            run.stage(drive_live, world, reasoner, memories, config.live)  # by the clock
        if config.recorded:  # among cars of CommonRoad files
            run.stage(drive_recorded, world, reasoner, memories, learned, config.recorded)


if __name__ == "__main__":
    run_job(actor_reasoner)
