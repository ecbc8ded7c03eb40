"""All rewriters measured on the same turns, and which of them this data speaks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.data.clustering import hash_ids
from squadron.data.rows import store_rows
from squadron.evaluate.rankings import score_rankings
from squadron.evaluate.summary import Estimate
from squadron.evaluate.translation.tokens import TokenMatcher
from squadron.methods.rewrite import report
from squadron.methods.rewrite.config import EvaluationConfig
from squadron.methods.rewrite.measures import cosines, rouge
from squadron.methods.rewrite.records import Compared, Logs, Method, Rewrites, Said, same_text
from squadron.methods.rewrite.sheet import Sheet
from squadron.methods.rewrite.slots import share_said
from squadron.retrieval.bm25 import Bm25
from squadron.retrieval.documents import Query

ALL = "all"
LAST, PERSON = "last query", "a person"
_VALUE_TYPES = {"method": "string", "set": "string", "conversation": "string", "number": "int64", "measure": "string",
                "value": "float64"}  # fmt: skip


def compare(stage: Stage, logs: Logs, rewrites: tuple[Rewrites, ...], config: EvaluationConfig) -> Compared:
    """Measure all rewriters on the same turns, and recommend one for this data.

    The setting is chosen on half of the conversations, and how much better it is than others is measured on the rest,
    so that the interval holds for conversations that took no part in the choice.
    """
    run = stage.run.folder
    sheet = Sheet(logs.conversations(run))
    named = _named(run, rewrites, sheet)
    _measure(sheet, run, logs, config)
    names = {ALL: None} | {one: np.array([talk.set == one for talk, _, _ in sheet.turns]) for one in logs.sets}
    methods = tuple(
        Method(
            name=name, **described,
            means={
                part: {
                    measure: one
                    for measure, values_N in sheet.values[name].items()
                    if (one := sheet.estimate(values_N, some_N)).count
                }
                for part, some_N in names.items()
            },
        )
        for name, described in named.items()
    )  # fmt: skip
    measure = _measurable(methods, config.measure)
    recommended, found = _recommend(sheet, methods, measure)
    report.show(stage, sheet, methods, measure, recommended, found, rewrites, config)
    best = next(one for one in methods if one.name == recommended)
    shared = {name: one.mean for name, one in best.means[ALL].items() if one.count and name != "ndcg"}
    stage.measure(**shared)  # nDCG is of logs with passages alone
    rows = (
        {"method": name, "set": one.set, "conversation": one.id, "number": number, "measure": kind, "value": value}
        for name, by_measure in sheet.values.items()
        for kind, values_N in by_measure.items()
        for (one, number, _), value in zip(sheet.turns, values_N.tolist(), strict=True)
        if np.isfinite(value)
    )
    values = store_rows(stage, "values.arrow", rows, _VALUE_TYPES)
    return Compared(methods=methods, recommended=recommended, measure=measure, values=values)


def untouched(text: str | None, said: Said) -> float:
    """Of a turn that needs no rewrite, by a person's: whether it passes as it is; NaN for all others."""
    if text is None or said.reference is None or not same_text(said.reference, said.query):
        return float("nan")
    return float(same_text(text, said.query))


def _named(run: Folder, rewrites: Sequence[Rewrites], sheet: Sheet) -> dict[str, dict[str, object]]:
    """The texts of all methods into the sheet, and what each method is."""
    said = [(one.key, number, turn) for one, number, turn in sheet.turns]
    none: dict[str, object] = {"rewriter": "", "strategy": "", "k": 0, "classifier": ""}
    sheet.take(LAST, [(key, number, turn.query, False) for key, number, turn in said])
    named = {LAST: none}
    for one in rewrites:
        found: dict[str, list[tuple[str, int, str, bool]]] = {}
        columns = ("strategy", "k", "classifier", "disturbed", "conversation", "number", "rewrite", "failed")
        for strategy, k, classifier, disturbed, *turn in one.rows.rows(run).columns(*columns):
            if not disturbed:
                front = f", {classifier} in front" if classifier else ""
                name = f"{one.rewriter}, {strategy} k={k}{front}"
                found.setdefault(name, []).append(tuple(turn))
                named[name] = {"rewriter": one.rewriter, "strategy": strategy, "k": k, "classifier": classifier}
        for name, rows in found.items():
            sheet.take(name, rows)
    if any(turn.reference is not None and turn.passages for _, _, turn in said):  # a person's is no rewriter's to reach
        sheet.take(PERSON, [(key, n, turn.reference or "", turn.reference is None) for key, n, turn in said])
        named[PERSON] = none
    return named


