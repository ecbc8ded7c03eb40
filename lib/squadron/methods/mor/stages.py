"""The stages of a MoR run, in the order of `jobs/mor.py`."""

from squadron.methods.mor.comparison import compare
from squadron.methods.mor.mapping import map_questions
from squadron.methods.mor.planning import plan_questions, train_planner
from squadron.methods.mor.reading import read_knowledge
from squadron.methods.mor.reranking import rerank, train_reranker
from squadron.methods.mor.searching import (
    embed_texts,
    rank_by_vectors,
    rank_by_words,
    rank_mixed,
    rank_structure,
    search_graph,
)

__all__ = [
    "compare",
    "embed_texts",
    "map_questions",
    "plan_questions",
    "rank_by_vectors",
    "rank_by_words",
    "rank_mixed",
    "rank_structure",
    "read_knowledge",
    "rerank",
    "search_graph",
    "train_planner",
    "train_reranker",
]
