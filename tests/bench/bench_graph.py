"""A graph of a million nodes and ten million edges: building, sharing and asking it; and beside candidates one by one.

    python tests/bench/bench_graph.py [build] [share] [plain]

`build` makes the graph with its words and writes both into runs/bench/graph. `share` opens them in two processes, the
graph mapped, and asks each by words within a type, and by MoR's traversal with the plans that the questions come with;
dense scores are left out. What a process adds is its private memory after its queries. `plain` asks a graph of a tenth
of the size the same way, and as the published code does: bm25s scores all nodes of a type again for each candidate and
each node on its path, and neighbours are a row of a sparse matrix of torch, coalesced at each call. Both must find the
same candidates.

Bars: 6 GB for two processes; 50 queries/s of MoR on two cores; 50 times the plain way, over all questions.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lib"))

from squadron.core.folder import Folder  # noqa: E402
from squadron.methods.mor.algorithm import Candidates, TraversalConfig, search  # noqa: E402
from squadron.methods.mor.plans import Plan, Route, validate_plan  # noqa: E402
from squadron.retrieval.graph import KnowledgeBase, Question, TypedWords  # noqa: E402
from squadron.retrieval.graph.made_up import KINDS, MadeUpConfig, make_graph  # noqa: E402
from squadron.retrieval.graph.words import node_text  # noqa: E402

FOLDER = Folder(ROOT / "runs" / "bench" / "graph")
LARGE = MadeUpConfig(nodes=1_000_000, edges_per_node=10, questions=2_000)
SMALL = MadeUpConfig(nodes=100_000, edges_per_node=10, questions=12)
CONFIG, PROCESSES, SECONDS = TraversalConfig(), 2, 12.0


def planned(graph: KnowledgeBase, question: Question) -> Plan:
    routes = tuple(Route.of(*route) for route in question.routes)
    return validate_plan(Plan(routes, question.restriction), graph.schema, question.targets)[0]


def no_dense(places: np.ndarray) -> np.ndarray:
    return np.zeros(len(places))


def ask(graph: KnowledgeBase, words: TypedWords, question: Question) -> Candidates:
    return search(graph, words, question.query, planned(graph, question), question.targets, CONFIG, no_dense)


def build() -> bool:
    """Seconds and memory of making, indexing and writing."""
    times = [time.perf_counter()]
    graph, questions = make_graph(LARGE)
    times.append(time.perf_counter())
    words = TypedWords.build(graph)
    times.append(time.perf_counter())
    graph.save(FOLDER / "graph")
    words.save(FOLDER / "words")
    rows = [[one.id, one.kind, one.query, one.targets, one.answers, one.routes, dict(one.restriction)]
            for one in questions]  # fmt: skip
    FOLDER.write_json("questions.json", {"rows": rows})
    made, indexed, written = np.diff([*times, time.perf_counter()])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{len(graph):,} nodes, {graph.edges:,} edges: made in {made:.0f} s, indexed in {indexed:.0f} s, written in "
          f"{written:.0f} s; {peak:.1f} GB at most")  # fmt: skip
    return peak < 6


def private_gb() -> float:
    """What this process holds that no other does."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1e6


def work(number: int, barrier: Any, results: Any) -> None:
    """Open everything, and ask this process's share of the questions for so long."""
    empty, started = private_gb(), time.perf_counter()
    graph = KnowledgeBase.open(FOLDER / "graph")
    opened = private_gb() - empty
    words = TypedWords.open(FOLDER / "words", graph)
    found: dict[str, Any] = {"opened": time.perf_counter() - started, "graph_gb": opened}
    rows = FOLDER.read_json("questions.json")["rows"][number::PROCESSES]
    questions = [Question(*row) for row in rows]
    ways = {
        "words": lambda one: words.search("paper", [one.query], 100),
        "mor": lambda one: ask(graph, words, one),
    }
    for name, way in ways.items():
        way(questions[0])
        barrier.wait()
        count, started, busy = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < SECONDS:
            way(questions[count % len(questions)])
            count += 1
        found[name] = count / (time.perf_counter() - started)
        found[f"{name} ms"] = 1e3 * (time.process_time() - busy) / count
    found["private_gb"] = private_gb() - empty
    some = questions[:100]
    hits = [set(one.answers) & {graph.ids[int(place)] for place in ask(graph, words, one).place_C} for one in some]
    found["recall"] = float(np.mean([len(hit) / len(one.answers) for hit, one in zip(hits, some, strict=True)]))
    results.put(found)


