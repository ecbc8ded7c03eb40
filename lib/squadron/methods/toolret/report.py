"""What ToolRet's report shows: the paper's table with intervals, differences, latency, hard queries, shared words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from squadron.core.folder import Folder
from squadron.core.panels import Bars, Cloud, Curves, Points, Table
from squadron.evaluate.panels import curve, estimate_bars
from squadron.evaluate.summary import Estimate, estimate, macro_estimate
from squadron.methods.toolret.algorithm import macro_p, shared_words
from squadron.methods.toolret.config import EvaluationConfig
from squadron.methods.toolret.records import Benchmark, Measured, Ranked, label_of

PUBLISHED: dict[bool, dict[str, Sequence[float | None]]] = {
    False: {
        "BM25s": (18.98, 21.20, 26.76, 22.32, 22.19),
        "contriever": (21.15, 14.56, 17.72, 17.81, None),
        "all-MiniLM-L6": (11.66, 14.44, 22.80, 16.30, None),
        "e5-base": (19.75, 14.43, 22.68, 18.95, None),
        "bge-large": (24.45, 18.90, 25.72, 23.02, None),
        "NV-Embed": (31.30, 29.64, 40.54, 33.83, None),
        "NV-Embed + bge-reranker-gemma": (36.72, 29.89, 39.93, 35.51, None),
    },
    True: {
        "BM25s": (26.33, 41.90, 41.16, 36.46, 39.03),
        "all-MiniLM-L6": (None, None, None, 25.53, None),
        "bge-large": (None, None, None, 38.49, None),
        "gte-Qwen2-1.5B": (None, None, None, 45.96, None),
        "NV-Embed + bge-reranker-gemma": (None, None, None, 47.52, None),
    },
}
"""Of arXiv 2503.01763, without and with instructions: nDCG@10 of web, code, customized and their average, then the
average of completeness@10."""

PAPER_CATEGORIES, PAPER_TOOLS = ("web", "code", "customized"), 40_000
_QUARTERS, _CUT = 4, 110


@dataclass(frozen=True)
class Shown:
    """All that panels are made of; `values` are by query, in the order of `rankings`."""

    run: Folder
    benchmark: Benchmark
    rankings: Sequence[Ranked]
    measured: Sequence[Measured]
    values: Sequence[dict[str, np.ndarray]]
    categories: Sequence[str]
    config: EvaluationConfig

    def panels(self) -> Iterator[Table | Bars | Curves]:
        """In the order of the report."""
        for instructed in sorted({one.instructed for one in self.rankings}):
            yield self.table(instructed)
        yield self.bars()
        yield self.differences()
        if {one.instructed for one in self.rankings} == {False, True}:
            yield self.instructions()
        yield self.overlap()
        if self.config.hardest:
            yield self.hardest()

    @property
    def ndcg(self) -> str:
        return f"ndcg@{self.config.k}"

    @property
    def completeness(self) -> str:
        return f"completeness@{self.config.k}"

    def table(self, instructed: bool) -> Table:
        """The paper's: N and C of each category, and their averages."""
        names = self.benchmark.categories
        columns = ["method", *(f"{kind} {name}" for name in names for kind in "NC")]
        columns += ["N average", "95% interval of N", "C average", "95% interval of C"]
        rows: list[list[Any]] = []
        for one in self.measured:
            if one.instructed == instructed:
                cells = [found.value(".1%") for name in names for found in one.by_category[name]]
                averages = [cell for found in (one.ndcg, one.completeness)
                            for cell in (found.value(".1%"), found.interval(".1%"))]  # fmt: skip
                rows.append([one.method, *cells, *averages])
        if names == PAPER_CATEGORIES and self.benchmark.tools.count >= PAPER_TOOLS:
            rows += [_published(name, row) for name, row in PUBLISHED[instructed].items()]
        k, how = self.config.k, "with" if instructed else "without"
        note = f"N is nDCG@{k}, C the share of queries all of whose tools are among the first {k}. "
        note += "The average is over categories, whatever their sizes."
        return Table(title=f"Retrieval {how} instructions", columns=columns, rows=rows, note=note)

    def bars(self) -> Bars:
        """nDCG of all methods, the best first."""
        order = sorted(zip(self.rankings, self.measured, strict=True), key=lambda pair: -pair[1].ndcg.mean)
        return estimate_bars(
            f"nDCG@{self.config.k}", "average over categories", {ranked.label: one.ndcg for ranked, one in order},
            note="With 95% intervals, which resample the queries of each category.",
        )  # fmt: skip

    def differences(self) -> Table:
        """Every method against the first of its setting, on the same queries."""
        rows = []
        for place, ranked in enumerate(self.rankings):
            first = next(n for n, one in enumerate(self.rankings) if one.instructed == ranked.instructed)
            if first != place:
                rows.append([ranked.label, self.rankings[first].method, *self._difference(place, first)])
        columns = ["method", "against", "N, points", "p of N", "C, points"]
        note = (
            "Average over categories of the differences on the same queries, with 95% intervals. p: randomisation test "
        )
        note += "on the same queries, not corrected for the number of comparisons."
        return Table(title="Differences", columns=columns, rows=rows, note=note)

    def instructions(self) -> Table:
        """What the instruction adds to each method."""
        places = {(one.method, one.instructed): place for place, one in enumerate(self.rankings)}
        pairs = [(name, place, places[name, False]) for (name, told), place in places.items()
                 if told and (name, False) in places]  # fmt: skip
        rows = [[name, *self._difference(place, without)] for name, place, without in pairs]
        columns = ["method", "N, points", "p of N", "C, points"]
        return Table(title="What instructions add", columns=columns, rows=rows, note="As above, with less without.")

    def overlap(self) -> Curves:
        """nDCG by the share of a query's words that stand in the tools that it needs."""
        share_Q = self.shared_words
        edges = np.unique(np.quantile(share_Q, np.linspace(0, 1, _QUARTERS + 1)))
        part_Q = np.clip(np.searchsorted(edges, share_Q, side="right") - 1, 0, max(len(edges) - 2, 0))
        series = []
        for ranked, found in zip(self.rankings, self.values, strict=True):
            parts = [part_Q == part for part in np.unique(part_Q)]
            points = [(float(share_Q[some].mean()), estimate(found[self.ndcg][some])) for some in parts]
            if not ranked.instructed or all(one.instructed for one in self.rankings):
                series.append(curve(ranked.label, points))
        note = (
            "Quarters of the queries by the share of their words, without stop words, that stand in the documentation "
        )
        note += f"of the tools that they need: {share_Q.mean():.0%} on average."
        return Curves(
            title="Words that queries and tools share", x_label="share of the query's words",
            y_label=f"nDCG@{self.config.k}", series=series, note=note,
        )  # fmt: skip

    @cached_property
    def shared_words(self) -> np.ndarray:
        """Of each query: which share of its words its tools have."""
        texts = dict(self.benchmark.tools.rows(self.run).columns("id", "text"))
        return shared_words(self.benchmark.asked(self.run), texts)

    def hardest(self) -> Table:
        """Queries on which all methods together do worst."""
        values_MQ = np.array([found[self.ndcg] for found in self.values])
        mean_Q = np.nan_to_num(np.nanmean(values_MQ, axis=0), nan=1.0)
        best = int(np.argmax([one.ndcg.mean for one in self.measured]))
        places_QK = self.rankings[best].ranking(self.run).places_QK
        tools, queries = self.benchmark.tools.rows(self.run), self.benchmark.asked(self.run)
        names = dict(tools.columns("id", "name"))
        by_place = [name for (name,) in tools.columns("name")]
        rows = []
        for place in np.argsort(mean_Q, kind="stable")[: self.config.hardest]:
            query, found = queries[place], places_QK[place]
            first = by_place[found[0]] if len(found) and found[0] >= 0 else None
            needed = ", ".join(names[name] for name in query.relevant)
            rows.append([_short(query.text), _short(needed), first, float(round(mean_Q[place], 3))])
        columns = [
            "query",
            "tools that it needs",
            f"first of {self.rankings[best].label}",
            f"mean nDCG@{self.config.k}",
        ]
        return Table(title="Hardest queries", columns=columns, rows=rows, note="The mean is over all methods.")

    def _difference(self, place: int, other: int) -> list[str | None]:
        """Points of nDCG with their p, and points of completeness."""
        ndcg_Q, complete_Q = (
            self.values[place][name] - self.values[other][name] for name in (self.ndcg, self.completeness)
        )
        return [
            _points(macro_estimate(100 * ndcg_Q, self.categories)), f"{macro_p(ndcg_Q, self.categories):.4f}",
            _points(macro_estimate(100 * complete_Q, self.categories)),
        ]  # fmt: skip


def speed(measured: Sequence[Measured], seconds: Mapping[str, float], k: int) -> Points:
    """nDCG against the time of one query."""
    labels = {label_of(one.method, one.instructed): one for one in measured}
    groups = [
        Cloud(name=label, x=[1e3 * seconds[label]], y=[one.ndcg.mean]) for label, one in labels.items()
        if label in seconds
    ]  # fmt: skip
    note = "Median of queries that are asked one after the other, with the index open: their encoding and the search."
    return Points(
        title=f"nDCG@{k} against time", x_label="time of a query [ms]", y_label=f"nDCG@{k}", groups=groups, note=note
    )


def _points(found: Estimate) -> str | None:
    return found.text("+.1f")


def _published(name: str, row: Sequence[float | None]) -> list[Any]:
    web, code, own, average, complete = (None if one is None else f"{one:.1f}%" for one in row)
    return [f"published {name}", web, None, code, None, own, None, average, None, complete, None]


def _short(text: str) -> str:
    return text if len(text) <= _CUT else f"{text[: _CUT - 1]}…"
