"""The small world: tasks that can be checked, and a crowd of small models of several families that answer them.

It stands in for hub models where there is neither a key nor a GPU, so that the method runs whole, at the size of a
laptop. The crowd is trained by the house, once: a user's later runs find it in the cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from squadron.core.config import Config
from squadron.data.tasks import KINDS, Task, tasks
from squadron.train.spec import OptimizerConfig, TrainSpec

Architecture = Literal["llama", "gpt_neox", "qwen3"]


class MemberConfig(Config):
    """One size of a family."""

    hidden_size: int = Field(ge=8)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    epochs: float = Field(1.0, gt=0, description="passes over the family's tasks")

    @model_validator(mode="after")
    def _heads_divide(self) -> MemberConfig:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.heads}")
        return self


class FamilyConfig(Config):
    """Models of one architecture that learned from the same tasks, small to large."""

    name: str
    architecture: Architecture
    kinds: tuple[str, ...] = Field(tuple(KINDS), description="kinds of task that it learned from")
    members: tuple[MemberConfig, ...] = Field(min_length=1)


class WorldConfig(Config):
    """The tasks and the crowd, where no pool and no models are given."""

    pool: int = Field(3000, ge=10, description="instructions to choose from")
    held_out: int = Field(500, ge=10, description="instructions to compare students by")
    lessons: int = Field(12_000, ge=10, description="tasks that each family learns from")
    base_lessons: int = Field(3000, ge=10, description="tasks that the students' base model has learned from")
    vocabulary: int = Field(512, ge=300)
    context: int = Field(160, ge=32)
    families: tuple[FamilyConfig, ...] = (
        FamilyConfig(
            name="llama",
            architecture="llama",
            members=(
                MemberConfig(hidden_size=48, layers=2, heads=4),
                MemberConfig(hidden_size=96, layers=3, heads=4),
                MemberConfig(hidden_size=160, layers=4, heads=4),
            ),
        ),
        FamilyConfig(
            name="neox",
            architecture="gpt_neox",
            members=(
                MemberConfig(hidden_size=48, layers=2, heads=4),
                MemberConfig(hidden_size=128, layers=4, heads=4),
            ),
        ),
    )
    base_architecture: Architecture = "llama"
    base: MemberConfig = MemberConfig(hidden_size=128, layers=3, heads=4)
    training: TrainSpec = TrainSpec(
        batch_size=32,
        micro_batch_size=32,
        max_length=160,
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.01),
    )
    seed: int = Field(0, ge=0)


def all_tasks(world: WorldConfig) -> Iterator[Task]:
    """All tasks of the world, no instruction twice: the pool, those kept out, then those that models learn from."""
    return tasks(world.pool + world.held_out + world.lessons + world.base_lessons, world.seed)


def pool_tasks(world: WorldConfig) -> Iterator[Task]:
    """The instructions to choose from."""
    return itertools.islice(all_tasks(world), world.pool)


def held_out_tasks(world: WorldConfig) -> Iterator[Task]:
    """The instructions that students are compared by."""
    return itertools.islice(all_tasks(world), world.pool, world.pool + world.held_out)


def lesson_tasks(world: WorldConfig) -> Iterator[Task]:
    """The tasks that the crowd learns from."""
    start = world.pool + world.held_out
    return itertools.islice(all_tasks(world), start, start + world.lessons)


def base_tasks(world: WorldConfig) -> Iterator[Task]:
    """The tasks that the students' base model has learned from."""
    return itertools.islice(all_tasks(world), world.pool + world.held_out + world.lessons, None)
