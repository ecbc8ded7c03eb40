"""Small models of random weights, on disk as transformers loads them: where a job starts from nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

from squadron.core.config import Config
from squadron.core.folder import Folder
from squadron.train.models.builders import local_folder

Architecture = Literal["llama", "gpt_neox", "qwen3"]


class Size(Config):
    """How large a small model is, and how it begins."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    context: int
    initializer_range: float
    rope_theta: float


def store_untrained(
    folder: Folder, name: str, tokenizer: str, size: Size, seed: int, architecture: Architecture = "llama"
) -> tuple[str, int]:
    """Make a causal model with random weights for a tokenizer, and store both in `folder / name`. The path that they
    load from, and the number of parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    words = AutoTokenizer.from_pretrained(local_folder(tokenizer))
    settings: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": size.hidden_size,
        "intermediate_size": size.intermediate_size,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "max_position_embeddings": size.context,
        "initializer_range": size.initializer_range,
        "tie_word_embeddings": True,
        "pad_token_id": words.pad_token_id,
        "eos_token_id": words.eos_token_id,
        "bos_token_id": None,
    }
    if architecture != "gpt_neox":
        settings["num_key_value_heads"] = size.heads
        settings["rope_parameters"] = {"rope_type": "default", "rope_theta": size.rope_theta}
    if architecture == "qwen3":
        settings["head_dim"] = size.hidden_size // size.heads
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings))
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        words.save_pretrained(scratch)
        for file in sorted(Path(scratch).iterdir()):
            folder.put(f"{name}/{file.name}", str(file))
    return folder.file(name), sum(weight.numel() for weight in model.parameters())
