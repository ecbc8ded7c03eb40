"""Settings of a self-rewarding run."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from squadron.core.blanks import check_blanks
from squadron.core.config import Config, operational
from squadron.core.inputs import InputPath
from squadron.core.rehearsal import AtMost, Model, StandIns
from squadron.data.record_files import RecordsPath
from squadron.llm.batch.budget import SpendingConfig
from squadron.llm.chat import Sampling
from squadron.llm.rewards.settings import AnyReward
from squadron.llm.settings import AnyModel, Rehearsed
from squadron.methods.self_rewarding.algorithm import JUDGE, NO_STEPS, SCORE, SOLVE
from squadron.methods.self_rewarding.synthetic_task import WorldConfig
from squadron.search.steps import StepSearchConfig
from squadron.search.tree import TreeSearchConfig
from squadron.train.spec import LoraSettings, OptimizerConfig, ScheduleConfig, TrainSpec

Rewarding = Literal["process", "outcome"]
"""What is judged: pairs of next steps, or whole solutions by a score (the baseline SRLM)."""

_PLACES = {
    "solve": ("question",),
    "judge": ("question", "steps", "first", "second"),
    "score": ("question", "solution"),
}
"""What each prompt is filled in with."""


class PromptsConfig(Config):
    """How models are asked; braces around other names are text. The defaults say in our words what the papers' prompts
    ask for."""

    solve: str = Field(SOLVE, description="holds {question}")
    judge: str = Field(JUDGE, description="holds {question}, {steps}, {first}, {second}")
    score: str = Field(SCORE, description="rewarding by outcome: holds {question}, {solution}")
    no_steps: str = Field(NO_STEPS, description="stands in {steps} where there are none")

    @field_validator("solve", "judge", "score")
    @classmethod
    def _has_its_places(cls, value: str, info: ValidationInfo) -> str:
        return check_blanks(value, _PLACES[info.field_name or ""])


class ProblemsConfig(Config):
    """A file of problems."""

    path: RecordsPath = Field(description="a .jsonl, .jsonl.gz, .json or .parquet file, a folder, or a hub data set")
    split: str = Field("train", description="of a hub data set")
    subset: str | None = Field(None, description="of a hub data set that has several, such as main of openai/gsm8k")
    question: str | None = Field(None, description="column of the problem; None: question or problem")
    limit: Annotated[int | None, AtMost(16, unset=16)] = Field(None, ge=1, description="read so many at most")


class BenchmarkConfig(ProblemsConfig):
    """Problems that models are measured by: their answers must be there."""

    name: str = Field(min_length=1)
    answer: str | None = Field(None, description="column of the answer or solution; None: answer or solution")


ProblemsT = TypeVar("ProblemsT", bound=ProblemsConfig)


class SolvedConfig(Config):
    """A file of problems that the first model is taught."""

    path: RecordsPath | None = Field(None, description="problems with worked solutions; None: the small world's")
    split: str = Field("train", description="of a hub data set")
    subset: str | None = Field(None, description="of a hub data set that has several, such as main of openai/gsm8k")
    question: str = Field("problem", description="column of the problem")
    limit: Annotated[int | None, AtMost(8, unset=8)] = Field(None, ge=1)


class InstructionConfig(SolvedConfig):
    """Where solutions in steps come from (instruction data, IFT)."""

    solution: str = Field("solution", description="column of the solution")
    splitter: AnyModel | None = Field(None, description="chat model that splits solutions; None: they are split")
    sampling: Sampling = Sampling(max_tokens=4096)


class JudgementsConfig(Config):
    """How whole solutions are scored (rewarding by outcome), as Self-Rewarding Language Models has it."""

    judgements: Annotated[int, AtMost(2)] = Field(3, ge=1, description="of a solution, whose mean is its score")
    judging: Sampling = Field(
        Sampling(max_tokens=1024, temperature=0.7, top_p=0.9), description="how judgements are drawn"
    )


class ScoringConfig(JudgementsConfig):
    """How whole solutions are proposed and scored (rewarding by outcome), as Self-Rewarding Language Models has it."""

    candidates: Annotated[int, AtMost(3)] = Field(4, ge=2, description="solutions of a problem")
    proposing: Sampling = Field(
        Sampling(max_tokens=2048, temperature=0.7, top_p=0.9), description="how solutions are proposed"
    )


class JudgingDataConfig(SpendingConfig):
    """Where judgements come from (evaluation data, EFT): a file, or a search judged by a chat model.

    Rewarding by process, the search is a tree of steps, and `judge` chooses between two of them, twice. Rewarding by
    outcome, `policy` proposes whole solutions, and `judge` scores the best and the worst by `reward`.
    """

    path: RecordsPath | None = Field(
        None,
        description="contests {question, steps, first, second, judgement, better}; rewarding by outcome, scored "
        "solutions {question, solution, judgement, score}; None: search, or small world",
    )
    policy: AnyModel | None = Field(None, description="chat model that proposes in the search; None: no search")
    reward: AnyReward | None = Field(None, description="reward model that guides the search")
    judge: AnyModel | None = Field(None, description="chat model that judges pairs twice, or scores solutions")
    search: TreeSearchConfig = TreeSearchConfig()
    scoring: ScoringConfig = Field(ScoringConfig(judgements=1), description="in place of the next three, by outcome")
    proposing: Sampling = Sampling(max_tokens=512, temperature=0.7, top_p=0.95)
    judging: Sampling = Sampling(max_tokens=1024)
    problems: Annotated[int, AtMost(3)] = Field(400, ge=1, description="problems that are searched")
    held_out: Annotated[int, AtMost(2)] = Field(500, ge=1, description="rows kept out to measure judging by")

    @model_validator(mode="after")
    def _search_is_whole(self) -> JudgingDataConfig:
        named = {"policy": self.policy, "reward": self.reward, "judge": self.judge}
        given = [name for name, value in named.items() if value is not None]
        if 0 < len(given) < len(named) and self.path is None:
            raise ValueError(f"a search needs policy, reward and judge; only {', '.join(given)} is given")
        return self


class GenerationConfig(Config):
    """How models of this run are asked while it trains them."""

    provider: str = Field("hf", pattern="^(hf|vllm)$", description="hf: transformers; vllm: on GPUs")
    batch_size: int = operational(256, ge=1, description="hf: conversations generated together")
    gpus: int = operational(1, ge=1, description="vllm: cards that share the weights")
    max_length: int | None = Field(None, ge=16, description="vllm: tokens of prompt and answer")
    timeout_s: float = operational(3600.0, gt=0, description="longest time for one batch before its worker is replaced")
    rehearsed: Rehearsed | None = operational(None, description="these are stand-ins, in a rehearsal")

    def rehearse(self, stand_ins: StandIns) -> GenerationConfig:
        """Models of few steps have little to say."""
        return self.model_copy(update={"rehearsed": Rehearsed.model_validate({"replies": stand_ins.replies})})


class ProposalsConfig(Config):
    """How models propose and judge."""

    questions: Annotated[tuple[int, ...], AtMost(4)] = Field(
        (400, 800, 1200), min_length=1, description="problems of each round"
    )
    search: StepSearchConfig = StepSearchConfig()
    proposing: Sampling = Field(
        Sampling(max_tokens=512, temperature=0.5, top_p=0.95), description="how steps are proposed"
    )
    judging: Sampling = Field(Sampling(max_tokens=1024), description="how contests are judged")
    scoring: ScoringConfig = Field(ScoringConfig(), description="in place of the three above, rewarding by outcome")
    judge: AnyModel | None = Field(None, description="another model judges, to compare with; None: the model itself")


class RoundsConfig(ProposalsConfig):
    """The rounds of self-rewarding, M2 and on. Points that the paper leaves open, and what we take:

    - `judging`: greedy, so that a contest has one verdict, and asking again changes nothing.
    - `beta`: not published; Step-DPO, whose code is public, takes 0.4 to 0.5.
    - the reference is the model of the round before.
    - a reply without a verdict counts for nobody; a proposal that is cut off is no candidate.
    - `search.credit`, `search.identical`: see `squadron.search.steps.search_steps`.
    """

    beta: float = Field(0.4, gt=0, description="of the DPO loss")
    training: TrainSpec = TrainSpec(
        epochs=1,
        batch_size=32,
        micro_batch_size=32,
        max_length=2048,
        optimizer=OptimizerConfig(learning_rate=5e-7),
        schedule=ScheduleConfig(kind="constant", warmup_ratio=0.0),
    )


class EvaluationConfig(Config):
    """How every model is measured."""

    benchmarks: tuple[BenchmarkConfig, ...] = Field((), description="none: the small world's held-out problems")
    sampling: Sampling = Field(Sampling(max_tokens=2048), description="greedy, as in the paper")
    scaling: Annotated[int, AtMost(2)] = Field(
        0, ge=0, description="problems of the first benchmark that the last model also searches"
    )
    scaling_search: StepSearchConfig = StepSearchConfig()


class SelfRewardingConfig(Config):
    """A self-rewarding run."""

    base: Annotated[InputPath | None, Model("causal")] = Field(
        None, description="M0: a hub name or a local folder; None: a small model, trained here"
    )
    problems: ProblemsConfig | None = Field(None, description="what rounds ask; None: the small world's")
    world: WorldConfig = WorldConfig()
    rewarding: Rewarding = Field(
        "process", description="outcome: the baseline, Self-Rewarding Language Models, which scores whole solutions"
    )
    prompts: PromptsConfig = PromptsConfig()
    instruction: InstructionConfig = InstructionConfig()
    judging: JudgingDataConfig = JudgingDataConfig()
    tuning: TrainSpec = Field(
        TrainSpec(
            epochs=3,
            batch_size=32,
            micro_batch_size=32,
            max_length=2048,
            optimizer=OptimizerConfig(learning_rate=1e-6),
        ),
        description="M1: supervised fine-tuning on both kinds of data",
    )
    rounds: RoundsConfig = RoundsConfig()
    generation: GenerationConfig = GenerationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    lora: LoraSettings | None = None
    seed: int = Field(0, ge=0, description="which problems a round asks, and what is drawn")

    @model_validator(mode="after")
    def _all_or_none_of_the_world(self) -> SelfRewardingConfig:
        outside = {
            "base": self.base is not None,
            "problems": self.problems is not None,
            "instruction.path": self.instruction.path is not None,
            "judging.path, or judging.policy, reward and judge": self.judging.path is not None
            or self.judging.policy is not None,
            "evaluation.benchmarks": bool(self.evaluation.benchmarks),
        }
        if any(outside.values()) and (missing := [name for name, there in outside.items() if not there]):
            raise ValueError(f"a run on data of one's own also needs {'; '.join(missing)}")
        return self

    def rehearse(self, stand_ins: StandIns) -> SelfRewardingConfig:
        """On the first rows of the user's files."""
        from squadron.methods.self_rewarding.rehearsal import made_up_contests, made_up_problems, made_up_scores

        def problems(config: ProblemsT) -> ProblemsT:
            answer = config.answer if isinstance(config, BenchmarkConfig) else None
            rows = stand_ins.rows(config.path, config.split, lambda: made_up_problems(config.question, None, answer))
            return config.model_copy(update={"path": rows})

        taught, judged, measured = self.instruction, self.judging, self.evaluation
        if taught.path is not None:
            columns = taught.question, taught.solution, None
            rows = stand_ins.rows(taught.path, taught.split, lambda: made_up_problems(*columns))
            taught = taught.model_copy(update={"path": rows})
        if judged.path is not None:
            made_up = made_up_scores if self.rewarding == "outcome" else made_up_contests
            judged = judged.model_copy(update={"path": stand_ins.rows(judged.path, "train", made_up)})
        measured = measured.model_copy(update={"benchmarks": tuple(map(problems, measured.benchmarks))})
        asked = self.problems and problems(self.problems)
        return self.model_copy(
            update={"problems": asked, "instruction": taught, "judging": judged, "evaluation": measured}
        )
