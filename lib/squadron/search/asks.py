"""What searches ask, and the preference between two steps that they find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Steps = tuple[str, ...]
Verdict = Literal["first", "second"] | None


@dataclass(frozen=True)
class Propose:
    """Ask for `count` next steps after `steps`.

    The answer has that many texts; None stands for no usable step, cut off or failed. `iteration` (from 0) tells apart
    two asks after the same steps: sampling that is seeded must not give the second one the first one's answer.
    """

    steps: Steps
    count: int
    iteration: int


@dataclass(frozen=True)
class Compare:
    """Ask which of two next steps after `steps` is the better one, for every contest (shown first, shown second).

    The answer has one verdict a contest; None stands for no verdict.
    """

    steps: Steps
    contests: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Value:
    """Ask for the process reward of each path's last step: a number in [0, 1], or None where there is none."""

    paths: tuple[Steps, ...]


@dataclass(frozen=True)
class Preference:
    """After `steps`, the step `chosen` is better than the step `rejected`."""

    steps: Steps
    chosen: str
    rejected: str
