"""Small twins of published models: the architecture's own class, tokenizer, template and special tokens, with few
layers and random weights."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squadron.core.errors import ConfigError
from squadron.rehearse.comet import make_comet_twin

if TYPE_CHECKING:
    from squadron.core.rehearsal import ModelKind

LAYERS, HEADS, HEAD_SIZE, EXPERTS = 2, 4, 16, 4
UNKNOWN_FAMILY = "qwen2.5"
"""Plays a model of which nothing is known."""
_HEAD = {"causal": "causal", "sequence": "sequence", "encoder": "none"}
_DESCRIBES = ("*.json", "*.txt", "*.model", "*.jinja", "*/config.json")
_HPARAMS = ("hparams.yaml",)
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx", ".index.json")
_HUB_TIMEOUT_S = 3.0


def make_twin(path: str, kind: ModelKind, folder: Path, labels: Sequence[str] = ()) -> str:
    """Write a small twin of the model at a hub name or in a folder of this machine, and say what it was made from.

    The configuration and the tokenizer are the model's own where they can be read: from the folder, or from the hub.
    Elsewhere they are those of its family, with a tokenizer trained on few texts, for which each of the `labels` is one
    token. Raises ConfigError where transformers cannot make so small a model of this architecture.
    """
    from squadron.train.models.families import find_family, make_family_model

    seed = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4])  # two models of one family differ
    if kind == "comet":
        return make_comet_twin(_own_files(path, _HPARAMS), path, folder, seed)
    source = _own_files(path)
    if source is not None:
        _shrink_folder(source, kind, folder, seed)
        return "its own configuration and tokenizer"
    family = find_family(path)
    base = family is not None and family.chats and family.is_base(path)
    make_family_model(folder, family or UNKNOWN_FAMILY, base=base, kind=kind, seed=seed, texts=list(labels) * 20)
    if family is None:
        return f"nothing is known of it here: a model of the family {UNKNOWN_FAMILY} plays it"
    return f"the family {family.name}{', base' if base else ''}"


def shrink_config(config: Any) -> Any:
    """transformers' configuration of a small model of the same architecture. Grouped queries stay grouped, each kind of
    layer stays, and so does the vocabulary."""
    heads = min(HEADS, _first(config, "num_attention_heads", "n_head") or HEADS)
    groups = max(1, (_first(config, "num_attention_heads") or 1) // (_first(config, "num_key_value_heads") or 1))
    kinds = list(dict.fromkeys(getattr(config, "layer_types", None) or ()))
    layers = max(LAYERS, len(kinds))
    sizes: dict[tuple[str, ...], int] = {
        ("num_hidden_layers", "n_layer"): layers,
        ("hidden_size", "n_embd", "d_model"): heads * HEAD_SIZE,
        ("intermediate_size", "n_inner"): 2 * heads * HEAD_SIZE,
        ("moe_intermediate_size", "shared_expert_intermediate_size"): heads * HEAD_SIZE,
        ("num_attention_heads", "n_head"): heads,
        ("num_key_value_heads",): max(1, heads // groups),
        ("query_pre_attn_scalar",): HEAD_SIZE,
        ("num_experts", "num_local_experts", "n_routed_experts"): EXPERTS,
        ("num_experts_per_tok",): 2,
        ("first_k_dense_replace",): 1,
        ("max_window_layers",): layers,
    }
    if not hasattr(config, "qk_rope_head_dim"):  # which head_dim stands for in latent attention
        sizes["head_dim",] = HEAD_SIZE
    if (getattr(config, "n_group", None) or 1) > 1:
        sizes |= {("n_group",): EXPERTS // 2, ("topk_group",): 1}
    for names, size in sizes.items():
        for name in names:
            if isinstance(getattr(config, name, None), int | float):
                setattr(config, name, size)
    if kinds:
        config.layer_types = [*kinds, *[kinds[-1]] * (layers - len(kinds))]
    return config


def _shrink_folder(source: str, kind: ModelKind, folder: Path, seed: int) -> None:
    """A twin with all files of the model but its weights."""
    import torch
    from transformers import AutoConfig

    from squadron.train.models.builders import auto_class
    from squadron.train.models.errors import explaining_load_errors

    shutil.copytree(
        source, folder, dirs_exist_ok=True, ignore=lambda _, names: [name for name in names if name.endswith(_WEIGHTS)]
    )
    with explaining_load_errors(source):
        config = shrink_config(AutoConfig.from_pretrained(source, trust_remote_code=False))
    torch.manual_seed(seed)
    try:
        model = auto_class(_HEAD[kind]).from_config(config)  # type: ignore[arg-type]
    except Exception as error:  # what a class makes of sizes that it does not expect
        what = f"no small model of {type(config).__name__} can be made: {error}"
        raise ConfigError(what, where=source, fix="rehearse with another model of its kind") from error
    if os.path.exists(os.path.join(source, "generation_config.json")):
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(source)
    model.save_pretrained(folder)


def _own_files(path: str, names: Sequence[str] = _DESCRIBES) -> str | None:
    """A folder with what describes the model: its own, or one that the hub was asked for."""
    if os.path.isdir(path):
        return path
    if not hub_answers():
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return snapshot_download(path, allow_patterns=list(names))
    except (HfHubHTTPError, HFValidationError, OSError):  # gated, or no such model
        return None


@functools.cache
def hub_answers() -> bool:
    """Whether the hub can be reached, asked once."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def _first(config: Any, *names: str) -> int | None:
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), None)
