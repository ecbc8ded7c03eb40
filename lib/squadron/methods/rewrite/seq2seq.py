"""Sequence-to-sequence models as rewriters: what was said and the query in, the rewrite out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from squadron.methods.rewrite.records import Turn
from squadron.train.models.seq2seq import Seq2Seq
from squadron.train.text.tokenizer import load_tokenizer

SEPARATOR = " ||| "
"""What castorini's T5 rewriters were trained with, between what was said and before the query."""
RESPONSE_CHARACTERS = 240
"""Of the last response; earlier ones are left out."""
LONGEST = 64
"""Tokens of a rewrite."""


def conversation_text(turn: Turn) -> str:
    """All earlier queries and the beginning of the last response, the earliest first, and then the query."""
    said = [pair.query for pair in turn.history]
    if turn.history and turn.history[-1].response:
        said.append(turn.history[-1].response[:RESPONSE_CHARACTERS])
    return SEPARATOR.join([*said, turn.query])


class Seq2SeqRewriter:
    """Rewrites turns by an encoder-decoder model at a hub name or in a folder, by beam search without chance.

    `copies` is added to the score of every token that stands in what is read: words of rewrites nearly all do. Texts
    beyond `max_length` tokens lose their oldest. A query without history stays as it is, and so does one for which
    nothing is written.
    """

    def __init__(
        self, path: str, *, max_length: int = 256, beams: int = 4, copies: float = 0.0, max_new_tokens: int = LONGEST,
        device: str = "cpu",
    ) -> None:  # fmt: skip
        self._model, self._tokenizer = Seq2Seq(path)().eval().to(device), load_tokenizer(path)
        self._tokenizer.truncation_side = self._tokenizer.padding_side = "left"
        self._max_length, self._beams, self._copies, self._device = max_length, beams, copies, device
        self._max_new_tokens = max_new_tokens

    def rewrite(self, turns: Sequence[Turn], batch_size: int = 32) -> list[str]:
        """A rewrite for each, in their order."""
        texts = [conversation_text(turn) for turn in turns]
        found = [turn.query for turn in turns]
        asked = sorted((n for n, turn in enumerate(turns) if turn.history), key=lambda n: len(texts[n]))
        for start in range(0, len(asked), batch_size):
            some = asked[start : start + batch_size]
            for place, text in zip(some, self._write([texts[n] for n in some]), strict=True):
                found[place] = text.strip() or found[place]
        return found

    def _write(self, texts: list[str]) -> list[str]:
        import torch
        from transformers import LogitsProcessorList

        read = self._tokenizer(texts, padding=True, truncation=True, max_length=self._max_length, return_tensors="pt")
        ids, mask = read["input_ids"].to(self._device), read["attention_mask"].to(self._device)
        favour = LogitsProcessorList([_Copying(ids, self._copies)] if self._copies else [])
        with torch.no_grad():
            written = self._model.generate(
                input_ids=ids, attention_mask=mask, num_beams=self._beams, do_sample=False,
                max_new_tokens=self._max_new_tokens, logits_processor=favour,
            )  # fmt: skip
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        return list(texts)


class _Copying:
    """Adds to the scores of tokens that stand in the text of a row; each text has a row for every beam."""

    def __init__(self, ids: Any, bonus: float) -> None:
        self._ids, self._bonus = ids, bonus

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        rows = self._ids.repeat_interleave(len(scores) // len(self._ids), 0)
        return scores + torch.zeros_like(scores).scatter_(1, rows, self._bonus)
