"""Vectors of questions, brought nearer to those of their answers by what the training questions teach."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np

from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.evaluate.panels import loss_curves
from squadron.methods.mor import plan
from squadron.methods.mor.question_map import Example, QuestionMapConfig, fit_question_map
from squadron.methods.mor.records import Embedded, Knowledge
from squadron.methods.mor.searching import target_places
from squadron.retrieval.vectors import Vectors


@estimated(plan.question_map)
def map_questions(stage: Stage, knowledge: Knowledge, embedded: Embedded, config: QuestionMapConfig) -> Embedded:
    """Learn a map from the training questions, and map all questions' vectors by it; validation questions choose the
    state of the training, or that nothing is changed.

    Raises InputError if no training question has an answer next to other nodes; else as training does.
    """
    run = stage.run.folder
    examples = {part: _examples(stage, knowledge, part) for part in ("train", "validation")}
    learned = fit_question_map(
        stage, embedded.nodes, embedded.questions, examples["train"], examples["validation"], config
    )
    stage.show(loss_curves("Training loss of the map of questions", {"map of questions": learned.losses}))
    if learned.hits:
        first, best = learned.hits[0], max(learned.hits.values())
        stage.headline("Hit@1 by vectors on validation questions", f"{first:.1%}, mapped {best:.1%}")
    mapped_QE = learned.model.open(run).apply(np.asarray(embedded.questions.read(run)))
    with tempfile.TemporaryDirectory() as scratch:
        np.save(f"{scratch}/questions.npy", mapped_QE, allow_pickle=False)
        stage.folder.put("questions.npy", f"{scratch}/questions.npy")
    known = {"count": embedded.questions.count, "dimensions": embedded.questions.dimensions}
    return Embedded(nodes=embedded.nodes, questions=Vectors.made(stage, "questions.npy", **known), learned=True)


def _examples(stage: Stage, knowledge: Knowledge, part: str) -> Sequence[Example]:
    """Questions of a part by rows of the vectors."""
    graph = knowledge.open_graph(stage.run.folder)
    places_D = target_places(graph, knowledge.targets)
    allowed: dict[tuple[str, ...], np.ndarray] = {}
    found = []
    for row, one in enumerate(knowledge.asked(stage.run.folder)):
        if one.part == part:
            if one.targets not in allowed:
                allowed[one.targets] = np.searchsorted(places_D, target_places(graph, one.targets))
            right_D = np.searchsorted(places_D, [graph.place(name) for name in one.answers])
            found.append(Example(row, allowed[one.targets], np.intersect1d(right_D, allowed[one.targets])))
    return found
