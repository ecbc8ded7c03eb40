"""A small twin of a published COMET checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HIDDEN, _LAYERS = (32, 16), 2


def make_comet_twin(source: str | None, path: str, folder: Path, seed: int) -> str:
    """Write a checkpoint of the same kind with random weights on a small encoder of the same class, and say what it was
    made from: the hyperparameters in the folder `source`, or without one, what the name `path` tells.

    Raises InputError for hyperparameters that are not read.
    """
    import torch
    import yaml
    from transformers import AutoConfig

    from squadron.evaluate.translation.comet.hparams import Hyperparameters, read_hparams
    from squadron.evaluate.translation.comet.network import CometNetwork
    from squadron.train.models.families import make_family_model

    hparams = Hyperparameters.model_validate(_told(path)) if source is None else read_hparams(source)
    small: dict[str, Any] = {"pretrained_model": "encoder", "hidden_sizes": _HIDDEN, "word_layer": _LAYERS}
    if hparams.layer != "mix":
        small["layer"] = _LAYERS
    hparams = hparams.model_copy(update=small)
    family = "xlm-roberta-xl" if hparams.encoder_model == "XLM-RoBERTa-XL" else "xlm-roberta"
    encoder = make_family_model(folder / "encoder", family, kind="encoder", layers=_LAYERS, seed=seed)
    (folder / "encoder" / "model.safetensors").unlink()
    torch.manual_seed(seed)
    network = CometNetwork(hparams, AutoConfig.from_pretrained(encoder))
    network.state_dict()["estimator.ff.6.bias"].fill_(0.5)  # so that scores are between 0 and 1
    (folder / "hparams.yaml").write_text(yaml.safe_dump(hparams.model_dump(mode="json")), encoding="utf-8")
    (folder / "checkpoints").mkdir()
    torch.save({"state_dict": network.state_dict()}, folder / "checkpoints" / "model.ckpt")
    return "the kind that its name tells" if source is None else "its own hyperparameters"


def _told(path: str) -> dict[str, Any]:
    """Hyperparameters of Unbabel's checkpoints, by their names on the hub."""
    name = path.rpartition("/")[2].lower()
    large = {"encoder_model": "XLM-RoBERTa-XL"} if name.endswith(("-xl", "-xxl")) else {}
    if "xcomet" in name:
        kind: dict[str, Any] = {"class_identifier": "xcomet_metric", "error_labels": ("minor", "major", "critical")}
    elif "kiwi" in name:
        kind = {"class_identifier": "unified_metric", "input_segments": ("mt", "src")}
    else:
        kind = {"class_identifier": "regression_metric", "layer_transformation": "sparsemax"}
    return {"pretrained_model": "encoder", "layer_norm": False, **large, **kind}
