"""What a fine-tuning run serves: its language model by OpenAI's interface, its reward model or classifier by scores."""

from __future__ import annotations

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.results import outputs, settings
from squadron.llm.reward import ClassifierReward
from squadron.methods.finetune.config import FinetuneConfig
from squadron.methods.finetune.records import Export
from squadron.serve.chat import chat_service
from squadron.serve.scoring import score_service
from squadron.serve.service import Services


def services(folder: Folder) -> Services:
    """The model of a run, under the name of its folder. Raises InputError if none is exported, or it is of a kind that
    nothing here serves."""
    config = settings(folder, FinetuneConfig)
    export = outputs(folder, "export", Export)[-1]
    if config.objective not in ("sft", "dpo", "reward"):
        raise InputError(f"a model of the objective {config.objective} is not served yet", where=str(folder))
    if export.kind != "full":
        fix = "run it again with export.merge=true"
        raise InputError("the run has exported an adapter, not a whole model", where=str(folder), fix=fix)
    if not folder.path:
        raise InputError("a model behind a URL is not served yet", where=str(folder), fix="copy the folder to a disk")
    if config.objective == "reward":
        return Services((score_service(folder.name, ClassifierReward(path=folder.file(export.path))),))
    return Services((chat_service(folder.name, folder.file(export.path)),))
