"""Settings of the reranker."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from squadron.core.config import Config
from squadron.core.rehearsal import AtMost
from squadron.llm.embed import AnyEmbedder, PackagedEmbedder
from squadron.train.spec import OptimizerConfig, ScheduleConfig, TrainSpec

Feature = Literal["scores", "types", "codes"]
EVERY_FEATURE: tuple[Feature, ...] = ("scores", "types", "codes")

PAPER_TRAINING = TrainSpec(
    batch_size=5,
    micro_batch_size=5,
    optimizer=OptimizerConfig(learning_rate=1e-4, betas=(0.9, 0.999), max_grad_norm=0.0),
    schedule=ScheduleConfig(kind="constant", warmup_ratio=0.0),
)
"""The published code's, for MAG: Adam. For Amazon batches of 64, for Prime of 256 at a rate of 3e-5."""
SMALL_TRAINING = PAPER_TRAINING.model_copy(
    update={
        "batch_size": 32,
        "micro_batch_size": 32,
        "optimizer": OptimizerConfig(learning_rate=3e-4, betas=(0.9, 0.999), max_grad_norm=0.0),
    }
)
"""For seconds on CPUs."""


class RerankerConfig(Config):
    """A network that scores each candidate by how it was reached, trained on questions whose answers are known."""

    features: tuple[Feature, ...] = Field(
        EVERY_FEATURE,
        min_length=1,
        description="what it sees of a path: scores along it, types of its nodes, whether words or an edge led to each",
    )
    embedder: AnyEmbedder = Field(PackagedEmbedder(), description="of the types of a path, written as one text")
    width: Annotated[int, AtMost(8)] = Field(256, ge=1, description="of the layer over each feature")
    negatives: Annotated[int, AtMost(8)] = Field(
        100, ge=1, description="wrong candidates drawn, again and again, next to a right one"
    )
    passes: Annotated[int, AtMost(2)] = Field(
        100, ge=1, description="times each question is learned from, with candidates drawn anew"
    )
    choices: Annotated[int, AtMost(2)] = Field(
        20, ge=1, description="states of the training among which validation questions choose, by Hit@1"
    )
    top: int = Field(100, ge=1, description="candidates that it orders; those behind stay behind")
    training: TrainSpec = SMALL_TRAINING
