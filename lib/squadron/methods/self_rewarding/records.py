"""What the stages of a self-rewarding run hand on to each other. Files are named relative to the run folder."""

from __future__ import annotations

import math
from collections.abc import Sequence

from squadron.core.config import Config
from squadron.data.rows import RowsFile
from squadron.evaluate.summary import Estimate, estimate


class Sources(Config):
    """What a run learns from and is measured by: problems as JSON lines `{id, question, reference}`."""

    training: RowsFile
    benchmarks: tuple[tuple[str, RowsFile], ...]


class Lessons(Config):
    """What the first model learns from: JSON lines `{question, steps}` (instruction data), and
    `{question, steps, first, second, judgement, better}` or, rewarding by outcome, `{question, solution, judgement,
    score}` (evaluation data). Held out are pairs to judge, `{question, steps, first, second, better}`; without steps,
    of whole solutions."""

    instruction: RowsFile
    evaluation: RowsFile
    held_out: RowsFile


class Preferences(RowsFile):
    """What a model made of a round's questions: JSON lines `{id, question, steps, chosen, rejected}`, and counts. If
    `whole`, these are solutions, and there are no steps before them."""

    problems: int
    finished: int
    dropped: int
    unfinished: int
    whole: bool = False


class BenchmarkResult(Config):
    """Whether each problem of a benchmark was solved, in the order of its file, and what the solutions look like. None:
    its reply failed, which counts neither way."""

    name: str
    right: tuple[bool | None, ...]
    unfinished: int
    steps: float
    step_tokens: float

    @property
    def score(self) -> Estimate:
        """The share that was solved, of problems that have a reply."""
        return estimate(self.right, share=True)

    @property
    def accuracy(self) -> float:
        return self.score.mean


class JudgeResult(Config):
    """Whether each held-out contest was judged right as it stands and with its sides swapped, and how often the first
    side was named; contests whose judgements failed are left out."""

    right: tuple[bool, ...]
    right_swapped: tuple[bool, ...]
    named_first: int
    unreadable: int

    @property
    def score(self) -> Estimate:
        """The share judged right over both orders, with an interval over contests: two orders of one are alike."""
        return estimate([[both] for both in zip(self.right, self.right_swapped, strict=True)])

    @property
    def accuracy(self) -> float:
        return self.score.mean

    @property
    def accuracy_shown(self) -> float:
        return _share(self.right)

    @property
    def accuracy_swapped(self) -> float:
        return _share(self.right_swapped)

    @property
    def position_bias(self) -> float:
        """How much more often the first side is named than the second, of all readable verdicts: 0 is none."""
        readable = 2 * len(self.right) - self.unreadable
        return abs(2 * self.named_first / readable - 1) if readable else 0.0


class Evaluation(Config):
    """What a model can do."""

    model: str
    benchmarks: tuple[BenchmarkResult, ...]
    judge: JudgeResult


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else math.nan
