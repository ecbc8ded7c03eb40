"""What a run serves that has trained a language model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.run_reader import outputs
from squadron.serve.chat import chat_service
from squadron.serve.service import Service, Services
from squadron.train.models.artifact import ModelArtifact


def last_model(*stages: str) -> Callable[[Folder], Services]:
    """The services of a run whose stages of these names return models: of the first name that any has finished of, the
    last model. They raise InputError if there is none, or its files are not what was written."""

    def services(folder: Folder) -> Services:
        for stage in stages[:-1]:
            with contextlib.suppress(InputError):
                found = outputs(folder, stage, ModelArtifact)
                break
        else:
            found = outputs(folder, stages[-1], ModelArtifact)
        return Services((model_service(folder, found[-1]),))

    return services


def model_service(run: Folder, model: ModelArtifact) -> Service:
    """The service of a language model that a run has trained, under the name of the run's folder; of an adapter, over
    its base. Raises InputError if its files are not what was written."""
    if model.adapter_of is None:
        return chat_service(run.name, model.locate(run))
    return chat_service(run.name, model.adapter_of.locate(run), adapter=model.locate(run))
