"""Settings of a Rewrite run."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from squadron.core.config import Config, decisive, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, StandIns
from squadron.data.record_files import RecordsPath
from squadron.llm.chat import Sampling
from squadron.llm.embed import AnyEmbedder, PackagedEmbedder
from squadron.llm.settings import AnyModel
from squadron.methods.rewrite.learning import AmbiguityConfig, Seq2SeqConfig, TaggerConfig

Strategy = Literal["rewrite", "fusion"]
"""What stands next to earlier queries: the assistant's responses, or the rewrites of these queries."""
Format = Literal["plain", "canard", "cast", "mtrag", "sparc", "qrecc"]
FirstTurn = Literal["passed", "asked"]

PROMPT = """\
Rewrite the last query of this conversation so that it can be understood without it. Keep everything that still holds \
from the conversation, change what the query changes, and add nothing else. If the query already stands by itself, \
repeat it. Answer with the rewritten query alone.

{history}Query: {query}
Rewritten query:"""
"""`{history}` is a paragraph for each earlier turn, by `EARLIER`."""


class WorkConfig(Config):
    """How work is cut."""

    batch: Annotated[int, AtMost(4)] = operational(64, ge=1, description="conversations that a worker takes at once")


class LogFile(RecordsPath):
    """Conversations, as a file or a folder of files; CAsT's resolved queries are a table with tabs."""


class LogsConfig(Config):
    """Conversations of one kind. README.md lists the formats."""

    name: str = Field(min_length=1, pattern=r"^[^/]+$")
    path: LogFile = Field(description="a .jsonl, .jsonl.gz, .json or .parquet file, a folder, or a hub data set")
    format: Format = Field("plain", description="plain: a line {conversation, turns: [{query, response, rewrite}]}")
    split: str = Field("train", description="of a hub data set")
    resolved: LogFile | None = Field(None, description="CAsT 2019's rewrites, which stand in a file of their own")
    passages: RecordsPath | None = Field(None, description="rows {id, text} that turns name as their answers")
    use: Literal["measure", "learn", "both"] = Field(
        "measure", description="both: most conversations to learn from, `held_out` of them to measure on"
    )
    held_out: float = Field(0.3, gt=0, lt=1, description="share of conversations, with use=both")
    limit: Annotated[int | None, AtMost(12, unset=12)] = Field(None, ge=1, description="conversations at most")

    def rehearse(self, stand_ins: StandIns) -> LogsConfig:
        """Files of the user's as they are, of which little is read; made up where there are none."""
        from squadron.methods.rewrite.rehearsal import made_up_logs, made_up_passages

        changed: dict[str, object] = {}
        if not self.path.is_local or self.format == "plain":
            made = stand_ins.text(f"{self.name}.jsonl", lambda: made_up_logs(self.name))
            local = stand_ins.text(str(self.path), lambda: made_up_logs(self.name)) if self.path.is_local else made
            changed = {"path": LogFile(local), "format": "plain", "resolved": None}
        if self.passages is not None:
            changed["passages"] = RecordsPath(stand_ins.text(str(self.passages), made_up_passages))
        return self.model_copy(update=changed)


class WorldConfig(Config):
    """Chats about figures that are made up by rule, where no logs are given: each turn changes a slot or two."""

    conversations: Annotated[int, AtMost(6)] = Field(80, ge=2)
    turns: int = Field(10, ge=2, le=40)
    learned: Annotated[int, AtMost(6)] = Field(0, ge=0, description="further ones to learn from")
    seed: int = Field(0, ge=0)


class RuleRewriter(Config):
    """Slots of a question about figures, carried from turn to turn; other queries have their pronouns replaced."""

    kind: Literal["rule"] = "rule"
    name: str = Field("rule", min_length=1)


class JoinRewriter(Config):
    """What was said before, and then the query: nothing is left out, and nothing is dropped."""

    kind: Literal["join"] = "join"
    name: str = Field("joined", min_length=1)


class ChatRewriter(Config):
    """Any chat model."""

    kind: Literal["chat"] = "chat"
    name: str = Field(min_length=1)
    model: AnyModel
    prompt: str = Field(PROMPT, description="with {history} and {query}")
    sampling: Sampling = Sampling(max_tokens=128)
    timeout_s: float = operational(3600.0, gt=0, description="for a batch")
    cap_usd: float | None = operational(None, ge=0, description="a run folder spends no more than this")

    @model_validator(mode="after")
    def _prompt_has_places(self) -> ChatRewriter:
        if missing := [one for one in ("{history}", "{query}") if one not in self.prompt]:
            raise ValueError(f"the prompt has no {' and no '.join(missing)}")
        return self


class TaggerRewriter(Config):
    """A tagger of earlier words: trained on the conversations that are learned from, or one that was trained before. It
    runs on CPUs."""

    kind: Literal["tagger"] = "tagger"
    name: str = Field("tagger", min_length=1)
    path: InputPath | None = Field(None, description="folder of a trained model, with heads.json; None: it is trained")
    take: float = Field(0.5, gt=0, le=1, description="of one at `path`: from which probability on a word is taken")
    put: float = Field(0.5, gt=0, le=1, description="of one at `path`: from which on it stands at a word of the query")
    phrases: int = Field(2, ge=1, description="of one at `path`: runs of earlier words at most")
    learning: TaggerConfig = TaggerConfig()


