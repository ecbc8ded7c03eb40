"""Candidates in the order of the reranker, which learns from the training questions."""

from __future__ import annotations

from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.evaluate.panels import loss_curves
from squadron.methods.mor import plan
from squadron.methods.mor.records import Asked, Found, Knowledge, Ranked
from squadron.methods.mor.reranker import Judged, TrainedReranker, fit_reranker, judge
from squadron.methods.mor.reranker_config import EVERY_FEATURE, RerankerConfig
from squadron.retrieval.graph import KnowledgeBase
from squadron.retrieval.ranking import Ranking

NAMES = {"scores": "scores along the path", "types": "types of the path", "codes": "codes of the path"}


@estimated(plan.reranker)
def train_reranker(stage: Stage, knowledge: Knowledge, found: Found, config: RerankerConfig) -> TrainedReranker:
    """Learn which candidates are right from how they were reached; validation questions choose the state.

    Raises InputError if no training question has a right candidate next to a wrong one; else as training does.
    """
    run = stage.run.folder
    graph, candidates = knowledge.open_graph(run), found.read(run)

    def judged(part: str) -> list[Judged]:
        return [judge(candidates[one.id], _answers(graph, one)) for one in knowledge.asked(run, part)]

    trained = fit_reranker(stage, graph, knowledge.targets, judged("train"), judged("validation"), config)
    stage.show(loss_curves("Training loss of the reranker", {"reranker": trained.losses}))
    if trained.hits:
        stage.headline("Hit@1 on validation questions", f"{max(trained.hits.values()):.1%}")
    return trained


def rerank(
    stage: Stage, knowledge: Knowledge, found: Found, trained: TrainedReranker, config: RerankerConfig
) -> Ranked:
    """Order the candidates of every question anew."""
    run = stage.run.folder
    graph, candidates, asked = knowledge.open_graph(run), found.read(run), knowledge.asked(run)
    opened = trained.model.open(run)
    most = max((len(one) for one in candidates.values()), default=1)
    ranking = Ranking.empty(len(asked), max(most, 1))
    for row, one in enumerate(asked):
        places, scores = opened.rerank(graph, candidates[one.id], config.top)
        ranking.places_QK[row, : len(places)], ranking.scores_QK[row, : len(places)] = places, scores
    without = [NAMES[name] for name in EVERY_FEATURE if name not in config.features]
    method = f"MoR without {' and '.join(without)}" if without else "MoR"
    return Ranked.write(stage, ranking, method=f"{method}: {found.planner}")


def _answers(graph: KnowledgeBase, one: Asked) -> list[int]:
    return [graph.place(name) for name in one.answers]
