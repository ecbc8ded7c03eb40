"""Settings of a MoR run."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import Field, model_validator

from squadron.core.config import Config, operational
from squadron.core.rehearsal import AtMost, StandIns
from squadron.data.record_files import RecordsPath
from squadron.llm.embed import AnyEmbedder, PackagedEmbedder
from squadron.methods.mor.algorithm import TraversalConfig
from squadron.methods.mor.planner_config import AnyPlanner, ExtractivePlanner, GivenPlans
from squadron.methods.mor.question_map import QuestionMapConfig
from squadron.methods.mor.reranker_config import EVERY_FEATURE, Feature, RerankerConfig
from squadron.retrieval.bm25 import Bm25Config
from squadron.retrieval.graph.made_up import MadeUpConfig

PARTS = ("train", "validation", "test")


class GivenGraph(Config):
    """A graph of one's own, and questions of it. docs/graphs.md has the formats."""

    nodes: RecordsPath = Field(description="records of {id, type, name, text}")
    edges: RecordsPath = Field(description="records of {source, relation, target}")
    questions: RecordsPath = Field(description="records of {id, query, answers}, and plans where there are any")
    targets: tuple[str, ...] = Field((), description="types of answers; none: those of the answers that are given")
    limit: Annotated[int | None, AtMost(60, unset=60)] = Field(
        None, ge=3, description="questions at most, an even draw"
    )

    def rehearse(self, stand_ins: StandIns) -> GivenGraph:
        """Files of the user's as they are; made up where there are none."""
        from squadron.methods.mor.rehearsal import made_up_files

        made = made_up_files()
        update = {
            name: RecordsPath(stand_ins.text(str(getattr(self, name)), lambda name=name: made[name]))  # type: ignore[misc]
            for name in ("nodes", "edges", "questions")
        }
        return self.model_copy(update=update)


class SplitConfig(Config):
    """Which questions planner and reranker learn from, which choose among them, and which are reported."""

    train: float = Field(0.5, gt=0, lt=1)
    validation: float = Field(0.2, gt=0, lt=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _some_are_left(self) -> SplitConfig:
        if self.train + self.validation >= 1:
            raise ValueError("train and validation leave nothing to test by")
        return self


class ScorerConfig(Config):
    """What scores how near a candidate's text is to the question."""

    embedder: AnyEmbedder = PackagedEmbedder()


class EvaluationConfig(Config):
    """What is reported."""

    shown: int = operational(6, ge=0, description="questions whose paths are drawn")


class MorConfig(Config):
    """A MoR run."""

    graph: GivenGraph | None = Field(None, description="None: the made-up one of `world`")
    world: MadeUpConfig = MadeUpConfig()
    split: SplitConfig = SplitConfig()
    words: Bm25Config = Bm25Config()
    scorer: ScorerConfig = ScorerConfig()
    question_map: QuestionMapConfig | None = Field(
        None, description="vectors of questions are mapped nearer to those of answers; None: they are used as they are"
    )
    planners: tuple[AnyPlanner, ...] = Field(
        (ExtractivePlanner(), GivenPlans()), min_length=1, description="the first is the one served"
    )
    traversal: TraversalConfig = TraversalConfig()
    reranker: RerankerConfig | None = Field(
        RerankerConfig(), description="None: candidates as the dense score has them"
    )
    ablations: tuple[Feature, ...] = Field((), description="features without which the reranker is tried, too")
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def rerankers(self) -> tuple[RerankerConfig, ...]:
        """Those that are trained, on the first planner's candidates: without one feature each, then the whole one."""
        if self.reranker is None:
            return ()
        kept = [tuple(one for one in EVERY_FEATURE if one != without) for without in self.ablations]
        return (*(self.reranker.model_copy(update={"features": some}) for some in kept), self.reranker)

    @model_validator(mode="after")
    def _names_agree(self) -> MorConfig:
        if twice := [name for name, count in Counter(one.name for one in self.planners).items() if count > 1]:
            raise ValueError(f"more than one planner is called {twice[0]}")
        return self
