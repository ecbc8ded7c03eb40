"""Who answers: the models that the user names, or the small world's crowd, trained here and kept for later runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from squadron.core.config import fingerprint
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.llm.providers import check_models
from squadron.llm.settings import AnyModel
from squadron.methods.crowdselect.config import Trained
from squadron.methods.crowdselect.records import CrowdMember, ResponseModels
from squadron.methods.crowdselect.synthetic_task import FamilyConfig, MemberConfig, WorldConfig, lesson_tasks
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.base import find_model
from squadron.train.models.cache import cached_models
from squadron.train.tuning import SmallModel, tune_small

_TOKENIZED = 4000
"""Tasks that the tokenizer is trained on."""
Planned = Sequence[tuple[FamilyConfig, MemberConfig]]


def prepare_models(
    stage: Stage, world: WorldConfig, models: tuple[AnyModel, ...], base: str | None, trained: Trained
) -> ResponseModels:
    """Find the models that answer, or train the small world's.

    See to it that the named models and the students' base are there; train those of the small world that `trained`
    asks for, or take them from the cache.

    Raises ConfigError, InputError or ResourceError before anything is asked if a model cannot be used.
    """
    quiet_libraries()
    check_models(models)
    found = None if base is None else find_model(base, "the students' base", chats=True)
    if not trained:
        return ResponseModels(base=found)
    families = world.families if "crowd" in trained else ()
    planned = [(family, member) for family in (*families, world.base) for member in family.members]
    key = f"crowd-{_fingerprint(world.model_copy(update={'families': families}))}"
    *crowd, small = cached_models(stage, key, lambda: _train(stage, world, planned))
    members = [CrowdMember(family=family.name, model=model) for (family, _), model in zip(planned, crowd, strict=False)]
    return ResponseModels(crowd=tuple(members), base=small if "base" in trained else found)


def _train(stage: Stage, world: WorldConfig, planned: Planned) -> list[ModelArtifact]:
    """Train the crowd and the base, which is the last."""
    models = [
        SmallModel(
            name=family.name if family is world.base else f"{family.name}-{{size}}",
            shape=world.model(family, member),
            encode=partial(_encode, world, family),
            spec=world.training.model_copy(
                update={
                    "optimizer": world.training.optimizer.model_copy(update={"learning_rate": member.learning_rate}),
                    "seed": world.seed + number,
                }
            ),
            lessons=f"lessons/{family.name}",
        )
        for number, (family, member) in enumerate(planned)
    ]
    tuned = tune_small(stage, _texts(world), models)
    rows = [[one.model.name, one.model.parameters, len(one.losses), one.losses[0], one.losses[-1]] for one in tuned]
    columns = ["model", "parameters", "steps", "first loss", "last loss"]
    stage.show(Table(title="Training of the small models", columns=columns, rows=rows))
    return [one.model for one in tuned]


def _texts(world: WorldConfig) -> Iterator[str]:
    """What the tokenizer that all small models share is trained on."""
    for task in itertools.islice(lesson_tasks(world, world.base), _TOKENIZED):
        yield from (task.instruction, task.answer, "user", "assistant")


def _encode(world: WorldConfig, family: FamilyConfig, tokenizer: Any) -> Iterator[dict[str, Any]]:
    from squadron.train.text.conversations import encode_completion, encode_conversation

    for task in lesson_tasks(world, family):
        if family.plain:
            yield encode_completion(tokenizer, f"{task.instruction}\n", task.answer)
            continue
        asked = {"role": "user", "content": task.instruction}
        yield encode_conversation(tokenizer, [asked, {"role": "assistant", "content": task.answer}])


def _fingerprint(world: WorldConfig) -> str:
    """What decides the small models: settings, tasks, and the version of this package."""
    import squadron

    tasks = [[*task] for task in itertools.islice(lesson_tasks(world, world.base), _TOKENIZED)]
    return fingerprint([squadron.__version__, world, tasks])
