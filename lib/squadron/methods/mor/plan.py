"""What a MoR run needs, from its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence

from squadron.core.profile import Profile
from squadron.methods.mor.config import MorConfig

Rows = Sequence[tuple[str, str]]


def knowledge(config: MorConfig, workers: int, profile: Profile) -> Rows:
    """What is read."""
    if config.graph is not None:
        return [("graph", f"{config.graph.nodes}, {config.graph.edges}"), ("questions", str(config.graph.questions))]
    world = config.world
    return [("nodes, questions", f"{world.nodes:,}, {world.questions:,}, made up")]


def vectors(config: MorConfig, workers: int, profile: Profile) -> Rows:
    """What is embedded."""
    return [
        ("embedded", f"every node that may be an answer, every question, once by {config.scorer.embedder.provider}")
    ]


def question_map(config: MorConfig, workers: int, profile: Profile) -> Rows:
    """What learns to map questions."""
    one = config.question_map
    return [] if one is None else [("map of questions", f"each training question {one.passes} times")]


def search(config: MorConfig, workers: int, profile: Profile) -> Rows:
    """How far plans are followed."""
    one = config.traversal
    return [
        ("candidates", f"{one.top} of each question, by routes of {one.steps} edges at most from {one.seeds} seeds")
    ]


def planner(config: MorConfig, workers: int, profile: Profile) -> Rows:
    """What learns to plan."""
    from squadron.methods.mor.planner_config import ExtractivePlanner, TunedPlanner

    rows = []
    for one in config.planners:
        if isinstance(one, ExtractivePlanner):
            rows.append((one.name, f"{one.encoder or 'the packaged MiniLM'}, {one.training.epochs:g} epochs"))
        elif isinstance(one, TunedPlanner):
            how = f"adapters of rank {one.lora.rank}" if one.lora else "all weights"
            rows.append((one.name, f"{one.base}, {how}, {one.training.steps or one.training.epochs} steps or epochs"))
    return rows


def reranker(config: MorConfig, workers: int, profile: Profile) -> Rows:
    """What learns to rank."""
    if config.reranker is None:
        return []
    one = config.reranker
    return [("reranker", f"{one.width} wide, each training question {one.passes} times, {one.negatives} wrong ones")]