def share() -> bool:
    """Queries a second of two processes, and what each adds."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(PROCESSES), context.Queue()
    workers = [context.Process(target=work, args=(number, barrier, results)) for number in range(PROCESSES)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=170) for _ in workers]
    for worker in workers:
        worker.join()
    files = sum((FOLDER / "graph").size(name) for name in (FOLDER / "graph").ls()) / 1e9
    private = [one["private_gb"] for one in found]
    rates = {name: sum(one[name] for one in found) for name in ("words", "mor")}
    print(f"the graph is {files:.2f} GB in files, of which a process that maps it adds {found[1]['graph_gb']:.2f} GB")
    shown = ", ".join(f"{one:.2f}" for one in private)
    print(f"opened with words in {found[0]['opened']:.0f} s; private memory of each after its queries: {shown} GB; "
          f"with the mapped files {files + sum(private):.1f} GB")  # fmt: skip
    for name, rate in rates.items():
        cost = np.mean([one[f"{name} ms"] for one in found])
        print(f"{name}: {rate:,.0f} queries/s by {PROCESSES} processes, {cost:.1f} ms of a core each")
    print(f"answers among the 100 candidates: {np.mean([one['recall'] for one in found]):.1%}")
    return rates["mor"] >= 50 and files + sum(private) < 6


class Plain:
    """The traversal as the published code has it: one candidate, and one neighbour's row, at a time."""

    def __init__(self, graph: KnowledgeBase, words: TypedWords) -> None:
        import bm25s
        import torch

        self.graph, self.words, self.cut = graph, words, bm25s.tokenize
        parts, self.indexes = [], {}
        for kind in graph.schema.types:
            own = graph.nodes(kind)
            self.indexes[kind] = bm25s.BM25()
            texts = [node_text(graph, int(place)) for place in own]
            self.indexes[kind].index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
            for other in graph.schema.types:
                near = graph.neighbours(own, None, other)
                parts.append(np.stack([own[near.row_E], near.place_E]))
        ends_2E = torch.from_numpy(np.concatenate(parts, axis=1))
        self.edges = torch.sparse_coo_tensor(
            ends_2E, torch.ones(ends_2E.shape[1]), (len(graph),) * 2, check_invariants=False
        )

    def near(self, place: int, kind: str) -> list[int]:
        found = self.edges[place].coalesce().indices()[0].tolist()
        return [one for one in found if self.graph.type_of(one) == kind]

    def score(self, place: int, query: str) -> float:
        """The score of one candidate: those of all nodes of its type are computed for it."""
        (words,) = self.cut([query], return_ids=False, show_progress=False)
        return float(self.indexes[self.graph.type_of(place)].get_scores(words)[self.graph.rank_N[place]])

    def best(self, kind: str, text: str, k: int) -> list[int]:
        return self.words.search(kind, [text], k).places_QK[0].tolist()

    def follow(self, query: str, plan: Plan, route: Route) -> dict[int, list[int]]:
        """The path to each node that a route leads to."""
        known = {kind: f"{query} {plan.known(kind)}" for kind in route.types}
        paths = {one: [one] for one in self.best(route.types[0], known[route.types[0]], CONFIG.seeds) if one >= 0}
        for kind in route.types[1:]:
            new: dict[int, list[int]] = {}
            for place, path in paths.items():
                for other in self.near(place, kind):
                    new.setdefault(other, [*path, other])
            if plan.known(kind):
                new |= {one: [one] for one in self.best(kind, known[kind], CONFIG.hits) if one >= 0}
            paths = new
        return paths

    def ask(self, question: Question) -> list[tuple[int, float]]:
        """Candidates with what the question's words score at them."""
        plan = planned(self.graph, question)
        routes = [self.follow(question.query, plan, route) for route in plan.routes if plan.known(route.types[0])]
        common = set.intersection(*map(set, routes)) if routes else set()
        places = sorted(common or set().union(*routes))
        for kind in question.targets:
            for one in self.best(kind, question.query, CONFIG.top):
                if one >= 0 and one not in places and len(places) < CONFIG.top:
                    places.append(one)
        for path in [next(some[one] for some in routes if one in some) for one in common or set().union(*routes)]:
            for place in path[:-1]:
                self.score(place, question.query)
        return [(place, self.score(place, question.query)) for place in places]


def plain() -> bool:
    """Seconds a query of both ways, on the same questions."""
    graph, questions = make_graph(SMALL)
    words = TypedWords.build(graph)
    reference = Plain(graph, words)
    ask(graph, words, questions[0])
    spent: dict[str, list[tuple[float, float]]] = {}
    for question in questions:
        started = time.process_time()
        ours = ask(graph, words, question)
        middle = time.process_time()
        theirs = reference.ask(question)
        ended = time.process_time()
        if len(theirs) <= CONFIG.top:  # beyond, dense scores choose
            assert {place for place, _ in theirs} == set(ours.place_C.tolist())
        spent.setdefault(question.kind, []).append((middle - started, ended - middle))
        print(f"{question.kind}: {1e3 * (middle - started):.1f} ms, candidate by candidate {ended - middle:.2f} s")
    for kind in KINDS:
        quick, slow = np.sum(spent[kind], 0)
        print(f"{kind}: {slow / quick:.0f} times")
    quick, slow = np.sum([pair for pairs in spent.values() for pair in pairs], 0)
    print(f"all questions: {slow / quick:.0f} times")
    return bool(slow / quick >= 50)


if __name__ == "__main__":
    parts = {"build": build, "share": share, "plain": plain}
    names = [name for name in parts if name in sys.argv[1:]] or list(parts)
    met = [parts[name]() for name in names]
    print(", ".join(f"{name}: {'met' if one else 'missed'}" for name, one in zip(names, met, strict=True)))