class Seq2SeqRewriter(Config):
    """An encoder-decoder model that writes the rewrite: a small one that is trained likewise, or one that is there,
    such as castorini's T5 for CANARD."""

    kind: Literal["seq2seq"] = "seq2seq"
    name: str = Field("seq2seq", min_length=1)
    path: InputPath | None = Field(None, description="hub name, or folder; None: a small one is trained")
    max_length: int = Field(256, ge=16, description="of one at `path`: tokens that are read; the oldest are cut")
    beams: int = Field(4, ge=1, description="of one at `path`")
    copies: float = Field(0.0, ge=0, description="of one at `path`: added to the score of tokens that were read")
    max_new_tokens: Annotated[int, AtMost(4)] = Field(64, ge=1, description="of one at `path`: of a rewrite")
    learning: Seq2SeqConfig = Seq2SeqConfig()


def is_trained(rewriter: Config) -> bool:
    """Whether a run trains this rewriter."""
    return isinstance(rewriter, TaggerRewriter | Seq2SeqRewriter) and rewriter.path is None


WorkerRewriter = RuleRewriter | JoinRewriter | TaggerRewriter | Seq2SeqRewriter
"""Those that workers hold."""
AnyRewriter = Annotated[WorkerRewriter | ChatRewriter, Field(discriminator="kind")]
Classifier = Literal["rules", "trained"]


class Setting(Config):
    """How conversations are rewritten. A `disturbed` one has a wrong turn put into it."""

    strategy: Strategy
    k: int
    classifier: str = ""
    disturbed: bool = False

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.strategy} k={self.k}{f', {self.classifier} in front' if self.classifier else ''}"


class EvaluationConfig(Config):
    """What is measured, and what the recommendation goes by."""

    embedder: AnyEmbedder = Field(PackagedEmbedder(), description="of the cosine")
    measure: Literal["cosine", "bertscore", "rouge1", "rougel", "slots", "ndcg"] = "cosine"
    bertscore: bool = decisive(True, description="by the packaged MiniLM's token vectors; takes the longest")
    retrieval_k: int = Field(5, ge=1, description="cut-off of nDCG on passages, where turns name some")
    shown: int = decisive(12, ge=0, description="turns that the report shows side by side")


class DriftConfig(Config):
    """One early rewrite is made wrong, and later ones are compared with those of an undisturbed conversation."""

    conversations: Annotated[int, AtMost(3)] = Field(40, ge=0, description="0: none")
    at: int = Field(2, ge=1, description="the turn whose rewrite is replaced by that of another conversation")


class LatencyConfig(Config):
    """How long one turn takes by itself."""

    turns: Annotated[int, AtMost(2)] = Field(50, ge=0, description="how many are timed; 0: none")


class RewriteConfig(Config):
    """A Rewrite run."""

    logs: tuple[LogsConfig, ...] = Field((), description="none: the made-up ones of `world`")
    world: WorldConfig = WorldConfig()
    rewriters: tuple[AnyRewriter, ...] = Field((RuleRewriter(), JoinRewriter()), min_length=1)
    strategies: tuple[Strategy, ...] = Field(("rewrite", "fusion"), min_length=1)
    ks: tuple[int, ...] = Field((1, 3), min_length=1, description="how many earlier turns a rewriter is shown")
    classifiers: tuple[Classifier | None, ...] = Field(
        (None, "rules"), min_length=1, description="what passes queries that stand by themselves; null: nothing does"
    )
    ambiguity: AmbiguityConfig = Field(AmbiguityConfig(), description="of the classifier that is trained")
    first_turn: FirstTurn = Field("passed", description="whether a rewriter is asked about a query without history")
    work: WorkConfig = WorkConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    drift: DriftConfig = DriftConfig()
    latency: LatencyConfig = LatencyConfig()

    @property
    def learns(self) -> bool:
        """Whether something is trained."""
        return any(map(is_trained, self.rewriters)) or "trained" in self.classifiers

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All of them, and each strategy and k disturbed, if drift is looked at."""
        pairs = [{"strategy": strategy, "k": k} for strategy in self.strategies for k in self.ks]
        fronts = [one or "" for one in self.classifiers]
        settings = [Setting.model_validate(pair | {"classifier": front}) for pair in pairs for front in fronts]
        if self.drift.conversations:
            settings += [Setting.model_validate(pair | {"disturbed": True}) for pair in pairs]
        return tuple(settings)

    @model_validator(mode="after")
    def _names_agree(self) -> RewriteConfig:
        names = [one.name for one in self.rewriters] + [f"logs {one.name}" for one in self.logs]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"more than one is called {twice[0]}")
        if min(self.ks) < 1:
            raise ValueError("a rewriter is shown at least one earlier turn")
        there = self.world.learned > 0 if not self.logs else any(one.use != "measure" for one in self.logs)
        if self.learns and not there:
            where = "a set with use=both or use=learn" if self.logs else "world.learned"
            raise ValueError(f"a tagger, a small model and a trained classifier learn from conversations: set {where}")
        return self