def _measure(sheet: Sheet, run: Folder, logs: Logs, config: EvaluationConfig) -> None:
    references = [said.reference for _, _, said in sheet.turns]
    pairs = {
        name: [(place, text, references[place]) for place, text in enumerate(texts)]
        for name, texts in sheet.texts.items()
    }
    known = sorted({(text, other) for some in pairs.values() for _, text, other in some if text and other})
    by_pair: dict[str, dict[tuple[str, str], float]] = {}
    if known:
        first, second = zip(*known, strict=True)
        by_pair["cosine"] = dict(zip(known, cosines(first, second, config.embedder).tolist(), strict=True))
        if config.bertscore:
            by_pair["bertscore"] = dict(zip(known, TokenMatcher().f1(first, second).tolist(), strict=True))
        both = [rouge(*pair) for pair in known]
        by_pair |= {kind: {pair: one[n] for pair, one in zip(known, both, strict=True)}
                    for n, kind in enumerate(("rouge1", "rougel"))}  # fmt: skip
    passages = _passages(run, logs)
    for name, texts in sheet.texts.items():
        values = {
            kind: np.array([found.get((text, other), np.nan) for _, text, other in pairs[name]])  # type: ignore[arg-type]
            for kind, found in by_pair.items()
        }
        pairs_N = zip(texts, sheet.turns, strict=True)
        values["untouched"] = np.array([untouched(text, said) for text, (_, _, said) in pairs_N])
        kept = [said.kept for _, _, said in sheet.turns]
        if any(kept):
            shares = [share_said(slots, text) if text else np.nan for slots, text in zip(kept, texts, strict=True)]
            values["slots"] = np.array(shares)
        if passages:
            values["ndcg"] = _found(sheet, texts, passages, config.retrieval_k)
        sheet.values[name] = values


def _passages(run: Folder, logs: Logs) -> dict[str, tuple[list[str], Bm25]]:
    """Of each set its passages' ids, and an index of their texts."""
    by_set: dict[str, list[tuple[str, str]]] = {}
    for one, name, text in logs.passages.rows(run).columns("set", "id", "text"):
        by_set.setdefault(one, []).append((name, text))
    return {one: ([name for name, _ in some], Bm25([text for _, text in some])) for one, some in by_set.items()}


def _found(
    sheet: Sheet, texts: Sequence[str | None], passages: Mapping[str, tuple[list[str], Bm25]], k: int
) -> np.ndarray:
    """nDCG of the passages that BM25 finds by each text; NaN where no passage is known to answer."""
    values_N = np.full(len(texts), np.nan)
    for name, (ids, index) in passages.items():
        places = [
            place for place, (one, _, said) in enumerate(sheet.turns)
            if one.set == name and said.passages and texts[place]
        ]  # fmt: skip
        if places:
            asked = [texts[place] or "" for place in places]
            queries = [
                Query(str(place), text, dict.fromkeys(sheet.turns[place][2].passages, 1))
                for place, text in zip(places, asked, strict=True)
            ]
            values_N[places] = score_rankings(queries, ids, index.search(asked, k), (f"ndcg@{k}",))[f"ndcg@{k}"]
    return values_N


def _measurable(methods: Sequence[Method], wanted: str) -> str:
    """The measure that was asked for, or the first that has values."""
    found = [name for name, one in methods[0].means[ALL].items() if one.count]
    return wanted if wanted in found or not found else found[0]


def _recommend(sheet: Sheet, methods: Sequence[Method], measure: str) -> tuple[str, list[tuple[str, Estimate]]]:
    """The best method on half of the conversations, and on the others by how much it is better than the last query, and
    than the best of each other strategy and of the other choices in front."""
    order = hash_ids([one.key for one in sheet.conversations], "chosen ").argsort(kind="stable")
    half = {sheet.conversations[place].key for place in order[: (len(order) + 1) // 2]}
    chosen_N = np.array([one.key in half for one, _, _ in sheet.turns])
    tested_N = ~chosen_N if not chosen_N.all() else chosen_N
    real = [one for one in methods if one.rewriter or one.name == LAST]

    def best(some: Sequence[Method]) -> Method:
        return max(some, key=lambda one: _mean(sheet.values[one.name].get(measure), chosen_N))

    first = best(real)
    rivals = [best([one for one in real if one.name == LAST])]
    for strategy in dict.fromkeys(one.strategy for one in real if one.strategy):
        for front in dict.fromkeys(one.classifier for one in real if one.strategy):
            some = [one for one in real if one.strategy == strategy and one.classifier == front]
            if some and (strategy, front) != (first.strategy, first.classifier):
                rivals.append(best(some))
    ours = sheet.values[first.name].get(measure)
    found = [
        (one.name, sheet.estimate(ours - sheet.values[one.name][measure], tested_N))
        for one in rivals if ours is not None and one.name != first.name
    ]  # fmt: skip
    return first.name, found


def _mean(values_N: np.ndarray | None, some_N: np.ndarray) -> float:
    if values_N is None or not np.isfinite(values_N[some_N]).any():
        return -np.inf
    return float(np.nanmean(values_N[some_N]))
