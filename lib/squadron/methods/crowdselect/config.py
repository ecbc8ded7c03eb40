"""Settings of a CrowdSelect run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from squadron.core.config import Config, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, Model, StandIns
from squadron.data.record_files import RecordsPath
from squadron.llm.batch.collect import CollectConfig
from squadron.llm.chat import Sampling
from squadron.llm.embed import AnyEmbedder, PackagedEmbedder
from squadron.llm.rewards.settings import AnyReward, ColumnReward, VerifierReward
from squadron.llm.settings import AnyModel
from squadron.methods.crowdselect.synthetic_task import WorldConfig
from squadron.train.spec import LoraSettings, OptimizerConfig, TrainSpec

Arm = Literal[
    "crowdselect",
    "random",
    "everything",
    "difficulty",
    "separability",
    "stability",
    "length",
    "reward",
    "reward_lowest",
    "tags",
    "direct_score",
    "ifd",
]
"""A way to choose what to train on: the method, its parts, and what the paper compares it with."""

_REHEARSED_TOKENS = 16
_MADE_UP_CROWD = [
    ("first-1", "first", 1.0),
    ("first-2", "first", 2.0),
    ("last-1", "last", 1.0),
    ("last-2", "last", 2.0),
]
Trained = tuple[Literal["crowd", "base"], ...]


class PoolConfig(Config):
    """The instructions to choose from."""

    path: RecordsPath | None = Field(
        None, description="a .jsonl, .jsonl.gz, .json or .parquet file, a folder, or a hub data set; None: small tasks"
    )
    split: str = Field("train", description="of a hub data set")
    subset: str | None = Field(None, description="of a hub data set that has several, such as main of openai/gsm8k")
    layout: Literal["instructions", "responses", "generator_zoo"] = Field(
        "instructions",
        description="responses: each row holds `responses`, a list of {model, family, size_b, content, score}; "
        "generator_zoo: a column for each of the models, as in Magpie-100K-Generator-Zoo",
    )
    id: str | None = Field(None, description="column that names a row; None: its content does")
    instruction: str = Field("instruction", description="column of the instruction")
    reference: str | None = Field(None, description="column of the right answer, for rewards that compare with it")
    score: str | None = Field(None, description="generator_zoo: which reward model's score to take")
    max_characters: int = Field(32_768, ge=1, description="of an instruction; a longer one is refused")
    limit: Annotated[int | None, AtMost(24, unset=24)] = Field(None, ge=2, description="read so many rows at most")
    held_out: float = Field(0.05, ge=0, lt=1, description="share of the rows kept out of the choice, to compare by")
    held_out_most: int = Field(500, ge=1, description="rows kept out at most")
    held_out_path: RecordsPath | None = Field(
        None, description="a file of its own to compare by; then nothing is kept out"
    )
    seed: int = Field(0, ge=0, description="which rows are kept out")


class EmbeddingConfig(Config):
    """What clusters are formed from."""

    model: AnyEmbedder = PackagedEmbedder()


class SelectionConfig(Config):
    """Which instructions to train on, and with which response."""

    count: Annotated[int, AtMost(8)] = Field(1000, ge=1, description="instructions to pick")
    clusters: Annotated[int | None, AtMost(2)] = Field(
        10, ge=1, description="each gives an even share; None: no clusters"
    )
    per_cluster: Annotated[int | None, AtMost(4)] = Field(
        None, ge=1, description="best of each cluster, before the best of all are kept; None: an even share of count"
    )
    weights: tuple[float, float, float] = Field((1.0, 1.0, 2.0), description="of difficulty, separability, stability")
    ties: Literal["average", "official"] = Field("average", description="how stability ranks equal scores")
    min_scores: float = Field(0.5, ge=0, le=1, description="share of the models that must have scored an instruction")
    response: Literal["best", "random", "top_random"] = "best"
    top: int = Field(5, ge=1, description="how many of the best top_random draws from")
    arms: tuple[Arm, ...] = Field(
        ("crowdselect", "random", "everything", "difficulty", "separability", "stability", "length", "reward"),
        description="ways to choose that are carried out and shown",
    )
    judge: AnyModel | None = Field(None, description="the chat model that tags and marks instructions")
    seed: int = Field(42, ge=0, description="of k-means and of what is drawn")

    @model_validator(mode="after")
    def _judge_is_there(self) -> SelectionConfig:
        if self.judge is None and (asking := {"tags", "direct_score"} & set(self.arms)):
            raise ValueError(f"{' and '.join(sorted(asking))} need selection.judge, a chat model")
        return self


class LearningConfig(Config):
    """Models trained on what was chosen, to see what the choice is worth."""

    base: Annotated[InputPath | None, Model("causal")] = Field(
        None, description="a hub name or a local folder; None: the small world's own, or none"
    )
    arms: tuple[Arm, ...] = Field(("crowdselect", "random", "everything"), description="choices to train on")
    seeds: Annotated[int, AtMost(1)] = Field(3, ge=0, description="students of each arm; 0: none")
    training: TrainSpec = TrainSpec(
        epochs=12,
        batch_size=16,
        micro_batch_size=16,
        max_length=128,
        optimizer=OptimizerConfig(learning_rate=2e-3),
    )
    lora: LoraSettings | None = None


class StudentsConfig(LearningConfig):
    """How they are trained and compared."""

    sampling: Sampling = Field(Sampling(max_tokens=48), description="how students answer")
    batch_size: int = operational(64, ge=1, description="answers generated together")
    reward: AnyReward | None = Field(None, description="what scores students; None: what scores the crowd")


class CrowdSelectConfig(Config):
    """A CrowdSelect run."""

    pool: PoolConfig = PoolConfig()
    world: WorldConfig = WorldConfig()
    models: tuple[AnyModel, ...] = Field((), description="who answers; none: the small world's own crowd")
    collect: CollectConfig = CollectConfig(sampling=Sampling(max_tokens=48))
    reward: AnyReward = VerifierReward()
    embedding: EmbeddingConfig = EmbeddingConfig()
    selection: SelectionConfig = SelectionConfig()
    students: StudentsConfig = StudentsConfig()

    @property
    def trained(self) -> Trained:
        """What of the small world is trained: its crowd where it is asked, its base where students start from it."""
        if self.pool.path is not None:
            return ()
        needs_base = self.students.seeds > 0 or "ifd" in self.selection.arms
        crowd: Trained = () if self.models else ("crowd",)
        return (*crowd, "base") if needs_base and self.students.base is None else crowd

    @property
    def trains_students(self) -> bool:
        """Whether models are trained on the choices: there are seeds, and a base to start from."""
        return self.students.seeds > 0 and (self.students.base is not None or self.pool.path is None)

    @model_validator(mode="after")
    def _settings_agree(self) -> CrowdSelectConfig:
        asks = self.pool.layout == "instructions"
        if self.pool.path is not None and asks and not self.models:
            raise ValueError("pool.path holds instructions alone: give models to answer them")
        if not asks and self.pool.path is None:
            raise ValueError(f"pool.layout {self.pool.layout} needs pool.path")
        if isinstance(self.reward, ColumnReward) and asks:
            raise ValueError("reward: column needs a pool that comes with responses and their scores")
        if isinstance(self.reward, ColumnReward) and self.pool.layout == "generator_zoo" and self.pool.score is None:
            raise ValueError("reward: column needs pool.score, which says whose score to take from each model's column")
        if isinstance(self.reward, VerifierReward) and self.pool.path is not None and self.pool.reference is None:
            raise ValueError("reward: verifier needs pool.reference, the column of the right answer")
        if missing := sorted(set(self.students.arms) - set(self.selection.arms)):
            raise ValueError(f"students.arms names {', '.join(missing)}, which selection.arms does not")
        if (
            isinstance(self.reward, ColumnReward)
            and self.students.base
            and self.students.seeds
            and not self.students.reward
        ):
            raise ValueError("students.reward is needed: a column holds no scores of students")
        if "ifd" in self.selection.arms and self.students.base is None and self.pool.path is not None:
            raise ValueError("the arm ifd needs students.base, a model to compute losses with")
        if self.pool.layout == "generator_zoo" and not self.models:
            raise ValueError("generator_zoo needs models: which columns are models, with family and size_b")
        return self

    def rehearse(self, stand_ins: StandIns) -> CrowdSelectConfig:
        """On the first rows of the user's pool; students of random weights have little to say."""
        from squadron.methods.crowdselect.rehearsal import made_up

        sampling = self.students.sampling.model_copy(update={"max_tokens": _REHEARSED_TOKENS})
        small = self.model_copy(update={"students": self.students.model_copy(update={"sampling": sampling})})
        pool, path, named = self.pool, self.pool.path, ("id", "instruction", "reference", "score")
        if path is None:
            return small
        columns = {setting: getattr(pool, setting) or setting for setting in named}
        crowd = [(one.name, one.family, one.size_b) for one in self.models] or _MADE_UP_CROWD
        rows = stand_ins.rows(path, pool.split, lambda: made_up(pool.layout, columns, crowd))
        return small.model_copy(update={"pool": pool.model_copy(update={"path": rows})})
