"""The small world: word problems in steps, judgements of two steps, and a small model that learns both from nothing.

It stands in for hub models and data where there are none, so that the programme runs whole, at the size of a laptop.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Annotated, NamedTuple, Self

from pydantic import Field, model_validator

from squadron.core.config import Config
from squadron.core.rehearsal import AtMost
from squadron.data.arithmetic import Problem, draw_problem, problems
from squadron.data.stepwise import Contest, contests, right_step, solution_steps
from squadron.train.models.builders import FromConfig
from squadron.train.models.random_init import SmallModelConfig
from squadron.train.spec import OptimizerConfig, TrainSpec


class TasksConfig(Config):
    """The tasks, where none are given."""

    fewest_steps: int = Field(2, ge=1)
    most_steps: int = Field(3, ge=1)
    largest: int = Field(50, ge=20, description="no number of a right solution is larger")
    worked: float = Field(0.35, ge=0, le=1, description="share of the steps to learn from that are worked out")
    sums: Annotated[int, AtMost(64)] = Field(
        30_000, ge=10, description="operations worked out digit by digit, that the base model reads"
    )
    texts: Annotated[int, AtMost(64)] = Field(8_000, ge=10, description="solved problems that the base model reads")
    solutions: Annotated[int, AtMost(64)] = Field(
        3_000, ge=10, description="solved problems to tune on (instruction data)"
    )
    contests: Annotated[int, AtMost(64)] = Field(
        12_000, ge=10, description="judged contests to tune on (evaluation data)"
    )
    held_out_contests: Annotated[int, AtMost(10)] = Field(400, ge=10)
    held_out: Annotated[int, AtMost(10)] = Field(500, ge=10, description="problems that models are measured by")

    @model_validator(mode="after")
    def _steps_in_order(self) -> Self:
        if self.fewest_steps > self.most_steps:
            raise ValueError(f"fewest_steps {self.fewest_steps} is more than most_steps {self.most_steps}")
        return self

    @property
    def range(self) -> tuple[int, int, int]:
        """Fewest and most steps, and the largest number."""
        return self.fewest_steps, self.most_steps, self.largest


class WorldConfig(TasksConfig, SmallModelConfig):
    """The tasks and the model, where none are given."""

    vocabulary: int = Field(440, ge=300)
    hidden_size: Annotated[int, AtMost(32)] = Field(128, ge=16)
    layers: Annotated[int, AtMost(1)] = Field(3, ge=1)
    heads: Annotated[int, AtMost(2)] = Field(4, ge=1)
    context: int = Field(512, ge=64)
    initializer_range: float = Field(0.1, gt=0, description="so wide, small models learn to copy much sooner")
    rope_theta: float = Field(100.0, gt=1, description="so short, for texts of some hundred tokens")
    training: TrainSpec = Field(
        TrainSpec(
            batch_size=48,
            micro_batch_size=48,
            max_length=512,
            optimizer=OptimizerConfig(learning_rate=4e-3, weight_decay=0.01),
        ),
        description="of the base model, M0",
    )

    @property
    def model(self) -> FromConfig:
        """The small model, at its start."""
        return self.shape(self.vocabulary, self.context, self.initializer_range, self.rope_theta)


class Drawn(NamedTuple):
    """Problems by what they are for; no question is in two of them."""

    held_out: list[Problem]
    held_out_contests: list[Problem]
    rounds: list[Problem]
    solutions: list[Problem]
    contests: list[Problem]
    texts: list[Problem]


def draw(world: TasksConfig, seed: int, rounds: int) -> Drawn:
    """All problems of a run, `rounds` of them for the rounds."""
    counts = (world.held_out, world.held_out_contests, rounds, world.solutions, world.contests, world.texts)
    stream = problems(sum(counts), seed, *world.range)
    return Drawn(*(list(itertools.islice(stream, count)) for count in counts))


def draw_contests(drawn: Drawn, seed: int, worked: float) -> tuple[list[Contest], list[Contest]]:
    """Judged contests to tune on, and those held out."""
    return list(contests(drawn.contests, seed, worked)), list(contests(drawn.held_out_contests, seed + 1, worked))


def base_texts(drawn: Drawn, world: TasksConfig, seed: int) -> Iterator[tuple[str, str]]:
    """What the base model reads, as (given, text to learn): operations worked out digit by digit, then whole solutions.

    Like a model from pre-training it has seen arithmetic and solutions, and neither a conversation nor a judgement.
    """
    stream, left = random.Random(f"{seed} sums"), world.sums
    while left:
        problem = draw_problem(stream, stream.randint(world.fewest_steps, world.most_steps), world.largest)
        steps = solution_steps(problem)
        for place in range(len(steps))[:left]:
            yield "", right_step(problem, steps[:place])._replace(worked=True).operation
            left -= 1
    for problem in drawn.texts:
        yield f"{problem.question}\n", "\n".join(solution_steps(problem, stream, world.worked))
