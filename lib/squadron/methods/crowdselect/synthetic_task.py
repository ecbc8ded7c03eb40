"""The small world: tasks that can be checked, and a crowd of small models of several families that answer them.

It stands in for hub models where there is neither a key nor a GPU, so that the method runs whole, at the size of a
laptop. The crowd is trained by the house, once: a user's later runs find it in the cache.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from squadron.core.config import Config
from squadron.core.rehearsal import AtMost
from squadron.data.tasks import KINDS, LEVELS, Task, blank, draw_task, tasks
from squadron.train.models.builders import Architecture, FromConfig
from squadron.train.models.random_init import SmallModelConfig
from squadron.train.spec import OptimizerConfig, TrainSpec


class MemberConfig(SmallModelConfig):
    """One size of a family."""

    intermediate_size: int = Field(ge=8)
    learning_rate: float = Field(5e-3, gt=0)


class FamilyConfig(Config):
    """Models of one architecture that learned from the same tasks, small to large."""

    name: str
    architecture: Architecture
    lessons: Annotated[int, AtMost(64)] = Field(60_000, ge=10, description="tasks that each learns from, once")
    kinds: tuple[str, ...] = Field(KINDS, description="kinds of task among them; one named twice comes twice as often")
    levels: tuple[int, ...] = LEVELS
    plain: bool = Field(False, description="learned from plain text: has never seen a conversation")
    members: tuple[MemberConfig, ...] = Field(min_length=1)


# One layer cannot look up what stands at a place, two can: sizes whose order in skill does not hang on luck.
SIZES = (
    MemberConfig(hidden_size=16, layers=1, intermediate_size=48, learning_rate=4e-3),
    MemberConfig(hidden_size=32, layers=1, intermediate_size=88, learning_rate=4e-3),
    MemberConfig(hidden_size=48, layers=2, intermediate_size=128, learning_rate=3e-3),
)
LETTERS, LISTS = ("reverse", "nth_letter", "capitals", "last_letters"), ("largest", "smallest", "sort", "greater")
ALL = ("sum", *LETTERS, *LISTS)


class TasksConfig(Config):
    """The tasks, where no pool is given."""

    pool: Annotated[int, AtMost(40)] = Field(3000, ge=10, description="instructions to choose from")
    held_out: Annotated[int, AtMost(12)] = Field(1000, ge=10, description="instructions to compare students by")
    unanswerable: float = Field(
        0.4, ge=0, lt=1, description="share of the pool that nobody can answer, as generated pools hold such"
    )
    kinds: tuple[str, ...] = Field(ALL, description="kinds of task among both")
    seed: int = Field(0, ge=0)


class WorldConfig(TasksConfig):
    """The tasks and the models, where no pool and no models are given."""

    vocabulary: Annotated[int, AtMost(400)] = Field(600, ge=300)
    context: int = Field(128, ge=32)
    families: tuple[FamilyConfig, ...] = (
        FamilyConfig(name="qwen3", architecture="qwen3", kinds=(*ALL, *LISTS), members=SIZES),
        FamilyConfig(name="neox", architecture="gpt_neox", kinds=(*ALL, *LETTERS), members=SIZES),
    )
    base: FamilyConfig = Field(
        FamilyConfig(
            name="base",
            architecture="qwen3",
            lessons=70_000,
            kinds=ALL,
            plain=True,
            members=(MemberConfig(hidden_size=64, intermediate_size=176, learning_rate=4e-3),),
        ),
        description="what students start from",
    )
    initializer_range: float = Field(0.1, gt=0, description="so wide, small models learn to copy much sooner")
    rope_theta: float = Field(100.0, gt=1, description="so short, for instructions of some dozens of tokens")
    training: TrainSpec = TrainSpec(
        batch_size=32,
        micro_batch_size=32,
        max_length=128,
        optimizer=OptimizerConfig(weight_decay=0.01),
    )

    def model(self, family: FamilyConfig, member: MemberConfig) -> FromConfig:
        """One model, at its start."""
        shape = member.shape(self.vocabulary, self.context, self.initializer_range, self.rope_theta)
        return replace(shape, intermediate_size=member.intermediate_size, architecture=family.architecture)


def pool_tasks(world: TasksConfig) -> Iterator[Task]:
    """The instructions to choose from; those that nobody can answer stand anywhere among them."""
    draw, seen = random.Random(f"{world.seed} pool"), set[str]()
    for task in _asked(world)[: world.pool]:
        blanked = blank(draw, task) if draw.random() < world.unanswerable else task
        if blanked.instruction not in seen:
            seen.add(blanked.instruction)
            yield blanked


def held_out_tasks(world: TasksConfig) -> Iterator[Task]:
    """The instructions that students are compared by; all can be answered."""
    return iter(_asked(world)[world.pool :])


def lesson_tasks(world: TasksConfig, family: FamilyConfig) -> Iterator[Task]:
    """The tasks that a family learns from: none of those that it is asked, else as they come, some more than once."""
    asked = {task.instruction for task in _asked(world)}
    draw = random.Random(f"{world.seed} {family.name}")
    left = family.lessons
    while left:
        task = draw_task(draw, draw.choice(family.kinds), draw.choice(family.levels))
        if task.instruction not in asked:
            left -= 1
            yield task


def _asked(world: TasksConfig) -> list[Task]:
    """The pool, then those kept out: no instruction twice, in an order that does not go by when they were drawn."""
    drawn = list(tasks(world.pool + world.held_out, world.seed, world.kinds))
    random.Random(world.seed).shuffle(drawn)
    return drawn
