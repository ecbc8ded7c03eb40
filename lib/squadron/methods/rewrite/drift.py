"""How far one wrong rewrite carries under each strategy, and how long a turn takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from squadron.core.folder import Folder
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.evaluate.summary import Estimate, estimate
from squadron.llm.batch.programs import run_programs
from squadron.methods.rewrite import report
from squadron.methods.rewrite.algorithm import context
from squadron.methods.rewrite.config import (
    AnyRewriter,
    ChatRewriter,
    DriftConfig,
    EvaluationConfig,
    FirstTurn,
    Setting,
    is_trained,
)
from squadron.methods.rewrite.measures import cosines
from squadron.methods.rewrite.records import Conversation, Drift, Latency, Logs, Rewrites, Turn
from squadron.methods.rewrite.rewriters import Trained, open_rewriter
from squadron.methods.rewrite.rewriting import ask_in_turn, start

Texts = Mapping[tuple[str, int], str]
"""Rewrites by conversation and turn."""


def show_drift(
    stage: Stage, logs: Logs, rewrites: tuple[Rewrites, ...], drift: DriftConfig, config: EvaluationConfig
) -> Drift:
    """Compare disturbed conversations with the same ones undisturbed: the share of changed rewrites, by setting, over
    all turns after the wrong one."""
    conversations = {one.key: one for one in logs.conversations(stage.run.folder)}
    points: dict[str, list[tuple[int, Estimate, Estimate]]] = {}
    carried = {}
    for one in rewrites:
        for setting, (without, with_it) in _pairs(stage.run.folder, one).items():
            name = f"{one.rewriter}, {setting}"
            found = _compare(without, with_it, conversations, drift.at, config)
            points[name] = [(after, estimate(changed), estimate(lost)) for after, changed, lost in found]
            every = [value for _, changed, _ in found for value in changed]
            carried[name] = float(np.mean(every)) if every else 0.0
    for panel in report.drift_panels(points, drift.at):
        stage.show(panel)
    return Drift(carried=carried)


def time_turns(
    stage: Stage,
    logs: Logs,
    rewriters: tuple[AnyRewriter, ...],
    setting: Setting,
    first_turn: FirstTurn,
    count: int,
    trained: tuple[Trained, ...],
) -> Latency:
    """Seconds of one turn, by rewriter: those here are timed on turns one after the other, of chat models it is the
    median that their replies have on record. `trained` are those that learn, in their order."""
    conversations = logs.conversations(stage.run.folder)
    turns = [_turn(one, place, setting.k) for one in conversations for place in range(1, len(one.turns))][:count]
    learners = [one.name for one in rewriters if is_trained(one)]
    by_name = dict(zip(learners, trained, strict=True))
    seconds: dict[str, float] = {}
    for rewriter in rewriters if turns else ():
        taken = []
        if isinstance(rewriter, ChatRewriter):
            names = dict.fromkeys(turn.conversation for turn in turns)
            some = [one for one in conversations if one.key in names]
            taken = _on_record(stage, rewriter, some, setting, first_turn)
        else:
            opened = open_rewriter(rewriter, stage.run.folder, by_name.get(rewriter.name))
            for turn in turns:
                begun = time.perf_counter()
                opened.rewrite([turn])
                taken.append(time.perf_counter() - begun)
        if taken:
            seconds[rewriter.name] = statistics.median(taken)
    rows = [[name, f"{1e3 * one:.2f}"] for name, one in seconds.items()]
    note = f"Median of {len(turns)} turns, one after the other; of chat models, of their replies when they were asked."
    stage.show(Table(title="Time of a turn", columns=["rewriter", "ms"], rows=rows, note=note))
    return Latency(seconds=seconds)


def _turn(conversation: Conversation, place: int, k: int) -> Turn:
    """A turn as Rewrite is shown it."""
    before = conversation.turns[:place]
    shown = context([said.query for said in before], [said.response for said in before], k)
    return Turn(conversation.key, place + 1, shown, conversation.turns[place].query)


def _on_record(
    stage: Stage, rewriter: ChatRewriter, conversations: Sequence[Conversation], setting: Setting, first_turn: FirstTurn
) -> list[float]:
    programs = {
        one.key: lambda one=one: ask_in_turn(rewriter, start(one, setting, first_turn)) for one in conversations
    }
    told = run_programs(stage, programs, {rewriter.name: rewriter.model}, cap_usd=rewriter.cap_usd)
    return [second for one in told.values() for second in one.seconds]


def _pairs(run: Folder, rewrites: Rewrites) -> dict[str, tuple[Texts, Texts]]:
    """By setting: rewrites of conversations without and with the wrong turn."""
    found: dict[tuple[str, bool], dict[tuple[str, int], str]] = {}
    columns = ("strategy", "k", "classifier", "disturbed", "conversation", "number", "rewrite", "failed")
    for strategy, k, classifier, disturbed, conversation, number, rewrite, failed in rewrites.rows.rows(run).columns(
        *columns
    ):
        if not failed and not classifier:
            found.setdefault((f"{strategy} k={k}", disturbed), {})[conversation, number] = rewrite
    return {name: (found.get((name, False), {}), some) for (name, disturbed), some in found.items() if disturbed}


def _compare(
    without: Texts, with_it: Texts, conversations: Mapping[str, Conversation], at: int, config: EvaluationConfig
) -> list[tuple[int, list[float], list[float]]]:
    """By turns after the wrong one: of each conversation whether its rewrite changed, and by how much its cosine to a
    person's did."""
    pairs = [(key, one, without[key]) for key, one in sorted(with_it.items()) if key[1] > at and key in without]
    references = [conversations[name].turns[number - 1].reference for (name, number), _, _ in pairs]
    known = [(*pair, reference) for pair, reference in zip(pairs, references, strict=True) if reference]
    lost = dict[tuple[str, int], float]()
    if known:
        keys, others, own, right = zip(*known, strict=True)
        both = cosines([*others, *own], [*right, *right], config.embedder)
        lost = dict(zip(keys, (both[: len(keys)] - both[len(keys) :]).tolist(), strict=True))
    found = []
    for after in sorted({key[1] - at for key, _, _ in pairs}):
        some = [(key, one, other) for key, one, other in pairs if key[1] - at == after]
        found.append((after, [float(one != other) for _, one, other in some],
                      [lost.get(key, float("nan")) for key, _, _ in some]))  # fmt: skip
    return found
