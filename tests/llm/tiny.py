"""A chat model small enough to be made for a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Adapted:
    """A model, LoRA adapters over it by name ("" for the model itself), and each merged into a model of its own."""

    base: str
    adapters: dict[str, str] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)


def store_tiny_adapters(folder: Path, base: str) -> Adapted:
    """Two adapters with random weights, large enough to change answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = Adapted(base, {"base": ""}, {"base": base})
    for number, targets in enumerate((["q_proj", "v_proj"], ["o_proj", "down_proj"])):
        torch.manual_seed(number)
        settings = LoraConfig(
            r=4, lora_alpha=64, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM"
        )
        model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
        name = f"model.{number}"  # peft's own names may hold no dot
        model.save_pretrained(folder / name)
        merged = folder / f"{name}-merged"
        model.merge_and_unload().save_pretrained(merged)
        AutoTokenizer.from_pretrained(base).save_pretrained(merged)
        found.adapters[name], found.merged[name] = str(folder / name), str(merged)
    return found


def store_tiny_chat(
    folder: Path, words: Sequence[str], context: int = 96, vocabulary: int = 300, heads: int = 4
) -> str:
    """A Llama of two layers with random weights, its tokenizer and a chat template, in `folder`; returns its path."""
    import torch

    from squadron.train.models.builders import FromConfig
    from squadron.train.text.tokenizer import train_tokenizer

    folder.mkdir()
    size: dict[str, Any] = {
        "hidden_size": 64,
        "layers": 2,
        "heads": heads,
        "kv_heads": heads // 2,
        "intermediate_size": 128,
    }
    known = train_tokenizer(words, vocabulary, folder)
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "eos_token_id": 1}
    FromConfig(vocabulary=known, context=context, special_tokens=special, **size)().save_pretrained(folder)
    return str(folder)
