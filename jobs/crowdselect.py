"""CrowdSelect: which instructions are worth training on, by what a crowd of language models makes of them.

python jobs/crowdselect.py                                       # the demo, on this machine
squadron run crowdselect collect pool.path=my.jsonl              # answers of many models, scored, then a choice
squadron run crowdselect paper --profile 8xh100 --address auto

CrowdSelect, arXiv 2503.01836.
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import Goal, job
from squadron.core.run import Run
from squadron.llm.batch.budget import SpendingConfig
from squadron.llm.settings import ModelSettings
from squadron.methods.crowdselect.config import CrowdSelectConfig, LearningConfig
from squadron.methods.crowdselect.endpoint import services
from squadron.methods.crowdselect.rehearsal import REPLIES
from squadron.methods.crowdselect.stages import (
    collect_answers,
    compare_students,
    embed_instructions,
    prepare_models,
    read_pool,
    score_answers,
    select,
    train_students,
)
from squadron.methods.crowdselect.synthetic_task import TasksConfig

NEEDS = ("ray", "torch", "transformers", "deepspeed", "faiss", "sentence_transformers", "aiohttp", "pyarrow")
METRICS: dict[str, Goal] = {"score": "max", "difference": "max"}


@job(
    CrowdSelectConfig,
    requires=NEEDS,
    services=services,
    metrics=METRICS,
    replies=REPLIES,
)
def crowdselect(run: Run, config: CrowdSelectConfig) -> None:
    """The instructions worth training on, and models trained on them."""
    settings, learn, spending = config.pool, config.students, config.collect.only(SpendingConfig)
    asked = config.models if settings.layout == "instructions" else ()
    columns = () if asked else tuple(one.only(ModelSettings) for one in config.models)  # none of these is asked
    pool = run.stage(read_pool, settings, config.world.only(TasksConfig), columns)  # some kept out
    crowd = run.stage(prepare_models, config.world, asked, learn.base, config.trained)  # found, or trained here
    answers = run.stage(collect_answers, pool, crowd, asked, config.collect)  # every model, every instruction
    scores = run.stage(score_answers, pool, answers, config.reward, spending)  # reward model or verifier
    vectors = run.stage(embed_instructions, pool, config.embedding)
    chosen = run.stage(select, pool, crowd, answers, scores, vectors, config.selection, learn.seeds, spending)
    if not config.trains_students:
        return
    students = run.stage(train_students, chosen, crowd, learn.only(LearningConfig))  # Ray Train, DeepSpeed
    run.stage(compare_students, students, pool, learn, learn.reward or config.reward, spending)  # on what was kept out


if __name__ == "__main__":
    run_job(crowdselect)
