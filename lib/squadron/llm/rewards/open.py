"""How good an answer is: by a reward model of outcomes or of steps, a judge, a checker, or a column that says so.

model = open_reward(settings, open_model)
for score in model.score([Answered("1", "What is 6 times 7?", "42")]):
    print(score.error or score.value)
"""

from __future__ import annotations

from collections.abc import Callable

from squadron.llm.chat import ChatModel
from squadron.llm.rewards.judge import Judge
from squadron.llm.rewards.reward import RewardModel
from squadron.llm.rewards.rule_based import RuleReward, by_final_answer, by_tasks, from_column
from squadron.llm.rewards.settings import (
    AnyReward,
    ClassifierReward,
    ColumnReward,
    CrossEncoderReward,
    JudgeReward,
    LabelTokenReward,
    VerifierReward,
)
from squadron.llm.settings import AnyModel


def open_reward(settings: AnyReward, open_model: Callable[[AnyModel], ChatModel]) -> RewardModel:
    """The reward model of these settings, loaded; `open_model` opens a judge's chat model.

    Raises ModelUnavailable or ConfigError if it cannot be used.
    """
    match settings:
        case ClassifierReward():
            from squadron.llm.rewards.local import open_classifier

            return open_classifier(settings)
        case CrossEncoderReward():
            from squadron.llm.rewards.local import open_cross_encoder

            return open_cross_encoder(settings)
        case LabelTokenReward():
            from squadron.llm.rewards.local import open_label_token

            return open_label_token(settings)
        case JudgeReward():
            return Judge(settings, open_model(settings.model))
        case ColumnReward():
            return RuleReward(from_column)
        case VerifierReward(checker="tasks"):
            return RuleReward(by_tasks)
        case VerifierReward():
            return RuleReward(by_final_answer)
