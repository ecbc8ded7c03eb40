"""The stages of a ToolRet run, in the order of `jobs/toolret.py`."""

from squadron.methods.toolret.agent import try_agent
from squadron.methods.toolret.benchmark import read_benchmark
from squadron.methods.toolret.comparison import compare
from squadron.methods.toolret.learning import compare_learned, train_embedder
from squadron.methods.toolret.saved_index import save_index
from squadron.methods.toolret.searching import (
    embed_tool_tokens,
    embed_tools,
    join_rankings,
    read_run,
    rerank_tools,
    search_tokens,
    search_vectors,
    search_words,
)
from squadron.methods.toolret.timing import time_queries
from squadron.methods.toolret.training_set import build_training_set

__all__ = [
    "build_training_set",
    "compare",
    "compare_learned",
    "embed_tool_tokens",
    "embed_tools",
    "join_rankings",
    "read_benchmark",
    "read_run",
    "rerank_tools",
    "save_index",
    "search_tokens",
    "search_vectors",
    "search_words",
    "time_queries",
    "train_embedder",
    "try_agent",
]
