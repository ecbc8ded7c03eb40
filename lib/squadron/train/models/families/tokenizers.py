"""Tokenizers that cut texts as those of a family do, trained on few texts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from squadron.train.models.families.family import Family

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {
    "llama3": rf"{_ENDINGS}|{_WORD}|\p{{N}}{{1,3}}|{_REST}",
    "qwen": rf"{_ENDINGS}|{_WORD}|\p{{N}}|{_REST}",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDINGS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDINGS}?"
    rf"|\p{{N}}{{1,3}}|{_REST}",
}
"""Regular expressions of tiktoken's and Qwen's tokenizers, as their tokenizer.json states them."""
_BYTES = [f"<0x{value:02X}>" for value in range(256)]


def train_family_tokenizer(family: Family, texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A tokenizer of the family with at most `vocabulary` tokens, each of its special tokens one of them."""
    match family.splitting:
        case "wordpiece" | "unigram":
            tokenizer = _encoder_tokenizer(family, texts, vocabulary)
        case _:
            tokenizer = _merging_tokenizer(family, texts, vocabulary)
    return tokenizer


def _merging_tokenizer(family: Family, texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-pair merges over bytes, special tokens last; or over characters, special tokens and bytes first."""
    from tokenizers import AddedToken, Tokenizer, models, trainers

    spaced = family.splitting in ("gemma", "sentencepiece")
    front = [*family.tokens(), *_BYTES] if spaced else []
    count = vocabulary - len(front or family.tokens()) - len(family.words)
    learner = Tokenizer(models.BPE())
    shape(learner, family)
    alphabet = [] if spaced else _byte_alphabet()
    trainer = trainers.BpeTrainer(vocab_size=count, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=learnt["vocab"].__getitem__)
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys([*front, *pieces]))}
    merges = [tuple(merge) for merge in learnt["merges"]]
    options: dict[str, Any] = {"byte_fallback": True, "fuse_unk": True, "unk_token": family.unk} if spaced else {}
    tokenizer = Tokenizer(models.BPE(vocab, merges, **options))
    shape(tokenizer, family)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.tokens()])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in family.words])
    if family.adds_bos and family.bos is not None:
        tokenizer.post_processor = _begins_with(family.bos, tokenizer)
    return tokenizer


def shape(tokenizer: Tokenizer, family: Family) -> None:
    """Give a tokenizer the family's way to normalise, cut and decode."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    match family.splitting:
        case "gemma":
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
            tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
            tokenizer.decoder = decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
            )
        case "sentencepiece":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
            back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            tokenizer.decoder = decoders.Sequence(back)
        case "gpt2" | "digits":
            words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
            digits = [pre_tokenizers.Digits(individual_digits=True)] if family.splitting == "digits" else []
            tokenizer.normalizer = normalizers.NFC()
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, words])
            tokenizer.decoder = decoders.ByteLevel()
        case kind:
            if kind == "qwen":
                tokenizer.normalizer = normalizers.NFC()
            split = pre_tokenizers.Split(Regex(_PATTERNS[kind]), "isolated")
            level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
            tokenizer.decoder = decoders.ByteLevel()


def _encoder_tokenizer(family: Family, texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """BERT's word pieces or XLM-RoBERTa's unigrams, whose texts begin with `cls` and end with `sep`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    assert family.cls is not None and family.sep is not None
    specials = family.tokens()
    trainer: Any
    if family.splitting == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=family.unk))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=specials, show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=vocabulary, special_tokens=specials, unk_token=family.unk, show_progress=False
        )
    tokenizer.train_from_iterator(texts, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in (family.cls, family.sep)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{family.cls} $A {family.sep}",
        pair=f"{family.cls} $A {family.sep} $B {family.sep}",
        special_tokens=list(ids.items()),
    )
    return tokenizer


def _begins_with(bos: str, tokenizer: Tokenizer) -> Any:
    from tokenizers import processors

    return processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def _byte_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())
