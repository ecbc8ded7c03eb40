"""What a fine-tuning run serves: its language model by OpenAI's interface, its reward model or classifier by scores."""

from __future__ import annotations

from functools import partial

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.run_reader import outputs, settings
from squadron.methods.finetune.config import FinetuneConfig
from squadron.methods.finetune.records import Dataset, Export
from squadron.methods.finetune.scoring import KINDS, TrainedScorer
from squadron.serve.scoring import score_service
from squadron.serve.service import Services
from squadron.serve.trained import model_service


def services(folder: Folder) -> Services:
    """The model of a run, under the name of its folder. Raises InputError if none is exported, or nothing here serves
    it."""
    config = settings(folder, FinetuneConfig)
    export = outputs(folder, "export", Export)[-1]
    kind = KINDS.get(config.objective)
    if kind is None:
        return Services((model_service(folder, export),))
    if export.adapter_of:
        fix = "run it again with export.merge=true"
        raise InputError(
            "scores are given by whole models, and the run has exported an adapter", where=str(folder), fix=fix
        )
    learned = outputs(folder, "read_data", Dataset)[-1]
    # What it is asked about is text, which has to look as the conversations that it was trained on.
    data = config.data.model_copy(update={"chat": config.data.chat or learned.chats})
    load = partial(TrainedScorer, export.locate(folder), config.objective, data, learned.classes)
    return Services((score_service(folder.name, kind, load),))
