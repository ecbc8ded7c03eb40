"""Settings of a ToolRet run."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from squadron.core.config import Config, operational
from squadron.core.rehearsal import AtMost, StandIns
from squadron.data.record_files import RecordsPath, is_part
from squadron.evaluate.rankings import MEASURES
from squadron.llm.embed import AnyEmbedder, PackagedEmbedder
from squadron.methods.toolret.agent_config import AgentConfig
from squadron.methods.toolret.learning_config import TrainingConfig
from squadron.retrieval.bm25 import Bm25Config
from squadron.retrieval.dense import DenseConfig
from squadron.retrieval.formats import Family
from squadron.retrieval.fusion import Method
from squadron.retrieval.late import LateConfig
from squadron.retrieval.rerankers import AnyReranker

SEPARATOR = " + "
"""Between the name of a retriever and that of what reranks its best."""

Corpus = Literal["together", "apart"]


class DataSetPath(RecordsPath):
    """Records, or a copy of a data set of the hub, in which each subset is a folder."""

    @classmethod
    def reads(cls, name: str) -> bool:
        """All files of records, in whichever folder."""
        return is_part(name.rpartition("/")[2])

    @classmethod
    def enters(cls, name: str) -> bool:
        """Whichever folder is not hidden."""
        return not name.rpartition("/")[2].startswith(".")


class ToolsConfig(Config):
    """Where tools come from. README.md lists the formats that are known."""

    path: DataSetPath = Field(description="a .jsonl, .jsonl.gz, .json or .parquet file, a folder, or a hub data set")
    split: str = Field("tools", description="of a hub data set")
    subset: str | None = Field(None, description="of a hub data set that has several, such as web of ToolRet-Tools")
    merge: str | None = Field(
        None, description="tools whose documentation has the same value here are one, such as api_call of APIBench"
    )
    limit: Annotated[int | None, AtMost(48, unset=48)] = Field(
        None, ge=1, description="so many tools at most: first those that a query needs, then the others in their order"
    )


class QueriesConfig(Config):
    """Where queries come from, each with the tools that it needs."""

    path: DataSetPath = Field(
        description="a .jsonl, .jsonl.gz, .json, .csv or .parquet file, a folder, or a hub data set"
    )
    split: str = Field("queries", description="of a hub data set")
    subsets: tuple[str, ...] = Field((), description="of a hub data set that has several: ToolRet's tasks")
    limit: Annotated[int | None, AtMost(16, unset=16)] = Field(None, ge=1, description="read so many at most of each")


class ToolSet(Config):
    """Tools of one category, and what is asked of them. Averages are over categories."""

    name: str = Field(min_length=1, description="the category")
    tools: ToolsConfig
    queries: tuple[QueriesConfig, ...] = Field(min_length=1)

    def rehearse(self, stand_ins: StandIns) -> ToolSet:
        """Files of the user's as they are, of which little is read; made up where there are none."""
        from squadron.methods.toolret.rehearsal import made_up_queries, made_up_tools

        def place(path: DataSetPath, kind: str, make: str) -> DataSetPath:
            known = (
                str(path) if path.is_local or "://" in path else f"{path.rpartition('.jsonl')[0] or path}-{kind}.jsonl"
            )
            return DataSetPath(stand_ins.text(known, lambda: make))

        tools = place(self.tools.path, self.name, made_up_tools(self.name))
        queries = tuple(
            one.model_copy(
                update={"path": place(one.path, f"{self.name}-{number}", made_up_queries(self.name, number))}
            )
            for number, one in enumerate(self.queries)
        )
        update = {"tools": self.tools.model_copy(update={"path": tools}), "queries": queries}
        return self.model_copy(update=update)


class WorldConfig(Config):
    """Tools and queries that are made up by rule, where no sets are given: three categories, with instructions."""

    tools: Annotated[int, AtMost(48)] = Field(600, ge=12)
    queries: Annotated[int, AtMost(24)] = Field(400, ge=6)
    seed: int = Field(0, ge=0)


class ReadConfig(Config):
    """How sets are read."""

    known_labels: Annotated[float, AtMost(0.0)] = Field(
        1.0, ge=0, le=1, description="share of the labels that must name a tool; with fewer a set is refused"
    )
    max_characters: int = Field(200_000, ge=1, description="of a tool's documentation; a longer one is refused")


class Bm25Retriever(Config):
    """By words."""

    kind: Literal["bm25"] = "bm25"
    name: str = Field("BM25", min_length=1)
    bm25: Bm25Config = Bm25Config()


class DenseRetriever(Config):
    """By vectors of an embedder."""

    kind: Literal["dense"] = "dense"
    name: str = Field("MiniLM", min_length=1)
    embedder: AnyEmbedder = PackagedEmbedder()
    family: Family | None = Field(
        None, description="how queries, instructions and tools are written; None: as the model's name has it"
    )
    index: DenseConfig = DenseConfig()


class LateRetriever(Config):
    """By the vectors of all tokens (ColBERT)."""

    kind: Literal["late"] = "late"
    name: str = Field("ColBERTv2", min_length=1)
    model: LateConfig


