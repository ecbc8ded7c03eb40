"""What every method made of every problem, aligned, so that methods are compared on the same problems.

Letters: M methods, P problems, S seeds, T trials that a problem was given with one seed (episodes in one home, say).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from squadron.evaluate.summary import Estimate, estimate

Metrics = Mapping[str, Any]
"""What a method made of one problem, by metric: a number, one a trial, or None where there is none (no plan found)."""


@dataclass(frozen=True)
class Problem:
    """One problem, which all methods are given.

    `group` tells kinds of problems apart (a size, a world), which are summarised one by one. `data` is what the scoring
    function needs to know of the problem, as JSON values.
    """

    name: int | str
    group: tuple[int | str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scores:
    """Values by metric, (M, P, S, T), NaN where there is none; `answered_MPS` says what was scored at all."""

    methods: tuple[str, ...]
    problems: tuple[Problem, ...]
    values: Mapping[str, np.ndarray]
    answered_MPS: np.ndarray

    @staticmethod
    def collect(
        methods: Sequence[str],
        problems: Sequence[Problem],
        seeds: Sequence[int],
        records: Iterable[tuple[str, int | str, int, Metrics]],
    ) -> Scores:
        """From records (method, problem's name, seed, metrics), in any order. What has no record counts as failed."""
        at_M, at_S = ({name: place for place, name in enumerate(names)} for names in (methods, seeds))
        at_P = {problem.name: place for place, problem in enumerate(problems)}
        answered_MPS = np.zeros((len(at_M), len(at_P), len(at_S)), bool)
        found = [((at_M[method], at_P[name], at_S[seed]), metrics) for method, name, seed, metrics in records]
        trials: dict[str, int] = {}
        for _, metrics in found:
            for metric, value in metrics.items():
                trials[metric] = max(trials.get(metric, 1), len(value) if isinstance(value, Sequence) else 1)
        values = {metric: np.full((*answered_MPS.shape, most), np.nan) for metric, most in trials.items()}
        for place, metrics in found:
            answered_MPS[place] = True
            for metric, value in metrics.items():
                several = value if isinstance(value, Sequence) else [value]
                values[metric][(*place, slice(len(several)))] = np.array(several, float)  # None becomes NaN
        return Scores(tuple(methods), tuple(problems), values, answered_MPS)

    @staticmethod
    def of_arrays(metric: str, arrays: Mapping[str, Any]) -> Scores:
        """From what was scored elsewhere: for each method an array (P), (P, S) or (P, S, T), NaN or None where a score
        is missing. Methods may have different numbers of seeds."""
        cubes = {name: _cube(array) for name, array in arrays.items()}
        shape = np.array([cube.shape for cube in cubes.values()]).max(0)
        values_MPST = np.full((len(cubes), *shape), np.nan)
        for place, cube in enumerate(cubes.values()):
            problems, seeds, trials = cube.shape
            values_MPST[place, :problems, :seeds, :trials] = cube
        answered_MPS: np.ndarray = np.isfinite(values_MPST).max(-1)
        return Scores(tuple(cubes), tuple(map(Problem, range(shape[0]))), {metric: values_MPST}, answered_MPS)

    def of(self, method: str, metric: str) -> np.ndarray:
        """A method's values, (P, S, T)."""
        values_PST: np.ndarray = self.values[metric][self.methods.index(method)]
        return values_PST

    def estimate(self, method: str, metric: str, *, share: bool = False) -> Estimate:
        """The mean of a metric with its 95% interval; see `summary.estimate`."""
        return estimate(self.of(method, metric), share=share)

    def difference(self, method: str, other: str, metric: str, scale: float = 1.0) -> Estimate:
        """How much more a method has than another on the same problems and seeds, where both have a value, times
        `scale`."""
        return estimate(scale * (self.of(method, metric) - self.of(other, metric)))

    def total(self, method: str, metric: str) -> float:
        """The sum of a metric over all that there is of it."""
        values = self.of(method, metric)
        return math.fsum(values[np.isfinite(values)])

    def answered(self, method: str) -> bool:
        """Whether the method was scored on any problem."""
        return bool(self.answered_MPS[self.methods.index(method)].any())

    def complete(self, method: str) -> bool:
        """Whether the method was scored on every problem with every seed."""
        return bool(self.answered_MPS[self.methods.index(method)].all())

    def only(self, methods: Sequence[str]) -> Scores:
        """Some of the methods, in this order."""
        at = [self.methods.index(method) for method in methods]
        values = {metric: values_MPST[at] for metric, values_MPST in self.values.items()}
        return dataclasses.replace(self, methods=tuple(methods), values=values, answered_MPS=self.answered_MPS[at])

    def groups(self) -> dict[tuple[int | str, ...], Scores]:
        """The problems of each group by themselves, groups in order."""
        groups = sorted({problem.group for problem in self.problems})
        return {group: self._at([problem.group == group for problem in self.problems]) for group in groups}

    def with_metric(self, metric: str, values_MPST: np.ndarray) -> Scores:
        """The same with one metric more, computed from the others."""
        return dataclasses.replace(self, values={**self.values, metric: values_MPST})

    def _at(self, chosen_P: Sequence[bool]) -> Scores:
        problems = tuple(problem for problem, chosen in zip(self.problems, chosen_P, strict=True) if chosen)
        values = {metric: values_MPST[:, chosen_P] for metric, values_MPST in self.values.items()}
        return dataclasses.replace(self, problems=problems, values=values, answered_MPS=self.answered_MPS[:, chosen_P])


def _cube(array: Any) -> np.ndarray:
    values = np.asarray(array, float)
    return values.reshape(*values.shape, *[1] * (3 - values.ndim))
