"""What a self-rewarding run shows: its searches, what each model can do, and what the rounds were worth."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from squadron.core.panels import Curves, Series, Table, Tree, TreeNode
from squadron.core.run import Stage
from squadron.evaluate.statistics import cluster_bootstrap_interval, wilson_interval
from squadron.methods.self_rewarding.conversations import Searched
from squadron.methods.self_rewarding.records import BenchmarkResult, Comparison, Evaluation
from squadron.search import Found

_TREES = 3
_SHOWN = 400
"""Characters of a step that a tree shows."""


@dataclass(frozen=True)
class Contests:
    """Judgements of a round: how many, how many gave no verdict; pairs judged in both orders, and how many of them
    named the same side twice."""

    count: int
    unreadable: int
    both: int
    same_side: int


def contests_of(searched: Iterable[Searched]) -> Contests:
    """All judgements of some searches."""
    verdicts = [
        {(first, second): verdict for first, second, verdict in turn.contests}
        for one in searched
        for turn in one.found.turns
    ]
    pairs = [
        (verdict, turn[second, first])
        for turn in verdicts
        for (first, second), verdict in turn.items()
        if first < second and (second, first) in turn
    ]
    readable = [pair for pair in pairs if None not in pair]
    return Contests(
        count=sum(map(len, verdicts)),
        unreadable=sum(verdict is None for turn in verdicts for verdict in turn.values()),
        both=len(readable),
        same_side=sum(one == other for one, other in readable),
    )


def show_search(
    stage: Stage, asked: Sequence[Mapping[str, Any]], searched: Mapping[str, Searched], contests: Contests
) -> None:
    """What became of the problems of a round and of the judgements, and some trees."""
    found = [one.found for one in searched.values()]
    turns = [turn for one in found for turn in one.turns]
    preferences = sum(len(one.preferences) for one in found)
    rows: list[list[Any]] = [
        ["problems", len(found)],
        ["solved to their end", sum(one.ended == "finished" for one in found)],
        ["dropped: a tie at the first step", sum(one.ended == "dropped" for one in found)],
        ["stopped by the limit of iterations", sum(one.ended == "iterations" for one in found)],
        ["iterations", len(turns)],
        ["steps taken back after a tie", sum(turn.outcome == "rolled_back" for turn in turns)],
        ["steps on which all candidates agreed", sum(turn.outcome == "same" for turn in turns)],
        ["preferences", preferences],
        ["proposals that did not end a step", sum(one.cut_off for one in searched.values())],
        ["judgements", contests.count],
        ["judgements without a verdict", contests.unreadable],
        ["pairs that named the same side in both orders", f"{contests.same_side:,} of {contests.both:,}"],
        ["model time spent proposing [s]", sum(one.proposing_s for one in searched.values())],
        ["model time spent judging [s]", sum(one.judging_s for one in searched.values())],
    ]
    stage.show(Table(title="The search of this round", columns=["what", "figure"], rows=rows))
    for row in _telling(asked, searched)[:_TREES]:
        stage.show(tree_panel(row["question"], searched[row["id"]].found))


def tree_panel(question: str, found: Found) -> Tree:
    """The search of one problem: every candidate, which was taken, rejected, passed over, or taken back later."""
    nodes: list[TreeNode] = []
    trunk: list[int] = []
    for turn in found.turns:
        parent = trunk[-1] if trunk else None
        for place, text in enumerate(turn.candidates):
            if text is None or text in turn.candidates[:place]:
                continue
            times, score = turn.candidates.count(text), turn.scores[place] or 0
            mark: Any = "chosen" if place == turn.chosen else "rejected" if place == turn.rejected else "passed"
            label = f"{score} win{'' if score == 1 else 's'}" + (f", ×{times}" if times > 1 else "")
            if place == turn.chosen:
                trunk.append(len(nodes))
            nodes.append(TreeNode(parent=parent, text=textwrap.shorten(text, _SHOWN), mark=mark, label=label))
        if turn.outcome == "rolled_back" and trunk:
            taken_back = trunk.pop()
            nodes[taken_back] = nodes[taken_back].model_copy(update={"mark": "rolled_back"})
    ended = {"finished": "", "dropped": "Dropped: a tie at the first step.", "iterations": "Stopped by the limit."}
    note = f"Wins over the other candidates, and how often a text was proposed. {ended[found.ended]}".strip()
    return Tree(title="A search", root=question, nodes=nodes, note=note)


def show_evaluation(stage: Stage, result: Evaluation) -> None:
    """What one model can do."""
    rows: list[list[Any]] = [
        [one.name, len(one.answered), one.accuracy, _percent(_span(one)), one.unfinished, one.steps, one.step_tokens]
        for one in result.benchmarks
    ]
    columns = ["benchmark", "problems", "accuracy", "95% interval", "cut off", "steps a solution", "tokens a step"]
    stage.show(Table(title=f"{result.model} solves, greedily", columns=columns, rows=rows))
    judge = result.judge
    table: list[list[Any]] = [
        ["contests held out", len(judge.right)],
        ["accuracy over both orders", judge.accuracy],
        ["95% interval", _percent(_judge_span(result))],
        ["accuracy, as shown", judge.accuracy_shown],
        ["accuracy, sides swapped", judge.accuracy_swapped],
        ["position bias: first side named more often, or less", judge.position_bias],
        ["no verdict", judge.unreadable],
    ]
    stage.show(Table(title=f"{result.model} judges", columns=["what", "figure"], rows=table))
    first = result.benchmarks[0]
    stage.headline(f"{result.model} solves", f"{first.accuracy:.1%}")
    stage.headline(f"{result.model} judges right", f"{judge.accuracy:.1%}")


def show_rounds(
    stage: Stage, results: Sequence[Evaluation], gain: Comparison, searched: BenchmarkResult | None
) -> None:
    """Accuracy and judging by round, and the last model against the first tuned one."""
    at = list(range(len(results)))
    series = []
    for number, benchmark in enumerate(results[0].benchmarks):
        ones = [result.benchmarks[number] for result in results]
        spans = [_span(one) for one in ones]
        series.append(_series(benchmark.name, at, [one.accuracy for one in ones], spans))
    stage.show(Curves(title="Solved by round", x_label="model M", y_label="share solved", series=series))
    judged = [result.judge.accuracy for result in results]
    spans = [_judge_span(result) for result in results]
    bias = Series(name="position bias", x=at, y=[result.judge.position_bias for result in results])
    curves = [_series("judge accuracy", at, judged, spans), bias]
    stage.show(Curves(title="Judging by round", x_label="model M", y_label="share", series=curves))
    rows: list[list[Any]] = [
        [
            result.model,
            *(one.accuracy for one in result.benchmarks),
            result.benchmarks[0].steps,
            result.judge.accuracy,
            result.judge.position_bias,
        ]
        for result in results
    ]
    names = [one.name for one in results[0].benchmarks]
    columns = ["model", *names, "steps a solution", "judge accuracy", "position bias"]
    stage.show(Table(title="Round by round", columns=columns, rows=rows))
    stage.headline(f"{results[-1].model} − {results[1].model}", f"{gain.gain:+.1%}")
    stage.measure(accuracy=results[-1].benchmarks[0].accuracy, gain=gain.gain)
    stage.headline("its 95% interval over problems", f"{gain.low:+.1%} to {gain.high:+.1%}")
    if searched is not None:
        first = results[-1].benchmarks[0]
        greedy = first.model_copy(update={"right": first.right[: len(searched.right)]})
        stage.headline(f"{results[-1].model} with a search, of {len(searched.answered):,}", f"{searched.accuracy:.1%}")
        stage.headline(f"{results[-1].model} greedily, of the same", f"{greedy.accuracy:.1%}")


def _telling(asked: Sequence[Mapping[str, Any]], searched: Mapping[str, Searched]) -> list[Mapping[str, Any]]:
    """Problems whose trees show most: one that was taken back, then those with the most preferences."""

    def order(row: Mapping[str, Any]) -> tuple[bool, int]:
        found = searched[row["id"]].found
        went_back = any(turn.outcome == "rolled_back" for turn in found.turns) and found.ended == "finished"
        return not (went_back and len(found.turns) < 10), -len(found.preferences)

    return sorted(asked, key=order)


def _series(name: str, at: list[int], values: list[float], spans: Sequence[tuple[float, float]]) -> Series:
    low, high = ([span[side] for span in spans] for side in (0, 1))
    return Series(name=name, x=list(map(float, at)), y=list(values), low=list(low), high=list(high))


def _span(result: BenchmarkResult) -> tuple[float, float]:
    """95% interval of the share solved; nothing is known without a reply."""
    answered = result.answered
    return wilson_interval(sum(answered), len(answered)) if answered else (math.nan, math.nan)


def _judge_span(result: Evaluation) -> tuple[float, float]:
    """95% interval over contests: the two orders of one are alike."""
    both = [
        [float(one), float(other)] for one, other in zip(result.judge.right, result.judge.right_swapped, strict=True)
    ]
    return cluster_bootstrap_interval(both) if both else (math.nan, math.nan)


def _percent(span: tuple[float, float]) -> str:
    return "{:.1%} to {:.1%}".format(*span)
