"""What the report shows of a choice. N instructions, M models, K clusters."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from squadron.core.panels import Cloud, Heatmap, Histogram, Points, Sample, Table
from squadron.core.run import Stage
from squadron.evaluate.panels import estimate_bars, estimate_table
from squadron.evaluate.summary import Estimate
from squadron.methods.crowdselect.algorithm import METRICS, Metrics
from squadron.methods.crowdselect.config import SelectionConfig
from squadron.methods.crowdselect.field import Field
from squadron.methods.crowdselect.records import ResponseModel

_EXAMPLES = 4
_FITTED_ON = 20_000
_SHOWN_CHARACTERS = 160


def show_crowd(stage: Stage, field: Field, crowd: Sequence[ResponseModel]) -> None:
    """Mean score by model and cluster, and how the metrics are distributed."""
    cluster_N = field.cluster_N if field.cluster_N is not None else np.zeros(len(field.ids), np.intp)
    clusters = int(cluster_N.max()) + 1
    means = [[_mean(field.scores_NM[cluster_N == k, m]) for k in range(clusters)] for m in range(len(crowd))]
    sizes = np.bincount(cluster_N, minlength=clusters)
    stage.show(
        Heatmap(
            title="Mean score by model and cluster",
            rows=[model.name for model in crowd],
            columns=[f"{k + 1} ({sizes[k]})" for k in range(clusters)],
            values=means,
            label="mean score",
            note="Columns: clusters of instructions, with how many each holds.",
        )
    )
    rows: list[list[Any]] = []
    for column, model in enumerate(crowd):
        scores = field.scores_NM[:, column]
        there = np.isfinite(scores)
        rows.append([model.name, model.family, model.size_b, int(there.sum()), _mean(scores)])
    columns = ["model", "family", "parameters [billions]", "scored answers", "mean score"]
    stage.show(Table(title="The crowd", columns=columns, rows=rows))


def show_choices(stage: Stage, field: Field, picked: Mapping[str, np.ndarray], config: SelectionConfig) -> None:
    """The metrics of all instructions and of what was picked, and the arms next to each other."""
    chosen = picked.get("crowdselect")
    for name in METRICS:
        values_N = _metric(field.metrics, name)
        groups = [Sample(name="all", values=values_N[field.metrics.eligible_N])]
        if chosen is not None:
            groups.append(Sample(name="picked", values=values_N[chosen]))
        stage.show(Histogram(title=name.capitalize(), x_label=name, groups=groups))
    rows: list[list[Any]] = []
    for arm, rows_n in picked.items():
        shared = len(np.intersect1d(rows_n, chosen)) / len(rows_n) if chosen is not None else None
        means = [_mean(_metric(field.metrics, name)[rows_n]) for name in METRICS]
        response = _mean(np.array([field.score(row) for row in rows_n]))
        rows.append([arm, len(rows_n), *means, response, None if shared is None else f"{shared:.0%}"])
    columns = ["choice", "instructions", *METRICS, "score of the response", "in CrowdSelect's"]
    weights = ", ".join(f"{weight:g}" for weight in config.weights)
    note = f"Means. CrowdSelect weighs the metrics' percentiles ({weights}); ties by {config.ties}."
    stage.show(Table(title="What each way of choosing takes", columns=columns, rows=rows, note=note))


def show_map(stage: Stage, field: Field, vectors_ND: np.ndarray, picked: np.ndarray) -> None:
    """All instructions on their two main axes, and the picked ones."""
    plane_N2 = project(vectors_ND)
    rest = np.setdiff1d(np.arange(len(field.ids)), picked)
    clouds = [
        Cloud(name=name, x=plane_N2[rows, 0].tolist(), y=plane_N2[rows, 1].tolist(), faint=faint)
        for name, rows, faint in (("passed over", rest, True), ("picked", picked, False))
    ]
    note = "Embeddings of the instructions on their first two principal components."
    stage.show(Points(title="Map of the instructions", groups=clouds, ticks=False, note=note))


def project(vectors_ND: np.ndarray) -> np.ndarray:
    """Two principal components of each row, (N, 2), fitted on an even sample of the rows."""
    step = max(1, len(vectors_ND) // _FITTED_ON)
    sample = np.asarray(vectors_ND[::step], np.float64)
    centre = sample.mean(0)
    _, axes_DD = np.linalg.eigh((sample - centre).T @ (sample - centre))
    axes_D2 = axes_DD[:, :-3:-1]
    # An axis points either way: towards the larger part of its weights, so that a map stays as it was.
    axes_D2 = axes_D2 * np.where(axes_D2.sum(0) < 0, -1.0, 1.0)
    blocks = [np.asarray(vectors_ND[n : n + 65_536], np.float64) - centre for n in range(0, len(vectors_ND), 65_536)]
    return np.concatenate([block @ axes_D2 for block in blocks])


def show_examples(stage: Stage, field: Field, picked: np.ndarray) -> None:
    """Instructions that were picked first, and some that were passed over."""
    rest = np.setdiff1d(np.flatnonzero(field.metrics.eligible_N), picked)
    passed = rest[:: max(1, len(rest) // _EXAMPLES)][:_EXAMPLES]
    for title, rows_n in (("Picked first", picked[:_EXAMPLES]), ("Passed over", passed)):
        rows: list[list[Any]] = [
            [
                _short(field.questions[row]["instruction"]),
                _short(field.response(row)),
                field.score(row),
                *(float(_metric(field.metrics, name)[row]) for name in METRICS),
            ]
            for row in rows_n.tolist()
        ]
        columns = ["instruction", "response", "its score", *METRICS]
        stage.show(Table(title=title, columns=columns, rows=rows))


def show_students(stage: Stage, found: Mapping[str, Estimate], before: float) -> None:
    """Mean score of each arm's students on the instructions kept out, with intervals."""
    stage.show(
        estimate_bars(
            "Students by what they were trained on",
            "mean score on instructions kept out",
            found,
            reference=before,
            reference_name="before",
            note="Mean over seeds; 95% interval over the instructions kept out.",
        )
    )
    seeds = max(len(one.by_seed) for one in found.values())
    names = ["choice", *(f"seed {seed}" for seed in range(seeds))]
    rows = [((arm, *one.by_seed, *[None] * (seeds - len(one.by_seed))), one, ()) for arm, one in found.items()]
    stage.show(estimate_table("Students", names, "mean", rows, form=None, interval_form=".3f"))


def _metric(metrics: Metrics, name: str) -> np.ndarray:
    values: np.ndarray = getattr(metrics, f"{name}_N")
    return values


def _mean(values: np.ndarray) -> float | None:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else None


def _short(text: str | None) -> str:
    return textwrap.shorten(text or "", _SHOWN_CHARACTERS, placeholder=" …")
