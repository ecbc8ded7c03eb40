"""The stages of a CrowdSelect run, in the order of `jobs/crowdselect.py`."""

from __future__ import annotations

from squadron.core.job import estimated
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.llm.batch.budget import SpendingConfig
from squadron.llm.batch.collect import CollectConfig
from squadron.llm.batch.scoring import Scores
from squadron.llm.rewards.settings import AnyReward
from squadron.llm.settings import AnyModel
from squadron.methods.crowdselect import plan
from squadron.methods.crowdselect.config import (
    EmbeddingConfig,
    LearningConfig,
    PoolConfig,
    SelectionConfig,
    StudentsConfig,
    Trained,
)
from squadron.methods.crowdselect.records import (
    Collected,
    Embeddings,
    Pool,
    ResponseModel,
    ResponseModels,
    Selection,
    Students,
    StudentScores,
)
from squadron.methods.crowdselect.synthetic_task import TasksConfig, WorldConfig


@estimated(plan.instructions)
def read_pool(stage: Stage, config: PoolConfig, world: TasksConfig, models: tuple[AnyModel, ...]) -> Pool:
    """Read and check every instruction, and keep some out."""
    from squadron.methods.crowdselect import pool

    return pool.read(stage, config, world, models)


def prepare_models(
    stage: Stage, world: WorldConfig, models: tuple[AnyModel, ...], base: str | None, trained: Trained
) -> ResponseModels:
    """Find the models that answer, or train the small world's."""
    from squadron.methods.crowdselect import response_models as crowd

    return crowd.gather(stage, world, models, base, trained)


@estimated(plan.answers)
def collect_answers(
    stage: Stage, pool: Pool, crowd: ResponseModels, asked: tuple[AnyModel, ...], config: CollectConfig
) -> Collected:
    """Ask every model every instruction, once."""
    from squadron.data.rows import ArrowRows
    from squadron.llm.batch.collect import collect

    if pool.answers:
        return Collected(crowd=pool.crowd, answers=pool.answers)
    models = crowd.at(stage.run.folder, asked)
    answers = collect(stage, ArrowRows(stage.run.folder, [pool.questions]), models, config)
    rows = [
        [one.model, one.answered, one.failed, one.prompt_tokens, one.completion_tokens, one.cost_usd] for one in answers
    ]
    columns = ["model", "answers", "failed", "tokens asked", "tokens answered", "cost [USD]"]
    stage.show(Table(title="Answers by model", columns=columns, rows=rows))
    stage.headline("answers", f"{sum(one.answered for one in answers):,}")
    if cost := sum(one.cost_usd for one in answers):
        stage.headline("cost of the answers", f"{cost:,.2f} USD")
    members = tuple(ResponseModel(name=model.name, family=model.family, size_b=model.size_b) for model in models)
    return Collected(crowd=members, answers=tuple(answers))


def score_answers(
    stage: Stage, pool: Pool, collected: Collected, reward: AnyReward, spending: SpendingConfig
) -> Scores:
    """Score every answer."""
    from squadron.data.rows import ArrowRows
    from squadron.llm.batch.scoring import score

    questions = ArrowRows(stage.run.folder, [pool.questions])
    scores = score(stage, questions, collected.answers, reward, spending.cap_usd)
    stage.headline("scored answers", f"{scores.scored:,}" + (f", {scores.failed:,} failed" if scores.failed else ""))
    return scores


def embed_instructions(stage: Stage, pool: Pool, config: EmbeddingConfig) -> Embeddings:
    """Compute a vector for every instruction."""
    from squadron.methods.crowdselect import embedding

    return embedding.embed(stage, pool, config)


@estimated(plan.training)
def select(
    stage: Stage,
    pool: Pool,
    crowd: ResponseModels,
    collected: Collected,
    scores: Scores,
    embeddings: Embeddings,
    config: SelectionConfig,
    seeds: int,
    spending: SpendingConfig,
) -> Selection:
    """Choose instructions and responses, by CrowdSelect and by what it is compared with."""
    from squadron.methods.crowdselect import selection

    return selection.select(stage, pool, crowd, collected, scores, embeddings, config, seeds, spending.cap_usd)


def train_students(stage: Stage, selection: Selection, crowd: ResponseModels, config: LearningConfig) -> Students:
    """Train a student on each choice, with every seed."""
    from squadron.methods.crowdselect import students

    return students.train(stage, selection, crowd, config)


def compare_students(
    stage: Stage,
    students: Students,
    pool: Pool,
    config: StudentsConfig,
    reward: AnyReward,
    spending: SpendingConfig,
) -> StudentScores:
    """Let students answer the instructions kept out, and compare their scores."""
    from squadron.methods.crowdselect import students as module

    return module.compare(stage, students, pool, config, reward, spending.cap_usd)
