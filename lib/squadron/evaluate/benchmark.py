"""Score methods on problems, as rows over the cluster: resumed after a kill, and failures kept and tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from squadron.core.errors import WorkerError
from squadron.core.profile import WorkerResources
from squadron.core.rows import Row, map_rows
from squadron.core.run import Stage
from squadron.evaluate.scores import Metrics, Problem, Scores


@dataclass(frozen=True)
class Cell:
    """What a worker scores at once: some methods on some problems, with one seed."""

    methods: tuple[str, ...]
    problems: tuple[Problem, ...]
    seed: int


def run_benchmark(
    stage: Stage,
    methods: Sequence[str],
    problems: Sequence[Problem],
    score: Callable[..., Sequence[Metrics]],
    *,
    seeds: Sequence[int] = (0,),
    problems_per_cell: int = 1,
    methods_together: bool = False,
    required: Sequence[str] | None = None,
    whole: Sequence[str] = (),
    unit: str = "score",
    timeout_s: float = 600.0,
    resources: WorkerResources | None = None,
    **context: Any,
) -> Scores:
    """Score every method on every problem with every seed; return what each made of each.

    `score(cell, **context)` runs on a worker and returns the metrics of each method in turn on each problem of the
    cell. A cell is one method on one problem, or on `problems_per_cell` of them (a batch that is simulated at once); or
    all methods, `methods_together`, where one needs what another found. A cell that fails is a failed row of the stage:
    its scores are missing, never zero, and the next run tries it again.

    Raises WorkerError if one of the `required` methods, by default all, has no score at all, or one of the `whole` ones
    lacks some.
    """
    together = [tuple(methods)] if methods_together else [(method,) for method in methods]
    lots = [tuple(problems[n : n + problems_per_cell]) for n in range(0, len(problems), problems_per_cell)]
    cells = [Cell(some, lot, seed) for some in together for seed in seeds for lot in lots]
    named = {_name(cell, methods_together, len(seeds) > 1): cell for cell in cells}
    rows = [{"id": name, **asdict(cell)} for name, cell in named.items()]
    answers = map_rows(
        stage, rows, _score_cell, unit=unit, timeout_s=timeout_s, resources=resources, score=score, context=context
    )
    records = [record for answer in answers for record in _records(named[answer["id"]], answer["metrics"])]
    scores = Scores.collect(methods, problems, seeds, records)
    lost = [name for name in (methods if required is None else required) if not scores.answered(name)]
    lost += [name for name in whole if not scores.complete(name)]
    if lost:
        cause = next((f"{row['item']}: {row['error']}" for row in stage.failures()), "there is no problem to score")
        what = f"{', '.join(lost)} could not be scored; {cause}"
        raise WorkerError(
            what, where=str(stage.folder), fix="fix the cause and give the same command: the rest is kept"
        )
    return scores


def _score_cell(row: Row, score: Callable[..., Sequence[Metrics]], context: Mapping[str, Any]) -> Row:
    """Runs on a worker."""
    problems = tuple(Problem(one["name"], tuple(one["group"]), one["data"]) for one in row["problems"])
    cell = Cell(tuple(row["methods"]), problems, row["seed"])
    metrics = list(score(cell, **context))
    if len(metrics) != len(cell.methods) * len(problems):
        raise ValueError(f"{len(metrics)} scores for {len(cell.methods)} methods on {len(problems)} problems")
    return {"id": row["id"], "metrics": metrics}


def _records(cell: Cell, metrics: Sequence[Metrics]) -> Iterator[tuple[str, int | str, int, Metrics]]:
    pairs = [(method, problem.name) for method in cell.methods for problem in cell.problems]
    for (method, name), one in zip(pairs, metrics, strict=True):
        yield method, name, cell.seed, one


def _name(cell: Cell, methods_together: bool, several_seeds: bool) -> str:
    """What a failed row is called in the report."""
    first, last = cell.problems[0].name, cell.problems[-1].name
    parts = [] if methods_together else list(cell.methods)
    parts += [f"{first}" if first == last else f"{first} to {last}"]
    return ", ".join([*parts, f"seed {cell.seed}"] if several_seeds else parts)
