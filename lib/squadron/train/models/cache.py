"""Models that a job trains for itself, once: later runs find them in the user's cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from squadron.core import console
from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.core.run import Stage
from squadron.core.stage_cache import copy_stage
from squadron.core.user_cache import user_cache
from squadron.train.models.artifact import ModelArtifact

_BEGUN = "trains.json"


def cached_models(stage: Stage, key: str, make: Callable[[], Sequence[ModelArtifact]]) -> tuple[ModelArtifact, ...]:
    """The models that `make` trains into the stage's folder, or copies of those that an earlier run trained.

    `key` stands for all that decides them. They are kept under $SQUADRON_CACHE, or ~/.cache/squadron. A stage that has
    begun to train them finishes that after a restart, also where the cache has them by now, so that it shows what it
    would have shown.
    """
    cache = cache_folder() / key
    place = relative(stage.folder, stage.run.folder)
    found = _whole_models(cache)
    if found is None:
        cache.remove()
    if found is None or stage.folder.exists(_BEGUN):
        stage.folder.write_json(_BEGUN, {"key": key})
        made = tuple(make())
        kept = [one.model_copy(update={"path": one.path.removeprefix(f"{place}/")}) for one in made]
        for one in kept:
            _copy(stage.folder / one.path, cache / one.path)
        models = [one.model_dump(mode="json") for one in kept]
        cache.write_json("models.json", {"models": models})  # last: all are there now
        return made
    console.say(f"  trained before, taken from {console.plain(str(cache))}")
    for one in found:
        _copy(cache / one.path, stage.folder / one.path)
    return tuple(one.model_copy(update={"path": f"{place}/{one.path}"}) for one in found)


def _whole_models(cache: Folder) -> list[ModelArtifact] | None:
    """The models that are kept; None where they are not, or are not what was written."""
    with contextlib.suppress(InputError, KeyError, TypeError, ValueError):
        found = [ModelArtifact.model_validate(one) for one in cache.read_json("models.json")["models"]]
        for one in found:
            one.locate(cache)
        return found
    return None


def cache_folder() -> Folder:
    """Where models are kept between runs."""
    return user_cache("models")


def _copy(source: Folder, target: Folder) -> None:
    """Copy a folder, unless an earlier attempt has."""
    if target.ls() != source.ls():
        target.remove()
        copy_stage(source, target)
