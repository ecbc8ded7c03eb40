"""What a ToolRet run needs, from its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.core.profile import Profile
from squadron.methods.toolret.config import DenseRetriever, ToolRetConfig

Rows = Sequence[tuple[str, str]]


def benchmark(config: ToolRetConfig, workers: int, profile: Profile) -> Rows:
    """What is searched and asked."""
    if not config.sets:
        return [("tools, queries", f"{config.world.tools:,}, {config.world.queries:,}, made up")]
    tasks = sum(max(len(one.subsets), 1) for some in config.sets for one in some.queries)
    shared = "one corpus of all tools" if config.corpus == "together" else "each its own tools"
    return [("categories", f"{', '.join(one.name for one in config.sets)}; {tasks} sets of queries, {shared}")]


def rankings(config: ToolRetConfig, workers: int, profile: Profile) -> Rows:
    """What is embedded and ranked. The tools are embedded once for each model, queries once for each setting."""
    models = [one.name for one in config.retrievers if isinstance(one, DenseRetriever)]
    settings = " and ".join("with" if told else "without" for told in config.instructions)
    rows = [("retrievers", f"{len(config.retrievers)}, {settings} instructions, {config.top} tools of each query")]
    if models:
        rows.append(("models that embed all tools", ", ".join(models)))
    if config.rerankers:
        pairs = sum(one.depth for one in config.rerankers) * len(config.instructions)
        rows.append(("pairs that rerankers read", f"{pairs:,} for each query"))
    return rows
