"""Texts given as words, next to a second text: token ids, and where each word begins among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

Cut = Literal["start", "end"]
"""Which words go where a text is longer than its window: those at its start, such as the oldest of a history, or those
at its end."""


class WordTokens(NamedTuple):
    """A text as a model reads it: its token ids; where its second segment begins; the number of the first word that was
    read; and the places of the first token of each word that was read."""

    ids: list[int]
    second: int
    first_word: int
    places: list[int]


class WordReader:
    """Reads words with a tokenizer, which puts its own marks about one text or two.

    Every word has at least one token: one that the tokenizer makes nothing of stands as an unknown word. `max_length`
    tokens are read, by whole words; of the second text at least half as many, if it has them.
    """

    def __init__(self, tokenizer: Any, max_length: int, cut: Cut) -> None:
        self._tokenizer, self._cut = tokenizer, cut
        self._alone, self._paired = _marks(tokenizer("a")), _marks(tokenizer("a", "a"))
        self._unknown = tokenizer.unk_token_id if tokenizer.unk_token_id is not None else tokenizer.eos_token_id
        self._max_length = max_length

    def read(self, rows: Sequence[Mapping[str, Any]]) -> list[WordTokens]:
        """Rows of `words`, a list, and `second`, a text or None."""
        pieces = self._pieces({word for row in rows for word in row["words"]}, " ")
        seconds = self._pieces({row["second"] for row in rows if row.get("second")}, "")
        return [
            self._row([pieces[word] for word in row["words"]], seconds.get(row.get("second") or "")) for row in rows
        ]

    def _pieces(self, texts: Iterable[str], before: str) -> dict[str, list[int]]:
        """Token ids of each text; a space before a word is what makes it one for tokenizers that keep spaces."""
        known = sorted(texts)
        if not known:
            return {}
        ids = self._tokenizer([before + text for text in known], add_special_tokens=False)["input_ids"]
        return {text: list(made) or [self._unknown] for text, made in zip(known, ids, strict=True)}

    def _row(self, words: list[list[int]], second: list[int] | None) -> WordTokens:
        marks = self._alone if second is None else self._paired
        room = self._max_length - sum(map(len, marks))
        kept = (second or [])[: max(room // 2, room - sum(map(len, words)))]
        first, last = self._whole(words, room - len(kept))
        ids, places = list(marks[0]), []
        for word in words[first:last]:
            places.append(len(ids))
            ids += word[: room - len(kept)]
        ids += marks[1]
        begin = len(ids)
        if second is not None:
            ids += [*kept, *marks[2]]
        return WordTokens(ids, begin, first, places)

    def _whole(self, words: Sequence[list[int]], room: int) -> tuple[int, int]:
        """The words that fit, as a range: one at least, which is cut itself where it alone is too long."""
        used = count = 0
        for word in words if self._cut == "end" else reversed(words):
            used += len(word)
            if used > room and count:
                break
            count += 1
            if used > room:
                break
        return (0, count) if self._cut == "end" else (len(words) - count, len(words))


def _marks(encoded: Any) -> list[list[int]]:
    """What stands before, between and behind texts of one token each."""
    marks: list[list[int]] = [[]]
    for token, text in zip(encoded["input_ids"], encoded.sequence_ids(0), strict=True):
        if text is None:
            marks[-1].append(token)
        elif not marks[text + 1 :]:
            marks.append([])
    return marks
