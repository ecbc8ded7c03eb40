"""The last model of a run, behind OpenAI's interface."""

from __future__ import annotations

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.run_reader import outputs
from squadron.methods.self_rewarding.records import Model
from squadron.serve.chat import chat_service
from squadron.serve.service import Services


def services(folder: Folder) -> Services:
    """The model of the last round that has finished, under the name of the run's folder. Raises InputError if there is
    none."""
    try:
        model = outputs(folder, "optimize", Model)[-1]
    except InputError:
        model = outputs(folder, "fine_tune", Model)[-1]
    return Services((chat_service(folder.name, model.at(folder)),))
