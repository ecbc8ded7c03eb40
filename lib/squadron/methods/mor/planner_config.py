"""Settings of who plans how a question is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from squadron.core.config import Config, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, Model, StandIns
from squadron.llm.batch.collect import CollectConfig
from squadron.llm.chat import Sampling
from squadron.llm.settings import AnyModel, Rehearsed
from squadron.train.spec import CheckpointConfig, LoraSettings, OptimizerConfig, ScheduleConfig, TrainSpec

PAPER_LORA = LoraSettings(rank=16, alpha=16.0, dropout=0.0, quantize="nf4")
PAPER_TRAINING = TrainSpec(
    steps=1000,
    batch_size=32,
    micro_batch_size=4,
    max_length=2048,
    optimizer=OptimizerConfig(learning_rate=2e-4, weight_decay=0.0),
    schedule=ScheduleConfig(kind="linear", warmup_ratio=0.005, final_ratio=0.0),
)
"""The published script: 4 rows, 8 of them accumulated, 1,000 steps of which 5 warm up. Its 8-bit Adam is plain here."""
PAPER_SAMPLING = Sampling(max_tokens=128, temperature=1.5)
"""The published script also sets min_p to 0.1, which chat servers do not know."""


class GivenPlans(Config):
    """Plans that stand beside the questions; a question without one is answered by text alone."""

    kind: Literal["given"] = "given"
    name: str = Field("given plans", min_length=1)


class ChatPlanner(Config):
    """A chat model that is told the schema and shown examples."""

    kind: Literal["chat"] = "chat"
    name: str = Field("prompted planner", min_length=1)
    model: AnyModel
    examples: Annotated[int, AtMost(2)] = Field(6, ge=0, description="questions of the training part, with their plans")
    collect: CollectConfig = CollectConfig(sampling=Sampling(max_tokens=256))


class TunedPlanner(Config):
    """A chat model that is fine-tuned on questions and their plans; it is given the question alone, as in the paper."""

    kind: Literal["tuned"] = "tuned"
    name: str = Field("fine-tuned planner", min_length=1)
    base: Annotated[InputPath, Model("causal")]
    training: TrainSpec = PAPER_TRAINING
    lora: LoraSettings | None = PAPER_LORA
    provider: Literal["hf", "vllm"] = Field("hf", description="what runs it: transformers, or vLLM on GPUs")
    collect: CollectConfig = CollectConfig(sampling=PAPER_SAMPLING)
    rehearsed: Rehearsed | None = operational(None, description="this is a stand-in, in a rehearsal")

    def rehearse(self, stand_ins: StandIns) -> TunedPlanner:
        """Models of few steps have little to say."""
        return self.model_copy(update={"rehearsed": Rehearsed.model_validate({"replies": stand_ins.replies})})


class ExtractivePlanner(Config):
    """A small encoder that picks one of the shapes of the training part's plans, and marks the question's words that
    describe nodes of each type."""

    kind: Literal["extractive"] = "extractive"
    name: str = Field("extractive planner", min_length=1)
    encoder: Annotated[InputPath | None, Model("encoder")] = Field(
        None, description="a sentence-transformers model by hub name or folder; None: the packaged MiniLM"
    )
    training: TrainSpec = TrainSpec(
        epochs=4,
        batch_size=32,
        micro_batch_size=32,
        max_length=128,
        optimizer=OptimizerConfig(learning_rate=2e-4),
        schedule=ScheduleConfig(kind="linear", warmup_ratio=0.1, final_ratio=0.0),
        checkpoint=CheckpointConfig(every=20),
    )
    batch_size: int = operational(64, ge=1, description="questions planned together")


AnyPlanner = Annotated[GivenPlans | ChatPlanner | TunedPlanner | ExtractivePlanner, Field(discriminator="kind")]
TrainedKinds = TunedPlanner | ExtractivePlanner
"""Planners that learn from the plans of the training part."""
