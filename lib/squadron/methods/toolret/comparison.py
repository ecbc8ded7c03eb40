"""Every method on every query: values, macro averages over categories, paired differences. Q queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from squadron.core.run import Stage
from squadron.data.rows import store_rows
from squadron.evaluate.rankings import score_rankings
from squadron.evaluate.summary import estimate, macro_estimate
from squadron.methods.toolret.config import EvaluationConfig
from squadron.methods.toolret.records import Benchmark, Comparison, Measured, Ranked

Values = dict[str, np.ndarray]
"""By measure: a value of each query, NaN where there is none."""


def compare(stage: Stage, benchmark: Benchmark, rankings: tuple[Ranked, ...], config: EvaluationConfig) -> Comparison:
    """Measure all rankings, query by query, and show tables and figures."""
    from squadron.methods.toolret import report

    queries, documents = benchmark.asked(stage.run.folder), benchmark.documents(stage.run.folder)
    ids = [document.id for document in documents]
    categories = [one for (one,) in benchmark.queries.rows(stage.run.folder).columns("category")]
    values: list[Values] = []
    for ranked in rankings:
        found = score_rankings(queries, ids, ranked.ranking(stage.run.folder), config.names)
        for value_Q in found.values():
            value_Q[list(ranked.failed)] = np.nan
        values.append(found)
    measured = tuple(measure(ranked, found, categories, config) for ranked, found in zip(rankings, values, strict=True))
    rows = _rows(rankings, values, [query.id for query in queries], categories)
    types = {"id": "string", "category": "string", "method": "string", "instructed": "bool"}
    stored = store_rows(stage, "values.arrow", rows, {**types, **dict.fromkeys(config.names, "float64")})
    shown = report.Shown(stage.run.folder, benchmark, rankings, measured, values, categories, config)
    for panel in shown.panels():
        stage.show(panel)
    best = max(measured, key=lambda one: one.ndcg.mean)
    label = f"{best.method}, {'with' if best.instructed else 'without'} instructions"
    stage.headline(f"best nDCG@{config.k}: {label}", best.ndcg.text(".1%") or "–")
    stage.measure(ndcg=best.ndcg.mean, completeness=best.completeness.mean)
    return Comparison(methods=measured, values=stored)


def measure(ranked: Ranked, values: Values, categories: Sequence[str], config: EvaluationConfig) -> Measured:
    """The macro average of a method, and the means of each category."""
    ndcg_Q, complete_Q = values[f"ndcg@{config.k}"], values[f"completeness@{config.k}"]
    of_Q = np.array(categories)
    return Measured(
        method=ranked.method,
        instructed=ranked.instructed,
        ndcg=macro_estimate(ndcg_Q, categories),
        completeness=macro_estimate(complete_Q, categories),
        by_category={
            name: (estimate(ndcg_Q[of_Q == name]), estimate(complete_Q[of_Q == name], share=True))
            for name in dict.fromkeys(categories)
        },
    )


def _rows(
    rankings: Sequence[Ranked], values: Sequence[Values], ids: Sequence[str], categories: Sequence[str]
) -> Iterator[dict[str, object]]:
    for ranked, found in zip(rankings, values, strict=True):
        for place, (name, category) in enumerate(zip(ids, categories, strict=True)):
            numbers = {measure: float(value_Q[place]) for measure, value_Q in found.items()}
            missing = {measure: None if np.isnan(value) else value for measure, value in numbers.items()}
            yield {
                "id": name,
                "category": category,
                "method": ranked.method,
                "instructed": ranked.instructed,
                **missing,
            }
