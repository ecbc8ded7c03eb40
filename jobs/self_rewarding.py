"""Process-based self-rewarding: a language model proposes steps, judges them itself, and learns from its own judgement.

python jobs/self_rewarding.py                                    # the demo, on this machine
python jobs/self_rewarding.py full rounds.beta=0.2                 # any setting as key.path=value
squadron run self_rewarding paper --profile 8xh100 --address auto

Process-based Self-Rewarding Language Models, arXiv 2503.03746.
"""

from __future__ import annotations

from squadron.core.job import Goal, job
from squadron.core.run import Run
from squadron.methods.self_rewarding.config import SelfRewardingConfig
from squadron.methods.self_rewarding.endpoint import services
from squadron.methods.self_rewarding.plan import estimate
from squadron.methods.self_rewarding.stages import (
    build_lessons,
    compare,
    evaluate,
    fine_tune,
    optimize,
    prefer_steps,
    prepare_base,
    read_problems,
)

NEEDS = ("ray", "torch", "transformers", "deepspeed", "pyarrow", "math_verify")
METRICS: dict[str, Goal] = {"accuracy": "max", "gain": "max"}


@job(
    SelfRewardingConfig,
    requires=NEEDS,
    estimate=estimate,
    services=services,
    metrics={"accuracy": "max", "gain": "max"},
)
def self_rewarding(run: Run, config: SelfRewardingConfig) -> None:
    """A model that got better at reasoning by its own judgement."""
    prompts, world, rounds, seed = config.prompts, config.world, config.rounds, config.seed
    count, asked = sum(rounds.questions), config.generation
    sources = run.stage(read_problems, config.problems, config.evaluation.benchmarks, world, count, seed)
    lessons = run.stage(build_lessons, sources, config.instruction, config.judging, prompts, world, count, seed)

    model = run.stage(prepare_base, lessons, config.base, world, prompts, seed, count)  # M0
    results = [run.stage(evaluate, model, sources, lessons, prompts, config.evaluation, rounds, asked)]
    model = run.stage(fine_tune, model, lessons, prompts, config.tuning, config.lora)  # M1
    results.append(run.stage(evaluate, model, sources, lessons, prompts, config.evaluation, rounds, asked))

    for number in range(2, len(rounds.questions) + 2):  # M2, M3, …
        preferences = run.stage(prefer_steps, model, sources, number, prompts, rounds, asked, seed)
        model = run.stage(optimize, model, preferences, number, prompts, rounds.beta, rounds.training, config.lora)
        results.append(run.stage(evaluate, model, sources, lessons, prompts, config.evaluation, rounds, asked))

    run.stage(compare, tuple(results), model, sources, prompts, config.evaluation, rounds, asked, seed)


if __name__ == "__main__":
    self_rewarding.main()
