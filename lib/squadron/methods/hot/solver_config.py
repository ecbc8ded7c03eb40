"""Settings of the house's own solver."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from squadron.core.config import Config
from squadron.core.rehearsal import AtMost
from squadron.train.models.random_init import SmallModelConfig
from squadron.train.spec import OptimizerConfig, ScheduleConfig, TrainSpec


class WorldConfig(Config):
    """Word problems to learn from and to be asked, where no task is given."""

    fewest_steps: int = Field(1, ge=1)
    most_steps: int = Field(2, ge=1)
    largest: int = Field(20, ge=10, description="no number of a solution is larger")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.fewest_steps > self.most_steps:
            raise ValueError(f"fewest_steps {self.fewest_steps} is more than most_steps {self.most_steps}")
        return self


class SolverConfig(SmallModelConfig):
    """A small model that learns from random weights to solve problems in each mode of the run that can be learned."""

    name: str = Field("solver", min_length=1)
    world: WorldConfig = WorldConfig()
    problems: Annotated[int, AtMost(16)] = Field(4000, ge=10, description="to learn from, each in every mode")
    sums: Annotated[int, AtMost(16)] = Field(1500, ge=0, description="single steps to learn from, without a question")
    vocabulary: int = Field(600, ge=300)
    hidden_size: Annotated[int, AtMost(32)] = Field(96, ge=16)
    layers: Annotated[int, AtMost(1)] = Field(3, ge=1)
    heads: Annotated[int, AtMost(2)] = Field(4, ge=1)
    context: int = Field(512, ge=128)
    initializer_range: float = Field(0.1, gt=0, description="so wide, small models learn to copy much sooner")
    rope_theta: float = Field(100.0, gt=1, description="so short, for texts of some hundred tokens")
    training: TrainSpec = Field(
        TrainSpec(
            batch_size=16,
            micro_batch_size=16,
            max_length=512,
            optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.01),
            schedule=ScheduleConfig(final_ratio=0.0),
        ),
        description="its seed also draws the weights",
    )
