"""Who answers: the models that the user names, or the small world's crowd, trained here and kept for later runs."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from squadron.core import console
from squadron.core.config import fingerprint
from squadron.core.folder import Folder, relative
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.llm.providers import check_models
from squadron.llm.settings import AnyModel, HfModel
from squadron.methods.crowdselect.config import Trained
from squadron.methods.crowdselect.records import ResponseModels
from squadron.methods.crowdselect.synthetic_task import FamilyConfig, MemberConfig, WorldConfig, lesson_tasks
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.random_init import Size, store_untrained
from squadron.train.text.tokenizer import load_chat_tokenizer, store_tokenizer

if TYPE_CHECKING:
    from squadron.train.multi_run import TrainJob

_TOKENIZED = 4000
"""Tasks that the tokenizer is trained on."""


def gather(
    stage: Stage, world: WorldConfig, models: tuple[AnyModel, ...], base: str | None, trained: Trained
) -> ResponseModels:
    """The models to ask and the students' base: those named, and of the small world those that `trained` asks for.

    Raises ConfigError, InputError or ResourceError before anything is asked if a model cannot be used.
    """
    quiet_libraries()
    check_models(models)
    if base is not None:
        load_chat_tokenizer(base, "the students' base")
    if not trained:
        return ResponseModels(models=models, base=base)
    if "crowd" not in trained:
        world = world.model_copy(update={"families": ()})
    small = ResponseModels.model_validate(_cached(stage, world) or _make(stage, world))
    if "crowd" not in trained:
        small = small.model_copy(update={"models": models, "inside_run": False})
    if "base" not in trained:
        small = small.model_copy(update={"base": base, "base_inside_run": False})
    return small


def _make(stage: Stage, world: WorldConfig) -> dict[str, Any]:
    """Train the crowd and the base, and put them into the cache."""
    from squadron.train.multi_run import train_several

    tokenizer = _tokenizer(stage, world)
    planned = [(family, member) for family in (*world.families, world.base) for member in family.members]
    lessons, sizes = [], []
    for number, (family, member) in enumerate(planned):
        lesson, parameters = _lesson(stage, world, family, member, tokenizer, number)
        lessons.append(lesson)
        sizes.append(parameters)
    learned = train_several(stage, lessons)
    rows: list[list[Any]] = [
        [one.name, parameters, len(one.losses), one.losses[0], one.losses[-1]]
        for one, parameters in zip(learned, sizes, strict=True)
    ]
    columns = ["model", "parameters", "steps", "first loss", "last loss"]
    stage.show(Table(title="Training of the small models", columns=columns, rows=rows))
    crowd = zip(planned[:-1], learned[:-1], sizes[:-1], strict=True)
    made = ResponseModels(
        models=tuple(
            HfModel(name=one.name, family=family.name, size_b=parameters / 1e9, path=one.path, batch_size=128)
            for (family, _), one, parameters in crowd
        ),
        inside_run=True,
        base=learned[-1].path,
        base_inside_run=True,
    ).model_dump(mode="json")
    _keep(stage, world, made)
    return made


def _lesson(
    stage: Stage, world: WorldConfig, family: FamilyConfig, member: MemberConfig, tokenizer: str, number: int
) -> tuple[TrainJob, int]:
    """How one model is trained, and the number of its parameters."""
    from squadron.train.models.builders import Pretrained
    from squadron.train.multi_run import TrainJob
    from squadron.train.objectives.language import SupervisedFineTuning

    place, parameters = _untrained(stage, world, family, member, tokenizer, number)
    spec = world.training
    optimizer = spec.optimizer.model_copy(update={"learning_rate": member.learning_rate})
    lesson = TrainJob(
        name=family.name if family is world.base else f"{family.name}-{parameters / 1000:.0f}k",
        build=Pretrained(place),
        objective=SupervisedFineTuning(spec.loss_chunk),
        rows=_encode(stage, world, family, place),
        spec=spec.model_copy(update={"optimizer": optimizer, "seed": world.seed + number}),
        tokenizer=place,
    )
    return lesson, parameters


def _tokenizer(stage: Stage, world: WorldConfig) -> str:
    """A folder with the tokenizer that all small models share."""
    learned = itertools.islice(lesson_tasks(world, world.base), _TOKENIZED)
    texts = (text for task in learned for text in (task.instruction, task.answer, "user", "assistant"))
    return store_tokenizer(texts, world.vocabulary, stage.folder)


def _untrained(
    stage: Stage, world: WorldConfig, family: FamilyConfig, member: MemberConfig, tokenizer: str, number: int
) -> tuple[str, int]:
    """A folder with a model of random weights and its tokenizer, and the number of its parameters."""
    size = Size(
        hidden_size=member.hidden_size,
        intermediate_size=member.intermediate_size,
        layers=member.layers,
        heads=member.heads,
        context=world.context,
        initializer_range=world.initializer_range,
        rope_theta=world.rope_theta,
    )
    name = f"untrained/{family.name}-{number}"
    return store_untrained(stage.folder, name, tokenizer, size, world.seed + number, family.architecture)


def _encode(stage: Stage, world: WorldConfig, family: FamilyConfig, tokenizer: str) -> ArrowRows:
    from transformers import AutoTokenizer

    from squadron.train.models.builders import local_folder
    from squadron.train.text.conversations import encode_completion, encode_conversation

    name = f"lessons/{family.name}.arrow"
    if not stage.folder.exists(name):
        words = AutoTokenizer.from_pretrained(local_folder(tokenizer))

        def rows() -> Iterator[dict[str, Any]]:
            for task in lesson_tasks(world, family):
                if family.plain:
                    yield encode_completion(words, f"{task.instruction}\n", task.answer)
                    continue
                asked = {"role": "user", "content": task.instruction}
                yield encode_conversation(words, [asked, {"role": "assistant", "content": task.answer}])

        write_rows(stage.folder, name, rows())
    return ArrowRows(stage.run.folder, [relative(stage.folder, stage.run.folder, name)])


def cache_folder(world: WorldConfig) -> Folder:
    """Where a crowd of these settings is kept between runs: under $SQUADRON_CACHE, or ~/.cache/squadron."""
    import squadron

    root = os.environ.get("SQUADRON_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "squadron")
    tasks = [[*task] for task in itertools.islice(lesson_tasks(world, world.base), _TOKENIZED)]
    decides = [squadron.__version__, world.model_dump(mode="json"), tasks]
    return Folder(root) / f"crowds/{fingerprint(decides)}"


def _cached(stage: Stage, world: WorldConfig) -> dict[str, Any] | None:
    cache = cache_folder(world)
    if not cache.exists("crowd.json"):
        return None
    console.say(f"  the crowd was trained before: {cache}")
    crowd: dict[str, Any] = cache.read_json("crowd.json")
    for place in _places(crowd):
        _copy(cache / place["cached"], stage.folder / place["cached"])
        place["set"](f"{relative(stage.folder, stage.run.folder)}/{place['cached']}")
    return crowd


def _keep(stage: Stage, world: WorldConfig, crowd: dict[str, Any]) -> None:
    """Copy trained models into the cache; the record that makes them count is written last."""
    cache = cache_folder(world)
    kept: dict[str, Any] = json.loads(json.dumps(crowd))
    for place in _places(kept):
        name = place["path"].removeprefix(relative(stage.folder, stage.run.folder) + "/")
        _copy(stage.folder / name, cache / name)
        place["set"](name)
    cache.write_json("crowd.json", kept)


def _places(crowd: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every model folder that a crowd names, and how to set it."""
    for model in [*crowd["models"], crowd]:
        field = "base" if model is crowd else "path"

        def assign(value: str, model: dict[str, Any] = model, field: str = field) -> None:
            model[field] = value

        yield {"path": model[field], "cached": model[field], "set": assign}


def _copy(source: Folder, target: Folder) -> None:
    for name in source.ls():
        with tempfile.TemporaryDirectory() as scratch:
            copy = os.path.join(scratch, name)
            shutil.copyfile(source.fetch(name, scratch), copy) if source.path else source.fetch(name, scratch)
            target.put(name, copy)
