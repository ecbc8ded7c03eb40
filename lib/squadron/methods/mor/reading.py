"""The graph and its questions, read and checked, or made up, and indexed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from squadron.core.artifacts import Artifact
from squadron.core.errors import InputError
from squadron.core.job import estimated
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.rows import store_rows
from squadron.methods.mor import plan
from squadron.methods.mor.config import PARTS, GivenGraph, SplitConfig
from squadron.methods.mor.plans import Plan, Route, write_plan
from squadron.methods.mor.records import QUESTION_TYPES, Asked, Knowledge
from squadron.retrieval.bm25 import Bm25Config
from squadron.retrieval.graph import KnowledgeBase, TypedWords
from squadron.retrieval.graph.files import read_graph, read_questions
from squadron.retrieval.graph.made_up import MadeUpConfig, make_graph
from squadron.retrieval.graph.questions import Question


@estimated(plan.knowledge)
def read_knowledge(
    stage: Stage, given: GivenGraph | None, world: MadeUpConfig, split: SplitConfig, words: Bm25Config
) -> Knowledge:
    """Read the graph and what is asked of it, and index the words of each type of nodes.

    Raises InputError, with file and line, for what is no graph, answers that are no nodes, and too few questions.
    """
    if given is None:
        graph, questions = make_graph(world)
    else:
        graph = read_graph(given.nodes, given.edges)
        questions = _drawn(read_questions(given.questions, graph), given.limit, split.seed)
        questions = [_aimed(one, graph, given.targets, str(given.questions)) for one in questions]
    asked = _parted(questions, split)
    graph.save(stage.folder / "graph")
    TypedWords.build(graph, words).save(stage.folder / "words")
    rows = store_rows(stage, "questions.arrow", (vars(one) for one in asked), QUESTION_TYPES)
    _show(stage, graph, asked)
    return Knowledge(
        graph=Artifact.made(stage, "graph"),
        words=Artifact.made(stage, "words"),
        bm25=words,
        questions=rows,
        targets=tuple(dict.fromkeys(kind for one in asked for kind in one.targets)),
    )


def _drawn(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """So many at most, in their order."""
    if limit is None or len(questions) <= limit:
        return list(questions)
    kept = sorted(random.Random(seed).sample(range(len(questions)), limit))
    return [questions[place] for place in kept]


def _aimed(one: Question, graph: KnowledgeBase, targets: tuple[str, ...], where: str) -> Question:
    """The question with the types that it asks for: those that are set, else those of its plan, else of its answers."""
    from dataclasses import replace

    if unknown := sorted(set(targets) - set(graph.schema.types)):
        fix = f"the graph has {', '.join(graph.schema.types)}"
        raise InputError(f"there are no nodes of the type {unknown[0]!r}", where="graph.targets", fix=fix)
    own = one.targets or tuple(dict.fromkeys(route[-1] for route in one.routes))
    own = targets or own or tuple(dict.fromkeys(graph.type_of(graph.place(name)) for name in one.answers))
    return replace(one, targets=own)


def _parted(questions: Sequence[Question], split: SplitConfig) -> list[Asked]:
    """Each with its part: of every kind the same shares."""
    draw = random.Random(split.seed)
    part: dict[str, str] = {}
    for kind in dict.fromkeys(one.kind for one in questions):
        own = [one.id for one in questions if one.kind == kind]
        draw.shuffle(own)
        first, second = round(split.train * len(own)), round((split.train + split.validation) * len(own))
        part |= {name: PARTS[(place >= first) + (place >= second)] for place, name in enumerate(own)}
    if missing := [name for name in PARTS if name not in part.values()]:
        fix = "give more questions, or other shares in split"
        raise InputError(f"no question is left for {missing[0]}: there are {len(questions)}", where="split", fix=fix)
    return [
        Asked(one.id, one.kind, part[one.id], one.query, one.targets, one.answers, _written(one)) for one in questions
    ]


def _written(one: Question) -> str | None:
    if not one.routes:
        return None
    return write_plan(Plan(tuple(Route.of(*route) for route in one.routes), one.restriction))


def _show(stage: Stage, graph: KnowledgeBase, asked: Sequence[Asked]) -> None:
    counts = Counter(graph.type_N.tolist())
    rows = [[kind, counts[number]] for number, kind in enumerate(graph.schema.types)]
    stage.show(Table(title="Nodes of the graph", columns=["type", "nodes"], rows=rows))
    relations = [[one.source, one.name, one.target] for one in graph.schema.relations]
    stage.show(Table(title="What is connected", columns=["from", "relation", "to"], rows=relations))
    kinds = Counter((one.kind, one.part) for one in asked)
    table = [
        [kind, *(kinds[kind, part] for part in PARTS), sum(one.plan is not None for one in asked if one.kind == kind)]
        for kind in dict.fromkeys(one.kind for one in asked)
    ]
    columns = ["kind", *PARTS, "with a plan"]
    stage.show(Table(title="Questions", columns=columns, rows=[list(row) for row in table]))
    stage.headline("nodes, edges, questions", f"{len(graph):,}, {graph.edges:,}, {len(asked):,}")
