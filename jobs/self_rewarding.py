"""Process-based self-rewarding: a language model proposes steps, judges them itself, and learns from its own judgement.

python jobs/self_rewarding.py                                    # the demo, on this machine
python jobs/self_rewarding.py full rounds.beta=0.2                 # any setting as key.path=value
python jobs/self_rewarding.py demo rewarding=outcome               # the baseline, which scores whole solutions
squadron run self_rewarding paper --profile 8xh100 --address auto

Process-based Self-Rewarding Language Models, arXiv 2503.03746.
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import Goal, job
from squadron.core.run import Run
from squadron.methods.self_rewarding.config import JudgementsConfig, ProposalsConfig, SelfRewardingConfig, SolvedConfig
from squadron.methods.self_rewarding.records import Evaluation
from squadron.methods.self_rewarding.rehearsal import REPLIES
from squadron.methods.self_rewarding.stages import (
    build_lessons,
    compare,
    evaluate,
    fine_tune,
    optimize,
    prefer_solutions,
    prefer_steps,
    prepare_base,
    read_problems,
)
from squadron.methods.self_rewarding.synthetic_task import TasksConfig
from squadron.serve.trained import last_model
from squadron.train.models.artifact import ModelArtifact

NEEDS = ("ray", "torch", "transformers", "deepspeed", "pyarrow", "math_verify")
METRICS: dict[str, Goal] = {"accuracy": "max", "gain": "max"}


@job(
    SelfRewardingConfig,
    requires=NEEDS,
    services=last_model("optimize", "fine_tune"),
    metrics=METRICS,
    replies=REPLIES,
)
def self_rewarding(run: Run, config: SelfRewardingConfig) -> None:
    """A model that got better at reasoning by its own judgement."""
    prompts, rounds, asked, seed = config.prompts, config.rounds, config.generation, config.seed
    tasks, proposals, count = config.world.only(TasksConfig), rounds.only(ProposalsConfig), sum(rounds.questions)
    taught, measured = config.instruction.only(SolvedConfig), config.evaluation.benchmarks
    sources = run.stage(read_problems, config.problems, measured, taught, tasks, count, seed)
    by = config.rewarding
    lessons = run.stage(build_lessons, sources, config.instruction, config.judging, prompts, tasks, count, seed, by)
    steps = by == "process"
    prefer = prefer_steps if steps else prefer_solutions
    judging = rounds.judging if steps else rounds.scoring.only(JudgementsConfig)

    def measure(model: ModelArtifact) -> Evaluation:
        return run.stage(evaluate, model, sources, lessons, prompts, config.evaluation.sampling, judging, asked)

    model = run.stage(prepare_base, lessons, config.base, config.world, prompts, seed, count)  # M0
    results = [measure(model)]
    model = run.stage(fine_tune, model, lessons, prompts, config.tuning, config.lora)  # M1
    results.append(measure(model))

    for number in range(2, len(rounds.questions) + 2):  # M2, M3, …
        preferences = run.stage(prefer, model, sources, number, prompts, proposals, asked, seed)
        model = run.stage(optimize, model, preferences, number, prompts, rounds.beta, rounds.training, config.lora)
        results.append(measure(model))

    run.stage(compare, tuple(results), model, sources, prompts, config.evaluation, proposals, asked, seed, by)


if __name__ == "__main__":
    run_job(self_rewarding)
