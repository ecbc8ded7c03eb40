"""MoR: questions of a text-rich graph, answered over its edges and by its texts together, with the path to each answer.

python jobs/mor.py                                              # the demo, on this machine
squadron run mor own graph.nodes=nodes.jsonl graph.edges=edges.jsonl graph.questions=questions.jsonl
squadron run mor paper --profile 8xh100 --address auto

MoR, arXiv 2502.20317.
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import Goal, job
from squadron.core.run import Run
from squadron.methods.mor.config import MorConfig
from squadron.methods.mor.endpoint import services
from squadron.methods.mor.planner_config import TrainedKinds
from squadron.methods.mor.records import Found, Ranked
from squadron.methods.mor.rehearsal import REPLIES
from squadron.methods.mor.stages import (
    compare,
    embed_texts,
    map_questions,
    plan_questions,
    rank_by_vectors,
    rank_by_words,
    rank_mixed,
    rank_structure,
    read_knowledge,
    rerank,
    search_graph,
    train_planner,
    train_reranker,
)

NEEDS = ("ray", "torch", "transformers", "deepspeed", "sentence_transformers", "bm25s", "ir_measures", "pyarrow")
METRICS: dict[str, Goal] = {"hit1": "max", "mrr": "max", "recall20": "max"}


@job(MorConfig, requires=NEEDS, services=services, metrics=METRICS, replies=REPLIES)
def mor(run: Run, config: MorConfig) -> None:
    """Answers over the edges of a graph and by its texts, ordered by what the path to each looks like."""
    knowledge = run.stage(read_knowledge, config.graph, config.world, config.split, config.words)
    embedded = run.stage(embed_texts, knowledge, config.scorer)
    traversal = config.traversal
    rankings: list[Ranked] = [
        run.stage(rank_by_words, knowledge, traversal),
        run.stage(rank_by_vectors, knowledge, embedded, traversal),
    ]
    if config.question_map is not None:
        embedded = run.stage(map_questions, knowledge, embedded, config.question_map)
        rankings.append(run.stage(rank_by_vectors, knowledge, embedded, traversal))
    found: list[Found] = []
    for planner in config.planners:
        taught = run.stage(train_planner, knowledge, planner) if isinstance(planner, TrainedKinds) else None
        plans = run.stage(plan_questions, knowledge, planner, taught)
        found.append(run.stage(search_graph, knowledge, plans, embedded, traversal))
    rerankers = [(one, run.stage(train_reranker, knowledge, found[0], one)) for one in config.rerankers]
    for candidates in reversed(found):  # the first planner's come last: the others are compared with these
        rankings.append(run.stage(rank_structure, knowledge, candidates, traversal))
        rankings.append(run.stage(rank_mixed, knowledge, candidates, traversal))
        used = rerankers if candidates is found[0] else rerankers[-1:]
        rankings += [run.stage(rerank, knowledge, candidates, trained, one) for one, trained in used]
    run.stage(compare, knowledge, tuple(rankings), tuple(found), config.evaluation)


if __name__ == "__main__":
    run_job(mor)
