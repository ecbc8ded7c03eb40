"""The report's standard panels: tables of estimates, differences on the same problems, curves, bars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from squadron.core.panels import Bar, Bars, Cell, Curves, Series, Table
from squadron.core.run import Stage
from squadron.evaluate.scores import Scores
from squadron.evaluate.summary import Estimate

INTERVAL = "95% interval"


def estimate_table(
    title: str,
    names: Sequence[str],
    label: str,
    rows: Iterable[tuple[Sequence[Cell], Estimate, Sequence[Cell]]],
    *,
    form: str | None,
    interval_form: str | None = None,
    others: Sequence[str] = (),
    published: Sequence[Sequence[Cell]] = (),
    note: str = "",
) -> Table:
    """A row for each estimate: what it is of (`names`), its mean and interval, and `others`; below them rows that are
    `published`, ready as they are. Without a `form` the mean stays a number, as columns of the report show it."""
    cells: list[list[Cell]] = [
        [*named, one.mean if form is None else one.value(form), one.interval(interval_form or form or ".3f"), *rest]
        for named, one, rest in rows
    ]
    return Table(
        title=title, columns=[*names, label, INTERVAL, *others], rows=[*cells, *map(list, published)], note=note
    )


def difference_table(
    title: str,
    scores: Scores,
    method: str,
    metrics: Mapping[str, tuple[str, str, float]],
    counted: tuple[str, str],
    problems: str = "problems",
) -> Table:
    """How a method differs from every other on the same problems.

    `metrics` is, by column, a metric, the format of its numbers, and what they are multiplied by; `counted` a column
    for how many problems both have a value of a metric on.
    """
    rows: list[list[Any]] = []
    for other in scores.methods:
        if other != method:
            found = [scores.difference(method, other, name, by).text(form) for name, form, by in metrics.values()]
            rows.append([other, *found, scores.difference(method, other, counted[1]).count])
    note = f"Differences on the same {problems}; in brackets 95% intervals. Below 0, the method has less."
    return Table(title=title, columns=["against", *metrics, counted[0]], rows=rows, note=note)


def curve(name: str, points: Iterable[tuple[float, Estimate]]) -> Series:
    """Means against x with their intervals as a band; what has no value is left out."""
    there = [(x, one) for x, one in points if one.count]
    low, high = [one.low for _, one in there], [one.high for _, one in there]
    return Series(name=name, x=[x for x, _ in there], y=[one.mean for _, one in there], low=low, high=high)


def step_curves(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    names: Mapping[str, str],
    *,
    x_label: str = "step",
    y_label: str = "loss",
    note: str = "",
) -> Curves:
    """What a stage logged, against its steps: `names` says how each key is shown; keys that no row has are left out."""
    series = []
    for key, shown in names.items():
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if points:
            series.append(Series(name=shown, x=[x for x, _ in points], y=[y for _, y in points]))
    return Curves(title=title, x_label=x_label, y_label=y_label, series=series, note=note)


def loss_curves(
    title: str, losses: Mapping[str, Sequence[float]], *, x_label: str = "step", y_label: str = "loss", note: str = ""
) -> Curves:
    """Losses of one or several trainings, one a step."""
    series = [Series(name=name, x=list(range(1, len(ys) + 1)), y=list(ys)) for name, ys in losses.items()]
    return Curves(title=title, x_label=x_label, y_label=y_label, series=series, note=note)


def estimate_bars(title: str, label: str, estimates: Mapping[str, Estimate], **words: Any) -> Bars:
    """A bar for each estimate, with its interval; `words` are those of `Bars`."""
    bars = [Bar(name=name, value=one.mean, low=one.low, high=one.high) for name, one in estimates.items()]
    return Bars(title=title, label=label, bars=bars, **words)


def headline(stage: Stage, label: str, found: Estimate, form: str, *, over: str = "") -> None:
    """A headline number, and its interval as another."""
    stage.headline(label, found.value(form) or "–")
    stage.headline(f"its 95% interval{over}", found.interval(form) or "–")
