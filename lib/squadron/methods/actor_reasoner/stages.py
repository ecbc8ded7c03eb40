"""The stages of an actor_reasoner run, in the order of `jobs/actor_reasoner.py`."""

from __future__ import annotations

from squadron.core.inputs import InputPath
from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.llm.settings import AnyModel
from squadron.methods.actor_reasoner import plan
from squadron.methods.actor_reasoner.config import (
    EvaluationConfig,
    LessonsConfig,
    LiveConfig,
    MemoryConfig,
    PpoConfig,
    SceneConfig,
    WorldConfig,
)
from squadron.methods.actor_reasoner.records import (
    LearnedDriver,
    Live,
    Memories,
    ReasonerModel,
    Recordings,
    SceneScores,
)


@estimated(plan.reasoner)
def prepare_reasoner(
    stage: Stage, scenes: tuple[SceneConfig, ...], model: AnyModel | None, display_words: int, lessons: LessonsConfig
) -> ReasonerModel:
    """See to it that the language model is there, or teach a small one to think."""
    if model is not None:
        from squadron.llm.providers import check_models

        check_models([model])
        return ReasonerModel()
    from squadron.methods.actor_reasoner.language import teach

    return teach(stage, scenes, lessons, display_words)


def check_recordings(stage: Stage, paths: tuple[InputPath, ...]) -> Recordings:
    """See to it that the recorded files can be driven in."""
    from squadron.methods.actor_reasoner import recordings

    recordings.check_recordings(paths)
    return Recordings(driven=0)


@estimated(plan.memories)
def build_memory(stage: Stage, world: WorldConfig, reasoner_model: ReasonerModel, memory: MemoryConfig) -> Memories:
    """Let the Reasoner drive, and remember what it decides."""
    from squadron.methods.actor_reasoner import driving
    from squadron.methods.actor_reasoner.benchmark import World

    return driving.build_memory(stage, World(stage.run.folder, world, reasoner_model), memory)


def reinforce(stage: Stage, scenes: tuple[SceneConfig, ...], config: PpoConfig) -> LearnedDriver:
    """Learn to drive by reinforcement, to compare with."""
    from squadron.core.folder import relative
    from squadron.methods.actor_reasoner.ppo import POLICY_FILE, train_ppo

    stage.claim_cluster()
    names = [one.scene for one in scenes]
    train_ppo(names, scenes[0].traffic, scenes[0].drivers, config, stage.folder)
    return LearnedDriver(file=relative(stage.folder, stage.run.folder, POLICY_FILE))


@estimated(plan.comparison)
def compare(
    stage: Stage,
    world: WorldConfig,
    reasoner_model: ReasonerModel,
    memories: Memories,
    learned: LearnedDriver,
    evaluation: EvaluationConfig,
) -> SceneScores:
    """Drive unseen episodes by every method."""
    from squadron.methods.actor_reasoner import driving
    from squadron.methods.actor_reasoner.benchmark import World

    return driving.compare(stage, World(stage.run.folder, world, reasoner_model), memories, learned, evaluation)


@estimated(plan.live)
def drive_live(
    stage: Stage, world: WorldConfig, reasoner_model: ReasonerModel, memories: Memories, live: LiveConfig
) -> Live:
    """Drive by the clock, with Reasoners that run beside."""
    from squadron.methods.actor_reasoner import driving
    from squadron.methods.actor_reasoner.benchmark import World

    return driving.drive_live(stage, World(stage.run.folder, world, reasoner_model), memories, live)


def drive_recorded(
    stage: Stage,
    world: WorldConfig,
    reasoner_model: ReasonerModel,
    memories: Memories,
    learned: LearnedDriver,
    paths: tuple[InputPath, ...],
) -> Recordings:
    """Drive among recorded cars."""
    from squadron.methods.actor_reasoner import recordings
    from squadron.methods.actor_reasoner.benchmark import World

    return recordings.drive_recorded(stage, World(stage.run.folder, world, reasoner_model), memories, learned, paths)
