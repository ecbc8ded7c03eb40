"""Word problems with facts in tags by construction, and what a small model learns from them: to solve and to highlight.

Each quantity that a question tells is a fact, and so is each place of the solution that takes it from there. What
follows from others, such as the result of a step, is none.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from squadron.data.arithmetic import Problem, draw_problem, problems
from squadron.methods.hot.config import Mode
from squadron.methods.hot.demonstrations import Demonstration
from squadron.methods.hot.prompts import write_demonstration, write_prompt
from squadron.methods.hot.rehearsal import highlight
from squadron.methods.hot.solver_config import SolverConfig, WorldConfig


def learned_modes(modes: Sequence[Mode]) -> list[Mode]:
    """The modes that can be learned: of those that ask alike without demonstrations, HoT's alone."""
    return [mode for mode in modes if mode not in ("random_tags", "zero_shot")]


class Lesson(NamedTuple):
    """What a model is asked, and what it is to answer; without a question it is plain text."""

    prompt: str
    answer: str


def draw_world(config: WorldConfig, asked: int, learned: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Problems to be asked and, after them in the same stream, others to learn from: no question is in both."""
    stream = problems(asked + learned, seed, config.fewest_steps, config.most_steps, config.largest)
    return list(itertools.islice(stream, asked)), list(stream)


def lessons(config: SolverConfig, modes: Sequence[Mode], learned: Sequence[Problem]) -> Iterator[Lesson]:
    """All lessons: sums, then each problem in every mode, so that no mode has seen other problems than another, or
    more of them."""
    stream = random.Random(f"{config.training.seed} sums")
    for _ in range(config.sums):
        (step,) = draw_problem(stream, 1, config.world.largest).steps
        yield Lesson("", step)
    for problem in learned:
        for mode in learned_modes(modes):
            yield Lesson(write_prompt(mode, problem.question, ()), write_answer(mode, problem))


def write_answer(mode: Mode, problem: Problem) -> str:
    """A right answer as a mode has it, with tags where the mode has any."""
    question, answer = highlight(problem)
    shown = Demonstration(problem.question, question.write(), answer.write())
    return write_demonstration(mode, shown).partition("\n")[2]  # without the question as it was asked
