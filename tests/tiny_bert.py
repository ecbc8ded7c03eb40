"""A BERT small enough to be made for a test, with a tokenizer of words and letters."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPECIAL = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(words: Sequence[str]) -> Any:
    """Lower-cased WordPiece, whose every word can be spelt."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits + string.punctuation
    known = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *(w for w in words if len(w) > 1)]
    tokens = {token: place for place, token in enumerate(dict.fromkeys(known))}
    backend = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", tokens["[SEP]"]), ("[CLS]", tokens["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


def make_bert(folder: Path, words: Sequence[str], head: str = "BertModel", **settings: Any) -> str:
    """A BERT of two layers with random weights, far enough from zero to tell texts apart, under this class."""
    import torch
    import transformers

    tokenizer = make_tokenizer(words)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.3, **settings,
    )  # fmt: skip
    torch.manual_seed(0)
    getattr(transformers, head)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
