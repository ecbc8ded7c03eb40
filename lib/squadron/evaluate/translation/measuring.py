"""Translations measured over the cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from squadron.core.config import fingerprint
from squadron.core.json_text import to_json
from squadron.core.profile import WorkerResources
from squadron.core.rows import map_rows
from squadron.evaluate.translation.metrics import open_metric
from squadron.evaluate.translation.segments import Segment
from squadron.evaluate.translation.settings import AnyMetric, LexicalMetric, check_language

if TYPE_CHECKING:
    from squadron.core.run import Stage

_COUNTED, _ENCODED = 64, 256  # segments in a row: as many as are counted in a fraction of a second, or encoded together


class Measured(NamedTuple):
    """What a metric says of N segments."""

    values_N: np.ndarray
    """NaN where a segment has no score: for want of a reference, or because it failed."""
    statistics_NK: np.ndarray
    """Those of segments without a score are 0: they add nothing to a corpus."""


def measure(
    stage: Stage,
    segments: Sequence[Segment],
    settings: AnyMetric,
    resources: WorkerResources | None = None,
    timeout_s: float = 3600.0,
) -> Measured:
    """Measure segments by a metric that each worker opens once. `timeout_s` is for a few hundred of them.

    A restart measures what is left: the same metric on the same segments, also of a stage that measures several.
    Raises InputError for a language that the metric does not know, before any work.
    """
    for code in sorted({one.target_language for one in segments}):
        check_language(settings, code)
    rows = _rows(segments, settings)
    answers = map_rows(stage, rows, _Measurer, unit="batch", resources=resources, timeout_s=timeout_s,
                       settings=settings)  # fmt: skip
    values_N, statistics_NK = np.full(len(segments), np.nan), np.zeros((len(segments), _width(answers, settings)))
    for one in answers:
        places = slice(one["start"], one["start"] + len(one["values"]))
        values_N[places] = np.array(one["values"], float)
        statistics_NK[places] = one["statistics"]
    return Measured(values_N, statistics_NK)


class _Measurer:
    """A metric on a worker."""

    def __init__(self, settings: AnyMetric) -> None:
        self._metric = open_metric(settings)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        statistics_NK = self._metric.statistics([Segment(*one) for one in row["segments"]])
        values = self._metric.scores(statistics_NK)
        known = [None if np.isnan(one) else float(one) for one in values]
        return {"start": row["start"], "values": known, "statistics": statistics_NK.tolist()}


def _rows(segments: Sequence[Segment], settings: AnyMetric) -> list[dict[str, Any]]:
    """Some segments each, known by what they hold and by what decides the metric's scores."""
    size = _COUNTED if isinstance(settings, LexicalMetric) else _ENCODED
    metric = fingerprint(settings).encode()
    rows = []
    for start in range(0, len(segments), size):
        some = [list(one) for one in segments[start : start + size]]
        content = hashlib.sha256(metric + to_json(some)).hexdigest()[:16]
        name = f"{settings.name}, segments {start} to {start + len(some) - 1}, {content}"
        rows.append({"id": name, "start": start, "segments": some})
    return rows


def _width(answers: Sequence[dict[str, Any]], settings: AnyMetric) -> int:
    """How many statistics a segment has."""
    if answers:
        return len(answers[0]["statistics"][0])
    return open_metric(settings).statistics([]).shape[1]
