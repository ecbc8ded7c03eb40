"""Every model's answer to every instruction, and a score for each."""

from __future__ import annotations

from squadron.core.job import estimated
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.llm.batch.budget import SpendingConfig
from squadron.llm.batch.collect import CollectConfig, collect
from squadron.llm.batch.scoring import Scores, score
from squadron.llm.rewards.settings import AnyReward
from squadron.llm.settings import AnyModel
from squadron.methods.crowdselect import plan
from squadron.methods.crowdselect.records import Collected, Pool, ResponseModel, ResponseModels


@estimated(plan.answers)
def collect_answers(
    stage: Stage, pool: Pool, crowd: ResponseModels, asked: tuple[AnyModel, ...], config: CollectConfig
) -> Collected:
    """Ask every model every instruction, once."""
    if pool.answers:
        return Collected(crowd=pool.crowd, answers=pool.answers)
    models = crowd.at(stage.run.folder, asked)
    answers = collect(stage, pool.questions.rows(stage.run.folder), models, config)
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
    questions = pool.questions.rows(stage.run.folder)
    scores = score(stage, questions, collected.answers, reward, spending.cap_usd)
    stage.headline("scored answers", f"{scores.scored:,}" + (f", {scores.failed:,} failed" if scores.failed else ""))
    return scores
