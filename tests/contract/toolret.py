"""The contract of the job toolret."""

from tests.contract.record import Contract, Refused, outputs

SET = "sets=[{name: own, tools: {path: FILES/t.jsonl}, queries: [{path: FILES/q.jsonl}]}]"
TOOLS = [{"id": "a", "documentation": "adds"}, {"id": "b", "documentation": "draws"}]
QUERIES = [{"id": "q", "query": "add it up", "instruction": "find tools", "labels": ["a"]}]


def refused(said: str, tools: list[object] = TOOLS, queries: list[object] = QUERIES) -> Refused:  # type: ignore[assignment]
    """A set of these tools and queries."""
    return Refused(said, [SET], {"t.jsonl": tools, "q.jsonl": queries})


CONTRACT = Contract(
    panels=[
        "What was read", "Retrieval without instructions", "Retrieval with instructions", "Differences",
        "Training set", "before and after training", "An agent with these tools",
        "What instructions add", "nDCG@10 against time", "Words that queries and tools share", "Hardest queries",
    ],
    half_way="stages/time_queries-*/rows/*.jsonl",
    killed_in="time_queries",
    same=outputs("compare", "compare_learned", "try_agent", "join_rankings", "rerank_tools"),
    refused=[
        Refused("did you mean retrievers", ["retriever=[]"]),
        Refused("more than one is called BM25", ["retrievers=[{kind: bm25}, {kind: bm25}]"]),
        Refused("ndgc is no measure", ["evaluation.measures=[ndgc]"]),
        Refused("hybrid is of MiniLM, which is no retriever before it", ["retrievers=[{kind: bm25}, {kind: hybrid}]"]),
        Refused("no such file", ["sets=[{name: x, tools: {path: ./gone.jsonl}, queries: [{path: ./gone.jsonl}]}]"]),
        refused("t.jsonl:2", [TOOLS[0], {"id": "b", "documentation": ""}]),
        refused("'a' stands for two tools: first in", [*TOOLS, {"id": "a", "documentation": "other"}]),
        refused("'q' stands for two queries", TOOLS, [*QUERIES, *QUERIES]),
        refused("name no tool", TOOLS, [*QUERIES, {"id": "r", "query": "x", "labels": ["gone"]}]),
        refused("no query is answered by a tool", TOOLS, [{"id": "q", "query": "x", "labels": []}]),
        refused("no query has an instruction", TOOLS, [{"id": "q", "query": "x", "labels": ["a"]}]),
    ],
    spared="stages/search_words-*/done.json",
    no_effect=[
        "rerankers.0.timeout_s=99", "rerankers.0.cap_usd=5",
        "retrievers.1.embedder={provider: packaged, batch_size: 7}",
    ],
    late={
        "world.seed=3": "read_benchmark",
        "top=7": "search_words",
        "rerankers.0.depth=3": "rerank_tools",
        "latency.queries=4": "time_queries",
        "evaluation.k=5": "compare",
        "training.rows.negatives.count=2": "build_training_set",
        "training.learning.contrastive.temperature=0.1": "train_embedder",
        "agent.k=2": "try_agent",
    },
)  # fmt: skip
