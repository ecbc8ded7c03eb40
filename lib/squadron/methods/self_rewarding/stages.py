"""The stages of a self-rewarding run, in the order of `jobs/self_rewarding.py`."""

from __future__ import annotations

from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.evaluate.summary import Estimate
from squadron.llm.chat import Sampling
from squadron.methods.self_rewarding import plan
from squadron.methods.self_rewarding.config import (
    BenchmarkConfig,
    EvaluationConfig,
    GenerationConfig,
    InstructionConfig,
    JudgingDataConfig,
    ProblemsConfig,
    PromptsConfig,
    ProposalsConfig,
)
from squadron.methods.self_rewarding.records import Evaluation, Lessons, Preferences, Sources
from squadron.methods.self_rewarding.synthetic_task import TasksConfig, WorldConfig
from squadron.train.models.artifact import ModelArtifact
from squadron.train.spec import LoraSettings, TrainSpec


def read_problems(
    stage: Stage,
    problems: ProblemsConfig | None,
    benchmarks: tuple[BenchmarkConfig, ...],
    world: TasksConfig,
    rounds: int,
    seed: int,
) -> Sources:
    """Read every problem, and see to it that the answers of benchmarks can be checked."""
    from squadron.methods.self_rewarding import datasets as sources

    return sources.read(stage, problems, benchmarks, world, rounds, seed)


@estimated(plan.data)
def build_lessons(
    stage: Stage,
    sources: Sources,
    instruction: InstructionConfig,
    judging: JudgingDataConfig,
    prompts: PromptsConfig,
    world: TasksConfig,
    rounds: int,
    seed: int,
) -> Lessons:
    """Gather solutions in steps and judged pairs of steps, and keep some pairs out."""
    from squadron.methods.self_rewarding import datasets as module

    return module.lessons(stage, sources, instruction, judging, prompts, world, rounds, seed)


@estimated(plan.base_model)
def prepare_base(
    stage: Stage, lessons: Lessons, base: str | None, world: WorldConfig, prompts: PromptsConfig, seed: int, rounds: int
) -> ModelArtifact:
    """M0: find the base model, or train a small one on plain texts."""
    from squadron.methods.self_rewarding import base as module

    return module.prepare(stage, lessons, base, world, prompts, seed, rounds)


@estimated(plan.tuning)
def fine_tune(
    stage: Stage,
    base: ModelArtifact,
    lessons: Lessons,
    prompts: PromptsConfig,
    spec: TrainSpec,
    lora: LoraSettings | None,
) -> ModelArtifact:
    """M1: learn from solutions and judgements."""
    from squadron.methods.self_rewarding import tuning

    return tuning.fine_tune(stage, base, lessons, prompts, spec, lora)


@estimated(plan.asking)
def prefer_steps(
    stage: Stage,
    model: ModelArtifact,
    sources: Sources,
    number: int,
    prompts: PromptsConfig,
    config: ProposalsConfig,
    generation: GenerationConfig,
    seed: int,
) -> Preferences:
    """Let the model propose steps and judge them itself."""
    from squadron.methods.self_rewarding import rounds

    return rounds.prefer(stage, model, sources.training, number, prompts, config, generation, seed)


@estimated(plan.optimizing)
def optimize(
    stage: Stage,
    model: ModelArtifact,
    preferences: Preferences,
    number: int,
    prompts: PromptsConfig,
    beta: float,
    spec: TrainSpec,
    lora: LoraSettings | None,
) -> ModelArtifact:
    """Learn from the model's own preferences, by step-wise DPO."""
    from squadron.methods.self_rewarding import rounds

    return rounds.optimize(stage, model, preferences, number, prompts, beta, spec, lora)


def evaluate(
    stage: Stage,
    model: ModelArtifact,
    sources: Sources,
    lessons: Lessons,
    prompts: PromptsConfig,
    solving: Sampling,
    judging: Sampling,
    generation: GenerationConfig,
) -> Evaluation:
    """Solve the benchmarks and judge the pairs that were kept out."""
    from squadron.methods.self_rewarding import evaluation

    return evaluation.measure(stage, model, sources, lessons, prompts, solving, judging, generation)


def compare(
    stage: Stage,
    results: tuple[Evaluation, ...],
    last: ModelArtifact,
    sources: Sources,
    prompts: PromptsConfig,
    config: EvaluationConfig,
    rounds: ProposalsConfig,
    generation: GenerationConfig,
    seed: int,
) -> Estimate:
    """Compare the rounds, and let the last model search."""
    from squadron.methods.self_rewarding import evaluation, figures

    searched = None
    if config.scaling:
        searched = evaluation.scale(stage, last, sources, prompts, config, rounds, generation, seed)
    gain = evaluation.gain(results[1], results[-1])
    figures.show_rounds(stage, results, gain, searched)
    return gain
