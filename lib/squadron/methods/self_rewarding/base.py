"""M0: the model that the user names, or a small one from random weights that has read the small world's texts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.evaluate.panels import loss_curves
from squadron.methods.self_rewarding import algorithm, plan
from squadron.methods.self_rewarding.config import PromptsConfig
from squadron.methods.self_rewarding.conversations import lesson_messages
from squadron.methods.self_rewarding.records import Lessons
from squadron.methods.self_rewarding.synthetic_task import WorldConfig, base_texts, draw
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.base import find_model
from squadron.train.tuning import SmallModel, tune_small

_TOKENIZED = 3000
"""Rows of each kind of lesson that the tokenizer is trained on."""


@estimated(plan.base_model)
def prepare_base(
    stage: Stage, lessons: Lessons, base: str | None, world: WorldConfig, prompts: PromptsConfig, seed: int, rounds: int
) -> ModelArtifact:
    """M0: find the base model, or train a small one on plain texts.

    Raises InputError if there is no such model, ConfigError if it has no chat template.
    """
    quiet_libraries()
    if base is not None:
        return find_model(base, "the base model", chats=True, name="M0")

    def encode(tokenizer: Any) -> Iterator[Mapping[str, Any]]:
        from squadron.train.text.conversations import encode_completion

        for given, learned in base_texts(draw(world, seed, rounds), world, seed):
            yield encode_completion(tokenizer, given, learned)

    small = SmallModel("M0", world.model, encode, world.training.model_copy(update={"seed": seed}), "texts")
    (tuned,) = tune_small(stage, _texts(stage, lessons, prompts), [small])
    stage.show(loss_curves("Training loss of M0", {"M0": tuned.losses}))
    return tuned.model


def _texts(stage: Stage, lessons: Lessons, prompts: PromptsConfig) -> Iterator[str]:
    folder = stage.run.folder
    for row in itertools.islice(lessons.instruction.lines(folder), _TOKENIZED):
        yield from (algorithm.solve_messages(prompts.solve, row["question"])[0]["content"], "\n".join(row["steps"]))
    for row in itertools.islice(lessons.evaluation.lines(folder), _TOKENIZED):
        yield lesson_messages(prompts, row)[0]["content"]
        yield row["judgement"]
    yield from ("user", "assistant")
