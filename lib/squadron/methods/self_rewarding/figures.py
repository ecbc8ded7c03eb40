"""What a self-rewarding run shows: its searches, what each model can do, and what the rounds were worth."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from squadron.core.panels import Curves, Series, Table, Tree, TreeNode
from squadron.core.run import Stage
from squadron.evaluate.panels import curve, estimate_table, headline
from squadron.evaluate.summary import Estimate
from squadron.methods.self_rewarding.conversations import Searched
from squadron.methods.self_rewarding.records import BenchmarkResult, Evaluation
from squadron.methods.self_rewarding.scoring import Scored
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


def show_scoring(stage: Stage, asked: Sequence[Mapping[str, Any]], scored: Mapping[str, Scored]) -> None:
    """What became of the problems of a round and of the judgements of solutions, and some problems with both."""
    found = list(scored.values())
    scores = [score for one in found for score in one.scores if score is not None]
    preferences = sum(one.pair is not None for one in found)
    useless = sum(one.answer is None for one in found)
    rows: list[list[Any]] = [
        ["problems", len(found)],
        ["preferences", preferences],
        ["no preference: equal scores", len(found) - preferences - useless],
        ["no preference: no solution with a score", useless],
        ["solutions", sum(len(one.solutions) for one in found)],
        ["solutions that were cut off", sum(one.cut_off for one in found)],
        ["mean score of a solution", sum(scores) / len(scores) if scores else None],
        ["judgements", sum(one.judged for one in found)],
        ["judgements without a score, left out", sum(one.unreadable for one in found)],
        ["model time spent proposing [s]", sum(one.proposing_s for one in found)],
        ["model time spent judging [s]", sum(one.judging_s for one in found)],
    ]
    stage.show(Table(title="The scoring of this round", columns=["what", "figure"], rows=rows))
    for row in sorted(asked, key=lambda row: scored[row["id"]].pair is None)[:_TREES]:
        stage.show(solutions_panel(row["question"], scored[row["id"]]))


def solutions_panel(question: str, scored: Scored) -> Tree:
    """The solutions of one problem: each with its score, which was chosen and which rejected."""
    marks = dict(zip(scored.pair or (), ("chosen", "rejected"), strict=False))
    nodes = []
    for text, score in dict(zip(scored.solutions, scored.scores, strict=True)).items():
        if text is not None:
            times = scored.solutions.count(text)
            label = f"score {'none' if score is None else f'{score:.3g}'}" + (f", ×{times}" if times > 1 else "")
            mark: Any = marks.get(text, "passed")
            nodes.append(TreeNode(parent=None, text=textwrap.shorten(text, _SHOWN), mark=mark, label=label))
    note = "The mean of the judgements, and how often a text was proposed."
    return Tree(title="Solutions and their scores", root=question, nodes=nodes, note=note)


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
    rows = [
        ((one.name, one.score.count), one.score, (one.unfinished, one.steps, one.step_tokens))
        for one in result.benchmarks
    ]
    names, others = ["benchmark", "problems"], ["cut off", "steps a solution", "tokens a step"]
    title = f"{result.model} solves, greedily"
    stage.show(estimate_table(title, names, "accuracy", rows, form=None, interval_form=".1%", others=others))
    judge = result.judge
    table: list[list[Any]] = [
        ["contests held out", len(judge.right)],
        ["accuracy over both orders", judge.accuracy],
        ["95% interval", judge.score.interval(".1%")],
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
    stage: Stage, results: Sequence[Evaluation], gain: Estimate, searched: BenchmarkResult | None, how: str
) -> None:
    """Accuracy and judging by round, and the last model against the first tuned one; `how` it searches, in words."""
    series = [
        curve(benchmark.name, enumerate(result.benchmarks[number].score for result in results))
        for number, benchmark in enumerate(results[0].benchmarks)
    ]
    stage.show(Curves(title="Solved by round", x_label="model M", y_label="share solved", series=series))
    judged = curve("judge accuracy", enumerate(result.judge.score for result in results))
    at = list(range(len(results)))
    bias = Series(name="position bias", x=at, y=[result.judge.position_bias for result in results])
    stage.show(Curves(title="Judging by round", x_label="model M", y_label="share", series=[judged, bias]))
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
    headline(stage, f"{results[-1].model} − {results[1].model}", gain, "+.1%", over=" over problems")
    stage.measure(accuracy=results[-1].benchmarks[0].accuracy, gain=gain.mean)
    if searched is not None:
        first = results[-1].benchmarks[0]
        greedy = first.model_copy(update={"right": first.right[: len(searched.right)]})
        stage.headline(f"{results[-1].model} {how}, of {searched.score.count:,}", f"{searched.accuracy:.1%}")
        stage.headline(f"{results[-1].model} greedily, of the same", f"{greedy.accuracy:.1%}")


def _telling(asked: Sequence[Mapping[str, Any]], searched: Mapping[str, Searched]) -> list[Mapping[str, Any]]:
    """Problems whose trees show most: one that was taken back, then those with the most preferences."""

    def order(row: Mapping[str, Any]) -> tuple[bool, int]:
        found = searched[row["id"]].found
        went_back = any(turn.outcome == "rolled_back" for turn in found.turns) and found.ended == "finished"
        return not (went_back and len(found.turns) < 10), -len(found.preferences)

    return sorted(asked, key=order)