class HybridRetriever(Config):
    """Rankings of other retrievers made one."""

    kind: Literal["hybrid"] = "hybrid"
    name: str = Field("hybrid", min_length=1)
    of: tuple[str, ...] = Field(("BM25", "MiniLM"), min_length=2, description="names of retrievers")
    weights: tuple[float, ...] | None = Field(None, description="one each; None: 1 for words, 2 for all else")
    method: Method = Field("scores", description="add scores scaled to 0 to 1, or in deviations, or 1 / (60 + rank)")

    @model_validator(mode="after")
    def _a_weight_each(self) -> HybridRetriever:
        if self.weights is not None and len(self.weights) != len(self.of):
            raise ValueError(f"{len(self.weights)} weights for {len(self.of)} retrievers")
        return self


class GivenRun(Config):
    """A ranking that is published: rows of `{id, tools}`, the best first, such as ToolRet's of NV-Embed-v1."""

    kind: Literal["run"] = "run"
    name: str = Field(min_length=1)
    path: DataSetPath
    split: str = Field("tools", description="of a hub data set")
    subsets: tuple[str, ...] = ()
    instructed: bool = Field(description="whether it was made with instructions")

    def rehearse(self, stand_ins: StandIns) -> GivenRun:
        """A run of the made-up queries, which leaves out others."""
        from squadron.methods.toolret.rehearsal import made_up_run

        path = stand_ins.text(f"{self.path}-run.jsonl", lambda: made_up_run(("web", "code", "customized")))
        return self.model_copy(update={"path": DataSetPath(path)})


AnyRetriever = Annotated[
    Bm25Retriever | DenseRetriever | LateRetriever | HybridRetriever | GivenRun, Field(discriminator="kind")
]


class Rerank(Config):
    """The best of a retriever, ordered again."""

    name: str = Field(min_length=1)
    first: str = Field(description="name of the retriever")
    model: AnyReranker
    depth: Annotated[int, AtMost(5)] = Field(100, ge=1, description="how many of its best")
    timeout_s: float = operational(3600.0, gt=0, description="for a part of the queries")
    cap_usd: float | None = operational(None, ge=0, description="a run folder spends no more than this")

    @property
    def method(self) -> str:
        """What it is called in tables."""
        return f"{self.first}{SEPARATOR}{self.name}"


class EvaluationConfig(Config):
    """What is measured."""

    ks: tuple[int, ...] = Field((5, 10, 20), min_length=1)
    measures: tuple[str, ...] = Field(("ndcg", "map", "recall", "precision", "completeness"), min_length=1)
    k: int = Field(10, ge=1, description="the cut-off of tables, figures and the sweep's metric")
    hardest: int = Field(12, ge=0, description="queries that are shown because no retriever finds their tools")

    @model_validator(mode="after")
    def _measures_are_known(self) -> EvaluationConfig:
        if wrong := sorted(set(self.measures) - set(MEASURES)):
            raise ValueError(f"{', '.join(wrong)} is no measure; there are {', '.join(MEASURES)}")
        if min(self.ks) < 1:
            raise ValueError("a cut-off is 1 or more")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All measures with all cut-offs; what tables show is among them."""
        shown = [f"{kind}@{self.k}" for kind in ("ndcg", "completeness")]
        return tuple(dict.fromkeys([f"{kind}@{k}" for kind in self.measures for k in self.ks] + shown))


class LatencyConfig(Config):
    """How long one query takes, by itself, with an index that is open."""

    queries: Annotated[int, AtMost(2)] = Field(25, ge=0, description="how many are timed; 0: none")


class ToolRetConfig(Config):
    """A ToolRet run."""

    sets: tuple[ToolSet, ...] = Field((), description="none: the made-up ones of `world`")
    world: WorldConfig = WorldConfig()
    read: ReadConfig = ReadConfig()
    corpus: Corpus = Field(
        "together", description="whether queries search the tools of all sets, as in the paper, or of their own alone"
    )
    instructions: tuple[bool, ...] = Field((False, True), min_length=1, description="truly without, and with")
    retrievers: tuple[AnyRetriever, ...] = Field((Bm25Retriever(), DenseRetriever(), HybridRetriever()), min_length=1)
    rerankers: tuple[Rerank, ...] = ()
    top: Annotated[int, AtMost(20)] = Field(100, ge=1, description="tools of a ranking")
    evaluation: EvaluationConfig = EvaluationConfig()
    latency: LatencyConfig = LatencyConfig()
    training: TrainingConfig | None = Field(None, description="an embedder, tested on tools it never saw; None: none")
    agent: AgentConfig | None = Field(None, description="what retrieval is worth to an agent; None: not tried")

    def weighted(self, hybrid: HybridRetriever) -> HybridRetriever:
        """A hybrid with the weights that it takes unless it has its own: README.md says what they were chosen by."""
        words = {one.name for one in self.retrievers if isinstance(one, Bm25Retriever)}
        weights = hybrid.weights or tuple(1.0 if name in words else 2.0 for name in hybrid.of)
        return hybrid.model_copy(update={"weights": weights})

    @model_validator(mode="after")
    def _names_agree(self) -> ToolRetConfig:
        names = [one.name for one in (*self.retrievers, *self.sets)] + [one.method for one in self.rerankers]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"more than one is called {twice[0]}")
        before: list[str] = []
        for retriever in self.retrievers:
            if isinstance(retriever, HybridRetriever) and (unknown := sorted(set(retriever.of) - set(before))):
                raise ValueError(f"{retriever.name} is of {', '.join(unknown)}, which is no retriever before it")
            before.append(retriever.name)
        if unknown := sorted({one.first for one in self.rerankers} - set(before)):
            raise ValueError(f"rerankers are to order the best of {', '.join(unknown)}, which is no retriever")
        return self
