"""What the report of a sweep shows: every trial, settings against results, which settings matter, learning curves."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from squadron.core.panels import Axis, Bar, Bars, Curves, Line, Parallel, Series, Table
from squadron.core.report import format_cell, format_duration
from squadron.core.run import Stage
from squadron.tune.space import Domain, Space
from squadron.tune.spec import Record, SweepSpec, Winner

Records = Mapping[str, Record]
_CURVES = 6
_IMPORTANCE_FROM = 8  # trials, below which what a forest fits is chance
_GOOD_SHARE = 0.25


def show(
    stage: Stage, spec: SweepSpec, space: Space, records: Records, curves: Mapping[str, Sequence[Any]], winner: Winner
) -> None:
    """Put all of it into the report."""
    better = "more" if spec.goal == "max" else "less"
    stage.headline(f"best {spec.metric} ({better} is better)", format_cell(winner.value))
    stage.headline("trial", winner.trial)
    for key, value in winner.settings.items():
        stage.headline(key, format_cell(value))
    stage.headline("finished, stopped early, failed", f"{winner.finished}, {winner.stopped}, {winner.failed}")
    ranked = rank(spec, records)
    stage.show(parallel(spec, space, ranked, winner))
    for chart in (importance(spec, space, ranked), learning(spec, ranked, curves)):
        if chart is not None:
            stage.show(chart)
    stage.show(trials_table(spec, records, ranked))


def rank(spec: SweepSpec, records: Records) -> dict[str, Record]:
    """Trials that have a value, the best first; of those stopped early it is the last that they logged."""
    sign = -1 if spec.goal == "max" else 1
    valued = {name: one for name, one in records.items() if one.value is not None}
    return dict(sorted(valued.items(), key=lambda pair: (sign * (pair[1].value or 0.0), pair[0])))


def parallel(spec: SweepSpec, space: Space, ranked: Records, winner: Winner) -> Parallel:
    """Settings and result of each trial as a line."""
    axes = [_axis(key, domain) for key, domain in space.items()] + [Axis(name=spec.metric)]
    good = max(1, round(_GOOD_SHARE * len(ranked)))
    lines = [
        Line(
            name=name,
            values=[*(_place(domain, one.settings[key]) for key, domain in space.items()), one.value],
            mark="best" if name == winner.trial else "good" if number < good else "rest",
        )
        for number, (name, one) in enumerate(ranked.items())
    ]
    return Parallel(title="Settings and results", axes=axes, lines=lines[::-1])


def importance(spec: SweepSpec, space: Space, ranked: Records) -> Bars | None:
    """Which share of the differences between trials each setting explains (fANOVA, Hutter et al. 2014, by Optuna);
    None where trials are too few, or all alike."""
    if len(ranked) < _IMPORTANCE_FROM or len(space) < 2 or len({one.value for one in ranked.values()}) == 1:
        return None
    import optuna

    from squadron.tune.search import distribution

    optuna.logging.set_verbosity(logging.ERROR)
    study = optuna.create_study(direction="maximize" if spec.goal == "max" else "minimize")
    distributions = {key: distribution(domain) for key, domain in space.items()}
    for one in ranked.values():
        trial = optuna.trial.create_trial(
            params={key: _plain(one.settings[key], domain) for key, domain in space.items()},
            distributions=distributions,
            value=one.value,
        )
        study.add_trial(trial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=spec.seed)
        )
    note = f"Of {len(ranked)} trials; a forest is fitted to them, which says little while they are few."
    bars = [Bar(name=key, value=share) for key, share in shares.items()]
    return Bars(title="Which settings matter", label=f"share of the variance of {spec.metric}", bars=bars, note=note)


def learning(spec: SweepSpec, ranked: Records, curves: Mapping[str, Sequence[Any]]) -> Curves | None:
    """The metric of the best trials by step; None where it comes once, at the end."""
    series = []
    for name in list(ranked)[:_CURVES]:
        rows = curves[name]
        if len(rows) > 1:
            at = [row["step"] for row in rows]
            if any(later <= earlier for earlier, later in itertools.pairwise(at)):
                at = list(range(1, len(rows) + 1))  # several stages that each count from their start
            series.append(Series(name=name, x=at, y=[row["value"] for row in rows]))
    if not series:
        return None
    note = "" if len(ranked) <= _CURVES else f"The best {_CURVES} of {len(ranked)} trials."
    return Curves(title=f"{spec.metric} by step", x_label="step", y_label=spec.metric, series=series, note=note)


def trials_table(spec: SweepSpec, records: Records, ranked: Records) -> Table:
    """Every trial, the best first and those that failed last."""
    order = [*ranked, *(name for name in records if name not in ranked)]
    rows = [
        [
            name,
            one.status,
            one.value,
            *(format_cell(one.settings[key]) for key in spec.over),
            format_duration(one.seconds),
        ]
        for name, one in ((name, records[name]) for name in order)
    ]
    return Table(title="Trials", columns=["trial", "", spec.metric, *spec.over, "took"], rows=rows)


def _axis(key: str, domain: Domain) -> Axis:
    return (
        Axis(name=key, names=[format_cell(value) for value in domain.values])
        if domain.is_listed
        else Axis(name=key, log=domain.is_log)
    )


def _place(domain: Domain, value: Any) -> float:
    return float(domain.values.index(value)) if domain.is_listed else float(value)


def _plain(value: Any, domain: Domain) -> Any:
    return value if not domain.is_listed else domain.values[domain.values.index(value)]
