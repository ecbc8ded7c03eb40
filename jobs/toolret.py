"""ToolRet: which of thousands of tools does a task need? Retrievers and rerankers compared on tools of any kind.

python jobs/toolret.py                                           # the demo, on this machine
squadron run toolret own sets.0.tools.path=tools.jsonl sets.0.queries.0.path=queries.jsonl
squadron run toolret paper --profile 8xh100 --address auto

ToolRet, arXiv 2503.01763.
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import Goal, job
from squadron.core.run import Run
from squadron.methods.toolret.config import (
    Bm25Retriever,
    DenseRetriever,
    GivenRun,
    HybridRetriever,
    LateRetriever,
    ToolRetConfig,
)
from squadron.methods.toolret.endpoint import services
from squadron.methods.toolret.records import Ranked
from squadron.methods.toolret.rehearsal import REPLIES
from squadron.methods.toolret.stages import (
    build_training_set,
    compare,
    compare_learned,
    embed_tool_tokens,
    embed_tools,
    join_rankings,
    read_benchmark,
    read_run,
    rerank_tools,
    save_index,
    search_tokens,
    search_vectors,
    search_words,
    time_queries,
    train_embedder,
    try_agent,
)
from squadron.retrieval.vectors import Vectors

NEEDS = (
    "ray",
    "torch",
    "transformers",
    "deepspeed",
    "sentence_transformers",
    "faiss",
    "bm25s",
    "ir_measures",
    "pyarrow",
)


METRICS: dict[str, Goal] = {"ndcg": "max", "completeness": "max", "gain": "max", "validation_ndcg": "max"}


@job(ToolRetConfig, requires=NEEDS, metrics=METRICS, replies=REPLIES, services=services)
def toolret(run: Run, config: ToolRetConfig) -> None:
    """Tools found for tasks: by words, by vectors, by both, and ordered again by models that read them."""
    corpus, top = config.corpus, config.top
    found: dict[tuple[str, bool], Ranked] = {}
    vectors: dict[str, Vectors] = {}
    benchmark = run.stage(read_benchmark, config.sets, config.world, config.read, config.instructions)
    for one in config.retrievers:
        if isinstance(one, DenseRetriever):
            vectors[one.name] = run.stage(embed_tools, benchmark, one)
        if isinstance(one, LateRetriever):
            tokens = run.stage(embed_tool_tokens, benchmark, one)
        for told in config.instructions:  # truly without, and with
            if isinstance(one, Bm25Retriever):
                found[one.name, told] = run.stage(search_words, benchmark, one, told, corpus, top)
            elif isinstance(one, DenseRetriever):
                ranked = run.stage(search_vectors, benchmark, one, vectors[one.name], told, corpus, top)
                found[one.name, told] = ranked
            elif isinstance(one, LateRetriever):
                found[one.name, told] = run.stage(search_tokens, benchmark, one, tokens, told, corpus, top)
            elif isinstance(one, HybridRetriever):
                parts = tuple(found[name, told] for name in one.of)
                found[one.name, told] = run.stage(join_rankings, parts, config.weighted(one), top)
            elif isinstance(one, GivenRun) and one.instructed == told:
                found[one.name, told] = run.stage(read_run, benchmark, one, top)
    first_dense = next((one for one in config.retrievers if isinstance(one, DenseRetriever)), None)
    run.stage(save_index, benchmark, first_dense, vectors[first_dense.name] if first_dense else None)  # to serve
    for again in config.rerankers:
        for told in config.instructions:
            first = found.get((again.first, told)) or found[again.first, not told]  # a published run has one setting
            found[again.method, told] = run.stage(rerank_tools, benchmark, first, again, told)
    compared = run.stage(compare, benchmark, tuple(found.values()), config.evaluation)
    run.stage(
        time_queries, benchmark, config.retrievers, tuple(vectors.values()), corpus, config.instructions, top,
        compared, config.evaluation.k, config.latency,
    )  # fmt: skip
    if config.training is not None:
        learning = config.training.learning
        training_set = run.stage(build_training_set, benchmark, config.training.rows)
        trained = run.stage(train_embedder, training_set, learning)
        settings, k = config.instructions, config.evaluation.k
        run.stage(compare_learned, benchmark, training_set, trained, learning, settings, corpus, k)
    if config.agent is not None:
        run.stage(try_agent, benchmark, tuple(found.values()), config.agent)


if __name__ == "__main__":
    run_job(toolret)
