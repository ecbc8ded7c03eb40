"""Questions of a run's graph behind `POST /v1/graph/search`: answers, each with the path to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.core.run_reader import outputs, settings
from squadron.core.work import take_turns
from squadron.llm.embed import open_embedder
from squadron.methods.mor import extractive
from squadron.methods.mor.algorithm import PAD, Candidates, search
from squadron.methods.mor.config import MorConfig
from squadron.methods.mor.planner_config import ExtractivePlanner
from squadron.methods.mor.planning import TrainedPlanner, open_planner
from squadron.methods.mor.plans import Plan, PlanError, parse_plan, validate_plan
from squadron.methods.mor.records import Embedded, Knowledge, usable_plan
from squadron.methods.mor.reranker import TrainedReranker
from squadron.methods.mor.searching import target_places
from squadron.retrieval.formats import embedder_format, query_text
from squadron.serve import costs
from squadron.serve.service import Route, Service, Services

_PARALLEL, _UNITS = 8, 64
Name = Annotated[str, Field(min_length=1, max_length=256)]
Known = Annotated[str, Field(min_length=1, max_length=2048)]
RouteOfTypes = Annotated[tuple[Name, ...], Field(min_length=1, max_length=24)]


class GivenPlan(Config):
    """Routes of types, between which relations may stand, and what is known of nodes of a type."""

    routes: Annotated[tuple[RouteOfTypes, ...], Field(min_length=1, max_length=32)]
    restriction: Annotated[dict[Name, Annotated[tuple[Known, ...], Field(max_length=8)]], Field(max_length=32)] = {}


class GraphSearchRequest(Config):
    """A question, answered by the best `k` nodes."""

    model: str = Field(min_length=1, max_length=512)
    query: str = Field(min_length=1, max_length=8192, pattern=r"\S")
    targets: Annotated[tuple[Name, ...], Field(max_length=64)] = Field((), description="types of answers; none: any")
    plan: GivenPlan | None = Field(None, description="null: the run's planner writes one, if it can do so here")
    k: int = Field(10, ge=1, le=100)


class Hop(Config):
    """A node on the way to an answer: what the question's words score there, and the relation from the one before."""

    id: str
    name: str
    type: str
    score: float
    relation: str | None


class Answer(Config):
    """A node that was found. `routed` says whether a route led to it, or words alone."""

    id: str
    name: str
    type: str
    score: float
    path: tuple[Hop, ...]
    routed: bool


class GraphSearchAnswer(Config):
    """What was found, the best first, and by whose plan: `text` where there was none that can be followed."""

    object: Literal["list"] = "list"
    model: str
    planned: Literal["given", "planner", "text"]
    data: tuple[Answer, ...]


def services(folder: Folder) -> Services:
    """The search of a run over its graph, under the name of the run's folder. Raises InputError if the run has not come
    so far."""
    config = settings(folder, MorConfig)
    first = config.planners[0]
    planner = outputs(folder, "train_planner", TrainedPlanner)[0] if isinstance(first, ExtractivePlanner) else None
    reranker = outputs(folder, "train_reranker", TrainedReranker)[-1] if config.reranker else None
    knowledge = outputs(folder, "read_knowledge", Knowledge)[-1]
    embedded = outputs(folder, "embed_texts", Embedded)[-1]
    load = Load(folder, config, knowledge, embedded, planner, reranker)
    route = Route(
        "/v1/graph/search", "search", GraphSearchRequest, GraphSearchAnswer, "Find answers in a graph",
        example=_example(folder, knowledge), work=lambda request: 1 + len(_written(request)) // costs.PASS,
        tokens=lambda request: costs.tokens_of([_written(request)]),
    )  # fmt: skip
    unit = f"questions, each {costs.PASS:,} characters counted as one more"
    service = Service(
        folder.name, load, (route,), WorkerResources(), _PARALLEL, _UNITS, unit, models=(folder.name,)
    )  # fmt: skip
    return Services((service,))


def _example(folder: Folder, knowledge: Knowledge) -> dict[str, Any]:
    first = next(one for one in knowledge.asked(folder, "test"))
    return {"query": first.query[:8192], "k": 3}


def _written(request: GraphSearchRequest) -> str:
    """All that is to be read of a request."""
    return request.query + (request.plan.model_dump_json() if request.plan else "")


