"""Several LoRA adapters (Hu et al. 2021) over one model: rows of one batch may each have another (Chen et al. 2023,
"Punica"), by peft's mixed batches."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from squadron.llm.chat import ModelUnavailable
from squadron.train.models.builders import local_folder
from squadron.train.models.errors import explaining_load_errors

_NONE = "__base__"  # peft's name for a row without an adapter


def attach(model: Any, folders: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """The model with the adapters of these folders, or URLs of folders, over it, and by the same keys what its forward
    pass calls each, in `adapter_names`, one for every row; an empty folder is the model as it is. Without any adapter
    it is returned unchanged, and takes no names.

    Loads safetensors only. Raises ModelUnavailable for what is no LoRA adapter of this model.
    """
    fix = "serve it over the model that it was trained on"
    # Settings that are none, and weights of other sizes, are told by errors of Python's own.
    also = (TypeError, RuntimeError)
    adapted: Any = None
    names: dict[str, str] = {}
    for number, (key, folder) in enumerate(folders.items()):
        names[key] = f"adapter{number}" if folder else _NONE
        if not folder:
            continue
        folder = local_folder(folder)
        with explaining_load_errors(folder, key, ModelUnavailable, fix=fix, also=also):
            _check(folder)
            if adapted is None:
                from peft import PeftModel

                adapted = PeftModel.from_pretrained(model, folder, adapter_name=names[key])
            else:
                adapted.load_adapter(folder, adapter_name=names[key])
    return (model, {}) if adapted is None else (adapted.eval(), names)


def _check(folder: str) -> None:
    from peft import PeftConfig

    files = ("adapter_config.json", "adapter_model.safetensors")
    if missing := [name for name in files if not os.path.exists(os.path.join(folder, name))]:
        raise ModelUnavailable(f"there is no {missing[0]}", where=folder, fix="export the adapter again")
    kind = PeftConfig.from_pretrained(folder).peft_type
    if kind != "LORA":
        raise ModelUnavailable(f"an adapter of the kind {kind} is not served", where=folder, fix="merge it first")
