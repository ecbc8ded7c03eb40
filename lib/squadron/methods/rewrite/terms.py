"""Which earlier words a rewrite takes up, and where it puts them: as tags of words, read off a person's rewrite, and
the rewrite that tags stand for.

Words of the history are left or taken; words of the query are left, swapped for what is taken, or have it put before
them. Taking words is term classification as in QuReTeC (arXiv 2005.11723), which appends them; that they are put where
they serve is ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np

from squadron.methods.rewrite.records import Turn

TAGS = ("leave", "take", "swap", "before")
LEAVE, TAKE, SWAP, BEFORE = TAGS
SEPARATOR = "|"
"""Stands between what was said at different times, and before the query."""
RESPONSE_WORDS = 40
"""Words of the last response that are looked at; of earlier ones none is."""
_POSSESSIVE_WORDS = "his her their its whose my your our"
_PRONOUN_WORDS = "he she it they him her them his its their this that these those one ones there hers theirs"
_FUNCTION_WORDS = """
a an the of in on at to for from by with and or but as is are was were be been do does did has have had what when where
which who whom why how i you we not no any about into over after before than then so if also other another would could
can will should may might s t"""
_POSSESSIVE, _PRONOUNS = frozenset(_POSSESSIVE_WORDS.split()), frozenset(_PRONOUN_WORDS.split())
_PLAIN = frozenset(_FUNCTION_WORDS.split()) | _PRONOUNS | _POSSESSIVE


class Laid(NamedTuple):
    """A turn as words: those of the history with separators, then those of the query, which begin at `query`."""

    words: list[str]
    query: int


def lay_out(turn: Turn) -> Laid:
    """All earlier queries and the beginning of the last response, and the query."""
    words: list[str] = []
    for place, pair in enumerate(turn.history):
        words += [*split(pair.query), SEPARATOR]
        if place == len(turn.history) - 1 and pair.response:
            words += [*split(pair.response)[:RESPONSE_WORDS], SEPARATOR]
    return Laid([*words, *split(turn.query)], len(words))


def split(text: str) -> list[str]:
    """Words and marks. A possessive ending is a word of its own."""
    return re.findall(r"'s\b|[\w&]+(?:[-.'’](?!s\b)[\w&]+)*|[^\w\s]", text)


def align(turn: Turn) -> list[str]:
    """The tag of each word of the turn as it is laid out, from the person's rewrite.

    What the rewrite has and the query lacks is looked for in the history; of each such stretch the longest runs of
    words that were said are taken, wherever they were said, if one of their words bears meaning.
    """
    laid = lay_out(turn)
    history, query = laid.words[: laid.query], laid.words[laid.query :]
    rewrite = split(turn.reference or "")
    tags = [LEAVE] * len(laid.words)
    known, said = [word.lower() for word in query], [word.lower() for word in history]
    matcher = SequenceMatcher(None, known, [word.lower() for word in rewrite], autojunk=False)
    for kind, first, last, begin, end in matcher.get_opcodes():
        if kind not in ("insert", "replace") or not _take(said, [word.lower() for word in rewrite[begin:end]], tags):
            continue
        if kind == "replace":
            for place in range(first, last):
                tags[laid.query + place] = SWAP
        elif first < len(query):
            tags[laid.query + first] = BEFORE
    return tags


def _take(said: Sequence[str], added: Sequence[str], tags: list[str]) -> bool:
    """Tag the longest runs of added words that were said, from left to right. Whether there are any."""
    found, begin = False, 0
    while begin < len(added):
        size = next((n for n in range(len(added) - begin, 0, -1) if _places(said, added[begin : begin + n])), 0)
        run = added[begin : begin + size]
        if any(bears_meaning(word) for word in run):
            found = True
            for place in _places(said, run):
                tags[place : place + size] = [TAKE] * size
        begin += max(1, size)
    return found


def _places(said: Sequence[str], run: Sequence[str]) -> list[int]:
    return [n for n in range(len(said) - len(run) + 1) if list(said[n : n + len(run)]) == list(run)]


def bears_meaning(word: str) -> bool:
    """Whether a word is more than a mark, a pronoun or a function word."""
    return word.lower() not in _PLAIN and any(letter.isalnum() for letter in word)


class Thresholds(NamedTuple):
    """From which probability on a word is taken, and one of the query swapped or something put before it."""

    take: float = 0.5
    put: float = 0.5
    phrases: int = 2


def compose(laid: Laid, probabilities: np.ndarray, thresholds: Thresholds, query: str) -> str:
    """The rewrite that probabilities (words, tags) stand for. Words that were cut off have NaN and are left.

    Phrases are runs of taken words. The likeliest stands where a word is swapped or has something put before it, else
    in place of the first pronoun; the others, and it where there is no such place, stand behind the query.
    """
    phrases = find_phrases(laid, probabilities, thresholds)
    if not phrases:
        return query
    words = laid.words[laid.query :]
    edits = _edits(words, np.nan_to_num(probabilities[laid.query :]), thresholds)
    out: list[str] = []
    put = False
    for place, word in enumerate(words):
        kind, first = edits.get(place, (LEAVE, False))
        if kind == LEAVE:
            out.append(word)
            continue
        if first:
            ending = ["'s"] if kind == SWAP and word.lower() in _POSSESSIVE and _owns(words, place) else []
            out += [*phrases[0], *ending]
            put = True
        if kind == BEFORE:
            out.append(word)
    rest = phrases[1:] if put else phrases
    ending = [out.pop()] if out and out[-1] in "?.!" else []
    for phrase in rest:
        out += phrase
    return join([*out, *ending])


def find_phrases(laid: Laid, probabilities: np.ndarray, thresholds: Thresholds) -> list[list[str]]:
    """Runs of taken words, the likeliest first, but for those that have no word beyond the query and likelier ones."""
    take_W = np.nan_to_num(probabilities[: laid.query, TAGS.index(TAKE)])
    runs: list[tuple[float, list[str]]] = []
    place = 0
    while place < laid.query:
        end = place
        while end < laid.query and take_W[end] >= thresholds.take and laid.words[end] != SEPARATOR:
            end += 1
        if end > place:
            runs.append((float(take_W[place:end].max()), laid.words[place:end]))
        place = end + 1
    seen = {word.lower() for word in laid.words[laid.query :]}
    phrases: list[list[str]] = []
    for _, run in sorted(runs, key=lambda one: -one[0]):
        new = {word.lower() for word in run if bears_meaning(word)} - seen
        if new and len(phrases) < thresholds.phrases:
            phrases.append(run)
            seen |= new
    return phrases


def _edits(words: Sequence[str], tags_QT: np.ndarray, thresholds: Thresholds) -> dict[int, tuple[str, bool]]:
    """What happens at a word of the query, and whether the phrase is put there; a run of swapped words is one place."""
    edits: dict[int, tuple[str, bool]] = {}
    swap_Q, before_Q = (tags_QT[:, TAGS.index(tag)] for tag in (SWAP, BEFORE))
    for place in range(len(words)):
        if swap_Q[place] >= thresholds.put and swap_Q[place] >= before_Q[place]:
            edits[place] = (SWAP, edits.get(place - 1, (LEAVE, False))[0] != SWAP)
    if not edits and len(words) and before_Q.max() >= thresholds.put:
        edits[int(before_Q.argmax())] = (BEFORE, True)
    if not edits:
        pronouns = [place for place, word in enumerate(words) if word.lower() in _PRONOUNS - {"this", "that", "there"}]
        edits.update({place: (SWAP, True) for place in pronouns[:1]})
    return edits


def _owns(words: Sequence[str], place: int) -> bool:
    """Whether a possessive stands before what is owned: `her` is one of two, and is an object at an end."""
    return place + 1 < len(words) and bears_meaning(words[place + 1])


def join(words: Sequence[str]) -> str:
    """A text of words and marks."""
    text = " ".join(words)
    text = re.sub(r" (['’]s\b|[?.!,;:%)\]])", r"\1", text)
    return re.sub(r"([(\[$]) ", r"\1", text)
