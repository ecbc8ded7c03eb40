"""HoT: does a model answer better when it highlights the facts of the question that its answer rests on?

python jobs/hot.py                                               # the demo, on this machine
squadron run hot own tasks.0.items.path=questions.jsonl models.0.model.base_url=http://localhost:8000/v1
squadron run hot paper --profile 8xh100 --address auto

HoT: Highlighted Chain of Thought, arXiv 2503.02003.
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import Goal, job
from squadron.core.run import Run
from squadron.methods.hot.config import HotConfig
from squadron.methods.hot.endpoint import services
from squadron.methods.hot.rehearsal import REPLIES
from squadron.methods.hot.stages import (
    ask,
    ask_solver,
    compare,
    make_reader_page,
    read_replies,
    read_tasks,
    tag_demonstrations,
    train_solver,
)
from squadron.methods.hot.synthetic import learned_modes

NEEDS = ("ray", "torch", "transformers", "pyarrow", "rapidfuzz", "scipy", "math_verify")
METRICS: dict[str, Goal] = {"accuracy": "max", "gain": "max", "valid": "max"}


@job(HotConfig, requires=NEEDS, metrics=METRICS, replies=REPLIES, services=services)
def hot(run: Run, config: HotConfig) -> None:
    """Answers with highlighted facts against plain ones, on the same questions."""
    world = config.solver.world if config.solver else None
    tasks = run.stage(read_tasks, config.tasks, config.draw, config.leaks, world)
    if config.tagging is not None:
        tasks = run.stage(tag_demonstrations, tasks, config.tagging)
    scored = []
    for asked in config.models:
        for mode in config.modes:  # plain, highlighted, and ablations between the two
            answers = run.stage(ask, tasks, asked, mode, config.samples, config.seed, config.spending)
            scored.append(run.stage(read_replies, tasks, answers, mode, config.repair))
    if config.solver is not None:
        solver = run.stage(train_solver, config.solver, config.modes, config.draw)
        for mode in learned_modes(config.modes):
            answers = run.stage(ask_solver, tasks, solver, config.solver_sampling, mode, config.seed, config.samples)
            scored.append(run.stage(read_replies, tasks, answers, mode, config.repair))
    run.stage(compare, tasks, tuple(scored))
    run.stage(make_reader_page, tuple(scored), config.reader)  # to serve, and to open without a server


if __name__ == "__main__":
    run_job(hot)
