"""COMET checkpoints from a folder or the hub into a network; nothing in them is run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squadron.core.errors import InputError
from squadron.evaluate.translation.comet.hparams import Hyperparameters, read_hparams

if TYPE_CHECKING:
    import torch

    from squadron.evaluate.translation.comet.network import CometNetwork

WEIGHTS = ("checkpoints/model.ckpt", "checkpoints/model.safetensors", "model.safetensors")
_TYPES = {"XLM-RoBERTa": "xlm-roberta", "XLM-RoBERTa-XL": "xlm-roberta-xl"}
_FIX = "give a name on the hub such as Unbabel/wmt22-comet-da, or a folder with hparams.yaml and checkpoints/model.ckpt"
_SHOWN = 5


def load_checkpoint(path: str, revision: str | None = None) -> tuple[CometNetwork, Any]:
    """The network of a checkpoint, on the processor, and the tokenizer of its encoder.

    `hparams.yaml` names the encoder: a folder, beside it or elsewhere, or a name on the hub, of which configuration and
    tokenizer are read. Raises InputError where files are missing, weights are not those of the network, or a file holds
    more than tensors and plain values.
    """
    from accelerate import init_empty_weights

    from squadron.evaluate.translation.comet.network import CometNetwork

    folder = _folder(path, revision)
    hparams = read_hparams(folder)
    config, tokenizer = _encoder(hparams, folder)
    _check_layers(hparams, config.num_hidden_layers + 1, folder)
    place = _weights(folder)
    with init_empty_weights(include_buffers=False):  # the weights are read next, and may be many
        network = CometNetwork(hparams, config)
    network.load_state_dict(_matching(_read(place), network, place), assign=True)
    return network.requires_grad_(False).eval(), tokenizer


def _folder(path: str, revision: str | None) -> Path:
    if os.path.isdir(path):
        return Path(path)
    if os.path.exists(path):
        raise InputError("a COMET checkpoint is a folder, and this is a file", where=path, fix=_FIX)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        wanted = ["hparams.yaml", *WEIGHTS]
        return Path(snapshot_download(path, revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        said = str(error).strip().partition("\n")[0]
        raise InputError(f"the COMET checkpoint cannot be had: {said}", where=path, fix=_FIX) from error


def _encoder(hparams: Hyperparameters, folder: Path) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    from squadron.train.models.errors import explaining_load_errors

    beside = folder / hparams.pretrained_model
    source = str(beside) if beside.is_dir() else hparams.pretrained_model
    fix = f"put the configuration and tokenizer of {source} in {beside}, or fetch them into the hub's cache"
    with explaining_load_errors(source, who="the encoder of a COMET checkpoint", fix=fix):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if config.model_type != _TYPES[hparams.encoder_model]:
        what = f"the encoder is to be {hparams.encoder_model}, and {source} is {config.model_type}"
        raise InputError(what, where=str(folder / "hparams.yaml"))
    return config, tokenizer


def _check_layers(hparams: Hyperparameters, layers: int, folder: Path) -> None:
    """Refuse a layer that the encoder lacks."""
    named = {"layer": hparams.layer} | ({"word_layer": hparams.word_layer} if hparams.labels else {})
    for name, layer in named.items():
        if layer != "mix" and not 0 <= layer < layers:
            what = f"{name} {layer} of an encoder with layers 0 to {layers - 1}"
            raise InputError(what, where=str(folder / "hparams.yaml"))


def _weights(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise InputError("a COMET checkpoint has weights, and this has none", where=str(folder), fix=_FIX)


def _read(place: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name."""
    import torch

    if place.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(place)
        except (SafetensorError, OSError) as error:
            raise InputError(f"the weights cannot be read: {error}", where=str(place)) from error
    try:
        stored = torch.load(place, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(place))
    except pickle.UnpicklingError as error:
        said = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
        if said.startswith("Unsupported operand"):  # no opcode that weights are written with
            raise InputError("the weights cannot be read: this is no checkpoint of PyTorch", where=str(place),
                             fix="fetch it anew") from error  # fmt: skip
        fix = "a file that you trust becomes model.safetensors where the package of COMET is installed"
        raise InputError(f"the file holds more than weights: {said}", where=str(place), fix=fix) from error
    except (RuntimeError, OSError, EOFError) as error:
        said = str(error).partition("\n")[0] or "the file ends too early"
        raise InputError(f"the weights cannot be read: {said}", where=str(place), fix="fetch it anew") from error
    state = stored.get("state_dict") if isinstance(stored, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError("a checkpoint of Lightning has tensors under state_dict, and this has none", where=str(place))
    return state


def _matching(state: dict[str, torch.Tensor], network: CometNetwork, place: Path) -> dict[str, torch.Tensor]:
    """The state without what only training needs. Raises InputError unless the rest is what the network has."""
    wanted = network.state_dict()
    given = {key: value for key, value in state.items() if key in wanted or not _idle(key)}
    faults = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unknown": sorted(given.keys() - wanted.keys()),
        "of another shape": sorted(
            f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}"
            for key in given.keys() & wanted.keys()
            if given[key].shape != wanted[key].shape
        ),
    }
    if any(faults.values()):
        told = "; ".join(f"{kind}: {_some(keys)}" for kind, keys in faults.items() if keys)
        fix = "hparams.yaml and the weights should be of one checkpoint"
        raise InputError(f"the weights are not those of the network in hparams.yaml: {told}", where=str(place), fix=fix)
    return {key: value.float() for key, value in given.items()}


def _idle(key: str) -> bool:
    """Whether weights of this name do nothing when a trained network scores: buffers of training, positions that
    transformers counts by itself, a pooler, and a tagger that hparams.yaml leaves out."""
    return key.startswith(
        ("encoder.model.pooler.", "layerwise_attention.dropout_", "sentloss.", "wordloss.", "hidden2tag.")
    ) or key.endswith(("embeddings.position_ids", "embeddings.token_type_ids"))


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
