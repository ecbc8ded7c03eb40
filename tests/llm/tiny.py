"""A chat model small enough to be made for a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def store_tiny_chat(folder: Path, words: Sequence[str], context: int = 96, vocabulary: int = 300) -> str:
    """A Llama of two layers with random weights, its tokenizer and a chat template, in `folder`; returns its path."""
    import torch

    from squadron.train.models import FromConfig
    from squadron.train.tokenizer import train_tokenizer

    folder.mkdir()
    size: dict[str, Any] = {"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 128}
    known = train_tokenizer(words, vocabulary, folder)
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "eos_token_id": 1}
    FromConfig(vocabulary=known, context=context, special_tokens=special, **size)().save_pretrained(folder)
    return str(folder)
