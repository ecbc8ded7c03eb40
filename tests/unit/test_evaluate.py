"""Methods are compared on the same problems: what failed is counted and left out, and the order of rows is nothing."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squadron.core.panels import read_panel
from squadron.evaluate.panels import curve, difference_table, estimate_bars, estimate_table, step_curves
from squadron.evaluate.scores import Metrics, Problem, Scores
from squadron.evaluate.statistics import cluster_bootstrap_interval, mean_t_interval, wilson_interval
from squadron.evaluate.summary import estimate

METHODS, SEEDS = ("ours", "theirs"), (0, 1)
PROBLEMS = tuple(Problem(f"problem {number}", group=("small" if number < 3 else "large",)) for number in range(5))
Record = tuple[str, int | str, int, Metrics]

numbers = st.floats(-100, 100, allow_subnormal=False)


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    """Costs of some methods on some problems with some seeds; others failed, and some have no cost."""
    cells = [(method, problem.name, seed) for method in METHODS for problem in PROBLEMS for seed in SEEDS]
    kept = draw(st.lists(st.sampled_from(cells), unique=True))
    return [(*cell, {"cost": draw(st.none() | numbers)}) for cell in kept]


def gathered(rows: list[Record]) -> Scores:
    return Scores.collect(METHODS, PROBLEMS, SEEDS, rows)


@given(rows=records(), data=st.data())
def test_the_order_of_rows_is_nothing(rows: list[Record], data: st.DataObject) -> None:
    shuffled = gathered(data.draw(st.permutations(rows)))
    scores = gathered(rows)
    if "cost" not in scores.values:
        return
    for method in METHODS:
        assert repr(scores.estimate(method, "cost")) == repr(shuffled.estimate(method, "cost"))
    assert repr(scores.difference(*METHODS, "cost")) == repr(shuffled.difference(*METHODS, "cost"))


@given(rows=records())
def test_differences_are_of_what_both_have_and_failures_are_counted(rows: list[Record]) -> None:
    scores = gathered(rows)
    if "cost" not in scores.values:
        return
    costs = {(method, name, seed): metrics["cost"] for method, name, seed, metrics in rows}
    pairs = {
        (problem.name, seed): float(mine) - float(theirs)  # type: ignore[arg-type]
        for problem in PROBLEMS
        for seed in SEEDS
        if (mine := costs.get(("ours", problem.name, seed))) is not None
        and (theirs := costs.get(("theirs", problem.name, seed))) is not None
    }
    found = scores.difference(*METHODS, "cost")
    problems = [[value for (at, _), value in pairs.items() if at == problem.name] for problem in PROBLEMS]
    assert found.count == sum(map(bool, problems)) and found.missing == len(PROBLEMS) - found.count
    if pairs:
        seeds = [[value for (_, at), value in pairs.items() if at == seed] for seed in SEEDS]
        assert found.by_seed == pytest.approx([fmean(one) for one in seeds if one], abs=1e-9)
        assert found.mean == pytest.approx(fmean(found.by_seed), abs=1e-9)
        assert (found.low, found.high) == cluster_bootstrap_interval(problems)
    else:
        assert math.isnan(found.mean) and found.text("+.1f") is found.value("+.1f") is found.interval("+.1f") is None
    there = {(method, name, seed) for method, name, seed, _ in rows}
    for method in METHODS:
        assert scores.complete(method) == all((method, one.name, seed) in there for one in PROBLEMS for seed in SEEDS)
        assert scores.answered(method) == any(row[0] == method for row in rows)


def test_a_failed_cell_is_neither_zero_nor_a_pair() -> None:
    rows: list[Record] = [("ours", one.name, 0, {"right": True}) for one in PROBLEMS]
    rows += [("theirs", one.name, 0, {"right": False}) for one in PROBLEMS[:2]]
    scores = Scores.collect(METHODS, PROBLEMS, [0], rows)
    theirs = scores.estimate("theirs", "right", share=True)
    assert (theirs.count, theirs.missing) == (2, 3)
    assert scores.difference(*METHODS, "right").count == 2
    assert scores.groups()["large",].estimate("theirs", "right").count == 0
    assert list(scores.groups()) == [("large",), ("small",)]


def test_shares_have_wilsons_interval_unless_problems_have_several_trials() -> None:
    alone = np.array([1.0, 0.0, 1.0, np.nan])
    assert (estimate(alone, share=True).low, estimate(alone, share=True).high) == wilson_interval(2, 3)
    homes = np.array([[[1.0, 1.0]], [[0.0, 1.0]], [[0.0, np.nan]]])
    found = estimate(homes, share=True)
    assert found.mean == pytest.approx(3 / 5), "each trial counts the same"
    assert (found.low, found.high) == cluster_bootstrap_interval([[1.0, 1.0], [0.0, 1.0], [0.0]])
    assert (estimate(homes[:1], share=True).low, estimate(homes[:1], share=True).high) == wilson_interval(2, 2)


def test_trials_and_seeds_of_one_problem_are_alike() -> None:
    homes = np.repeat([[1.0], [0.0]] * 5, 10, axis=1)
    wide, narrow = estimate(homes[:, None, :]), estimate(homes.ravel())
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    seeds = estimate(np.array([[1.0, 2.0], [3.0, 6.0]]))
    assert seeds.by_seed == (2.0, 4.0) and seeds.over_seeds == mean_t_interval([2.0, 4.0])
    assert narrow.over_seeds is None
    assert estimate([]).count == 0


def test_scores_from_elsewhere_may_have_different_numbers_of_seeds() -> None:
    scores = Scores.of_arrays("score", {"ours": [[1, 2], [3, 4]], "theirs": [1, None]})
    assert scores.estimate("ours", "score").by_seed == (2.0, 3.0)
    assert scores.difference("ours", "theirs", "score").by_seed == (0.0,)


def test_panels_show_estimates_and_dashes_where_there_is_none() -> None:
    scores = Scores.of_arrays("score", {"ours": [1.0, 0.0], "theirs": [1.0, 1.0], "lost": [None, None]})
    found = {name: scores.estimate(name, "score", share=True) for name in scores.methods}
    rows = [((name,), one, (one.count,)) for name, one in found.items()]
    table = estimate_table("Scores", ["method"], "score", rows, form=".1%", interval_form=".0%", others=["problems"])
    assert table.rows == [
        ["ours", "50.0%", "9% to 91%", 2],
        ["theirs", "100.0%", "34% to 100%", 2],
        ["lost", None, None, 0],
    ]
    differences = difference_table("Ours", scores, "ours", {"points": ("score", "+.1f", 100)}, ("problems", "score"))
    assert differences.rows == [["theirs", "-50.0 (-100.0 to +0.0)", 2], ["lost", None, 0]]
    curves = curve("score", [(10, found["ours"]), (20, found["lost"])])
    assert (curves.x, curves.y, curves.low) == ([10], [0.5], [found["ours"].low])
    steps = step_curves("Loss", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}], {"loss": "training", "no": "no"})
    assert [(one.name, one.x, one.y) for one in steps.series] == [("training", [1], [2.0])]
    for panel in (table, differences, steps, estimate_bars("Bars", "score", found)):
        assert read_panel(panel.model_dump(mode="json")) == panel