@dataclass(frozen=True)
class Load:
    """What a replica loads."""

    run: Folder
    config: MorConfig
    knowledge: Knowledge
    embedded: Embedded
    planner: TrainedPlanner | None
    reranker: TrainedReranker | None

    def __call__(self) -> GraphServer:
        return GraphServer(self)


class GraphServer:
    """A graph with its words and vectors, mapped into memory, the planner, and the reranker where there is one."""

    def __init__(self, load: Load) -> None:
        run, self._config = load.run, load.config
        self._graph = load.knowledge.open_graph(run)
        self._words = load.knowledge.open_words(run, self._graph)
        self._targets = load.knowledge.targets
        self._places_D = target_places(self._graph, self._targets)
        self._nodes_DE = load.embedded.nodes.read(run)
        self._embedder = open_embedder(load.config.scorer.embedder)
        self._form = embedder_format(load.config.scorer.embedder, None)
        self._planner = open_planner(run, load.planner) if load.planner else None
        self._reranker = load.reranker.model.open(run) if load.reranker else None

    def search(self, request: GraphSearchRequest) -> GraphSearchAnswer:
        """The best nodes of a question. Raises InputError for types that are no answers of this graph, and for a plan
        of which a route cannot be followed, with the reason."""
        targets = self._targets_of(request)
        take_turns()
        plan, planned = self._plan(request, targets)
        (query_E,) = self._embedder.embed([query_text(self._form, request.query, None)])

        def dense(place_C: np.ndarray) -> np.ndarray:
            scores_C: np.ndarray = self._nodes_DE[np.searchsorted(self._places_D, place_C)] @ query_E
            return scores_C

        take_turns()
        found = search(self._graph, self._words, request.query, plan, targets, self._config.traversal, dense)
        order_C, score_C = self._order(found)
        rows = zip(order_C[: request.k].tolist(), score_C[: request.k].tolist(), strict=True)
        data = tuple(self._answer(found, row, score) for row, score in rows)
        return GraphSearchAnswer(model=request.model, planned=planned, data=data)

    def _targets_of(self, request: GraphSearchRequest) -> tuple[str, ...]:
        if unknown := [kind for kind in request.targets if kind not in self._targets]:
            what = f"targets: {unknown[0]!r} is no type of answers here; these are: {', '.join(self._targets)}"
            raise InputError(what, where="targets")
        return tuple(dict.fromkeys(request.targets)) or self._targets

    def _plan(self, request: GraphSearchRequest, targets: tuple[str, ...]) -> tuple[Plan, Any]:
        """The plan to follow, and whose it is."""
        steps = self._config.traversal.steps
        if request.plan is not None:
            try:
                given = parse_plan(json.dumps(request.plan.model_dump(mode="json"), ensure_ascii=False))
            except PlanError as error:
                raise InputError(f"plan: {error}", where="plan") from None
            plan, reasons = validate_plan(given, self._graph.schema, targets, steps)
            if reasons:
                raise InputError(f"plan: {'; '.join(reasons)}", where="plan")
            return plan, "given"
        written = None
        if self._planner is not None:
            (written,) = extractive.predict_plans(self._planner, [request.query], 1)
        plan, _ = usable_plan(written, self._graph.schema, targets, steps)
        return plan, "planner" if plan.routes else "text"

    def _order(self, found: Candidates) -> tuple[np.ndarray, np.ndarray]:
        """Candidates by their numbers, the best first, and their scores."""
        if self._reranker is None or self._config.reranker is None:
            return np.arange(len(found)), found.dense_C
        place_C, score_C = self._reranker.rerank(self._graph, found, self._config.reranker.top)
        number = {place: row for row, place in enumerate(found.place_C.tolist())}
        return np.array([number[place] for place in place_C.tolist()], np.int64), score_C

    def _answer(self, found: Candidates, row: int, score: float) -> Answer:
        place = int(found.place_C[row])
        on_the_way = zip(found.path_CT[row].tolist(), found.score_CT[row].tolist(), strict=True)
        path: list[Hop] = []
        before = PAD
        for stop, words in on_the_way:
            if stop != PAD:
                led = self._graph.relation(before, stop) if before != PAD else None
                path.append(Hop(**self._named(stop), score=words, relation=led.name if led else None))
                before = stop
        return Answer(**self._named(place), score=score, path=tuple(path), routed=bool(found.routed_C[row]))

    def _named(self, place: int) -> dict[str, Any]:
        graph = self._graph
        return {"id": graph.ids[place], "name": graph.names[place], "type": graph.type_of(place)}
