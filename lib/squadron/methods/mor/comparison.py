"""Every method on the questions that nothing was learned or chosen by. Q questions, M methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from squadron.core.config import Config
from squadron.core.panels import Cell, Table
from squadron.core.run import Stage
from squadron.data.rows import RowsFile, store_rows
from squadron.evaluate.panels import estimate_bars, headline
from squadron.evaluate.rankings import score_rankings
from squadron.evaluate.statistics import paired_randomization_test
from squadron.evaluate.summary import Estimate, estimate
from squadron.methods.mor.config import EvaluationConfig
from squadron.methods.mor.records import Asked, Found, Knowledge, Ranked
from squadron.retrieval.ranking import Ranking

MEASURES = ("hit@1", "hit@5", "recall@20", "mrr@100")
"""The paper's. A node that is not ranked stands below all that are."""


class Measured(Config):
    """What one method reaches on the test questions of a kind; of all with an empty kind."""

    method: str
    kind: str
    hit1: Estimate
    hit5: Estimate
    recall20: Estimate
    mrr: Estimate


class Comparison(Config):
    """All methods by kinds of questions, and each value of each question as rows."""

    methods: tuple[Measured, ...]
    values: RowsFile


def compare(
    stage: Stage, knowledge: Knowledge, rankings: tuple[Ranked, ...], found: tuple[Found, ...], config: EvaluationConfig
) -> Comparison:
    """Measure all methods on the test questions, by kind, and show how the last differs from the others."""
    from squadron.methods.mor.report import gallery

    run = stage.run.folder
    graph, every = knowledge.open_graph(run), knowledge.asked(run)
    rows = np.array([row for row, one in enumerate(every) if one.part == "test"])
    asked = [every[row] for row in rows]
    opened = {one.method: one.ranking(run) for one in rankings}
    values = {name: _values(asked, graph.ids, ranking, rows) for name, ranking in opened.items()}
    kinds = ["", *dict.fromkeys(one.kind for one in asked)]
    measured = [_measure(name, kind, found_, asked) for name, found_ in values.items() for kind in kinds]
    stored = store_rows(stage, "values.arrow", _rows(values, asked), _TYPES)
    stage.show(_overview(measured))
    stage.show(_by_kind(measured, kinds[1:]))
    best = rankings[-1].method
    stage.show(_differences(values, best))
    bars = {one.method: one.hit1 for one in measured if not one.kind}
    stage.show(estimate_bars("The first answer is right", "Hit@1", bars))
    places = {one.id: opened[best].places_QK[row] for row, one in zip(rows, asked, strict=True)}
    for panel in gallery(graph, asked, found[0].read(run), places, config.shown):
        stage.show(panel)
    whole = next(one for one in measured if one.method == best and not one.kind)
    headline(stage, f"Hit@1 of {best}", whole.hit1, ".1%")
    stage.measure(hit1=whole.hit1.mean, mrr=whole.mrr.mean, recall20=whole.recall20.mean)
    return Comparison(methods=tuple(measured), values=stored)


_TYPES = {"id": "string", "kind": "string", "method": "string", **dict.fromkeys(MEASURES, "float64")}
Values = dict[str, np.ndarray]


def _values(asked: Sequence[Asked], ids: Sequence[str], ranking: Ranking, rows: np.ndarray) -> Values:
    """Each measure of each question. Scores are ranks: equal ones then stand in the ranking's own order."""
    places_QK = ranking.places_QK[rows]
    scores_QK = np.where(places_QK < 0, -np.inf, -np.arange(places_QK.shape[1], dtype=float))
    named = [ids[place] for place in range(len(ids))]
    return score_rankings([one.judged() for one in asked], named, Ranking(places_QK, scores_QK), MEASURES)


def _measure(method: str, kind: str, values: Values, asked: Sequence[Asked]) -> Measured:
    own = np.array([kind in ("", one.kind) for one in asked])
    hit1, hit5, recall20, mrr = (
        estimate(values[name][own], share=name.startswith("hit")) for name in MEASURES
    )  # fmt: skip
    return Measured(method=method, kind=kind, hit1=hit1, hit5=hit5, recall20=recall20, mrr=mrr)


def _rows(values: dict[str, Values], asked: Sequence[Asked]) -> list[dict[str, object]]:
    return [
        {"id": one.id, "kind": one.kind, "method": method, **{name: float(found[name][row]) for name in MEASURES}}
        for method, found in values.items()
        for row, one in enumerate(asked)
    ]


def _overview(measured: Sequence[Measured]) -> Table:
    rows: list[list[Cell]] = [
        [one.method, one.hit1.count, *(found.text(".3f") for found in (one.hit1, one.hit5, one.recall20, one.mrr))]
        for one in measured
        if not one.kind
    ]
    note = "Means over the test questions, in brackets 95% intervals. What a method does not rank is no hit."
    columns = ["method", "questions", "Hit@1", "Hit@5", "Recall@20", "MRR"]
    return Table(title="Answers found", columns=columns, rows=rows, note=note)


def _by_kind(measured: Sequence[Measured], kinds: Sequence[str]) -> Table:
    found = {(one.method, one.kind): one.hit1.text(".3f") for one in measured}
    rows: list[list[Cell]] = [
        [method, *(found[method, kind] for kind in kinds)] for method in dict.fromkeys(one.method for one in measured)
    ]
    return Table(title="Hit@1 by kind of question", columns=["method", *kinds], rows=rows)


def _differences(values: dict[str, Values], best: str) -> Table:
    """How the last method differs from each other on the same questions."""
    rows: list[list[Cell]] = []
    for other, found in values.items():
        if other != best:
            gained = values[best]["hit@1"] - found["hit@1"]
            p = paired_randomization_test(values[best]["hit@1"].tolist(), found["hit@1"].tolist())
            rows.append([other, estimate(100 * gained).text("+.1f"), f"{p:.4f}"])
    note = "Differences in Hit@1 on the same questions with 95% intervals; p by a randomisation test, not corrected."
    return Table(title=f"What {best} gains", columns=["over", "points", "p"], rows=rows, note=note)
