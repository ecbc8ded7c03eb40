"""Settings of what a ToolRet run trains: its training set, and an embedder on it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from squadron.core.config import Config, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, Model, StandIns
from squadron.data.record_files import RecordsPath
from squadron.llm.batch.collect import CollectConfig
from squadron.llm.chat import Sampling
from squadron.llm.embed import AnyEmbedder, PackagedEmbedder
from squadron.llm.settings import AnyModel
from squadron.retrieval.bm25 import Bm25Config
from squadron.retrieval.formats import Family
from squadron.train.objectives.contrastive import Pooling
from squadron.train.spec import (
    CheckpointConfig,
    ContrastiveConfig,
    LoraSettings,
    OptimizerConfig,
    ScheduleConfig,
    TrainSpec,
)

PAPER_TRAINING = ContrastiveConfig(
    temperature=0.02,
    negatives=7,
    training=TrainSpec(
        epochs=2,
        batch_size=16,
        micro_batch_size=4,
        max_length=512,
        optimizer=OptimizerConfig(learning_rate=1e-6, betas=(0.9, 0.999)),
        schedule=ScheduleConfig(kind="linear", warmup_ratio=0.1, final_ratio=0.0),
    ),
)
"""The published script: 4 rows on each of 4 cards, each with 7 of its 10 negatives, FlagEmbedding's defaults else."""
SMALL_TRAINING = PAPER_TRAINING.model_copy(
    update={
        "temperature": 0.05,
        "negatives": 1,
        "training": TrainSpec(
            epochs=1,
            batch_size=32,
            micro_batch_size=32,
            max_length=96,
            optimizer=OptimizerConfig(learning_rate=1e-4, betas=(0.9, 0.999)),
            schedule=ScheduleConfig(kind="linear", warmup_ratio=0.1, final_ratio=0.0),
            checkpoint=CheckpointConfig(every=50),
        ),
    }
)
"""For minutes on CPUs."""


class SamplingConfig(Config):
    """Which queries become rows: an even share of each cluster of their embeddings."""

    count: Annotated[int | None, AtMost(12, unset=12)] = Field(
        None, ge=1, description="queries drawn at most; None: all"
    )
    clusters: Annotated[int, AtMost(2)] = Field(30, ge=1, description="by k-means; at most one for each query")
    embedder: AnyEmbedder = PackagedEmbedder()


class InstructionsConfig(Config):
    """What instructions the rows have: those that queries bring, or new ones by a chat model."""

    model: AnyModel | None = Field(None, description="is shown query, tools and examples; None: no new ones")
    examples: Annotated[int, AtMost(2)] = Field(3, ge=0, description="queries with their instructions that it is shown")
    collect: CollectConfig = CollectConfig(sampling=Sampling(max_tokens=96, temperature=0.7, seed=0))
    max_characters: int = Field(800, ge=40, description="of an instruction, and of each tool that the model is shown")


class NegativesConfig(Config):
    """Hard negatives: what a retriever finds first and does not answer the query."""

    count: Annotated[int, AtMost(3)] = Field(10, ge=1, description="of each row")
    skip: int = Field(0, ge=0, description="of the best, which may well answer, too")
    embedder: AnyEmbedder | None = Field(None, description="mine by its vectors; None: by words")
    bm25: Bm25Config = Bm25Config()


class TrainingSetConfig(Config):
    """What is learned from. No tool that is kept out stands in it."""

    path: RecordsPath | None = Field(
        None,
        description="rows of {query, pos, neg, prompt}, a file or of the hub; None: from the run's own queries",
    )
    split: str = Field("train", description="of a hub data set")
    limit: Annotated[int | None, AtMost(12, unset=12)] = Field(None, ge=1, description="rows of it at most")
    kept_out: float = Field(0.3, gt=0, le=1, description="share of the tools that queries need, to test by")
    validation: float = Field(0.15, ge=0, lt=1, description="share of the other tools, to choose settings by")
    seed: int = Field(0, ge=0)
    sampling: SamplingConfig = SamplingConfig()
    instructions: InstructionsConfig = InstructionsConfig()
    negatives: NegativesConfig = NegativesConfig()

    def rehearse(self, stand_ins: StandIns) -> TrainingSetConfig:
        """First rows of what is there, else made up."""
        from squadron.methods.toolret.rehearsal import made_up_rows

        if self.path is None:
            return self
        return self.model_copy(update={"path": RecordsPath(stand_ins.rows(self.path, self.split, made_up_rows))})


class LearningConfig(Config):
    """An embedder that is trained on it."""

    start: Annotated[InputPath | None, Model("encoder")] = Field(
        None, description="a sentence-transformers model by hub name or folder; None: the packaged MiniLM"
    )
    pooling: Pooling | None = Field(None, description="None: the model's own, which it is used with")
    family: Family | None = Field(
        None, description="how queries and tools are written; None: as the model's name has it"
    )
    instructed: tuple[bool, ...] = Field(
        (False, True), min_length=1, description="rows without and with their instruction"
    )
    contrastive: ContrastiveConfig = SMALL_TRAINING
    lora: LoraSettings | None = None
    batch_size: int = operational(64, ge=1, description="texts embedded together, to compare")


class TrainingConfig(Config):
    """A training set, and an embedder trained on it."""

    rows: TrainingSetConfig = TrainingSetConfig()
    learning: LearningConfig = LearningConfig()
