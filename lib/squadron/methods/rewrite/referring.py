"""Rules on words that point to what was said before: which queries need their conversation, and what they point to.

The kinds are those of the companion paper (arXiv 2502.00537): a word that points elsewhere, and a question that leaves
out what it is about. Rules see no ambiguity of meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from squadron.methods.rewrite.records import Pair, Turn
from squadron.methods.rewrite.slots import Slots, merge, read_slots, write

_POSSESSIVE = ("its", "their", "his", "her")
_POINTING_WORDS = """
it its they them their theirs he him his she her hers this that these those there one ones other others another else
same former latter such then"""
_FUNCTION_WORDS = """
a about am an and any are as at be been but by can could did do does for from had has have how i if in is it its me
much many my of on or please so some tell that the their them there these they this those to us was we were what when
where which who whom whose why will with would you your give show know want like think explain describe he she his her
him made make get got main best most used use"""
_POINTING, _FUNCTION = frozenset(_POINTING_WORDS.split()), frozenset(_FUNCTION_WORDS.split())
_BEYOND = re.compile(r"\b(too|instead|also|as well|again|anymore|more|besides|first|second|next)\b", re.IGNORECASE)


def points_elsewhere(turn: Turn) -> bool:
    """Whether a query has a word that points to what was said before, or names too little to be about anything."""
    words = re.findall(r"[\w'-]+", turn.query.lower())
    content = [word for word in words if word.removesuffix("'s") not in _FUNCTION]
    pointing = any(word.removesuffix("'s") in _POINTING for word in words)
    slots, adds = read_slots(turn.query)
    partial = about_figures(turn) and (adds or not (slots.metrics and slots.dimension))
    bare = len(content) <= 1 or bool(_BEYOND.search(turn.query))
    return pointing or partial or bare or turn.query.lower().startswith(("and ", "what about", "how about", "but "))


def rewrite_by_rule(turn: Turn) -> str:
    """Slots carried on where the conversation is about figures, else the first pointing word replaced by what was last
    named, which stands at the end where there is no such word."""
    if about_figures(turn):
        return write(merge(slots_of(turn.history), turn.query))
    named = topic([text for pair in reversed(turn.history) for text in (pair.response, pair.query)])
    if not named or not points_elsewhere(turn):
        return turn.query
    query, count = _PRONOUN.subn(lambda found: _in_place(found[0], named), turn.query, count=1)
    if count or named.lower() in turn.query.lower():
        return query
    ending = re.search(r"[?.!]?\s*$", turn.query)
    assert ending is not None
    return f"{turn.query[: ending.start()]} of {named}{ending[0].strip()}"


def about_figures(turn: Turn) -> bool:
    """Whether a query and its history fill two slots of a question about figures: one alone may be any word."""
    return sum(map(bool, vars(merge(slots_of(turn.history), turn.query)).values())) > 1


def slots_of(history: Sequence[Pair]) -> Slots:
    """The slots after earlier turns. Under Fusion each output is a whole question, which stands for all before it."""
    slots = Slots()
    for pair in history:
        slots = merge(merge(slots, pair.query), pair.response)
    return slots


def topic(texts: Sequence[str]) -> str:
    """What is named in the first text that names something: its longest run of capitals, else of words that are no
    function words. Only short texts are looked at: a long answer names too much."""
    for text in texts:
        if not text or len(text) > _LONGEST:
            continue
        capitals = re.findall(r"(?<!^)(?<![.?!] )\b[A-Z][\w'-]*(?: (?:of |the |and )?[A-Z][\w'-]*)*", text)
        if capitals:
            return max(capitals, key=len).removesuffix("'s")
        runs = [run.strip() for run in re.split(_GAPS, text) if run.strip()]
        if runs:
            return max(runs, key=lambda run: (len(run.split()), len(run)))
    return ""


def _in_place(pronoun: str, named: str) -> str:
    return f"{named}'s" if pronoun.lower() in _POSSESSIVE else named


_LONGEST = 200
_PRONOUN = re.compile(r"\b(its|it|they|them|their|he|him|his|she|her|this one|that one|these|those)\b", re.I)
_GAPS = re.compile(rf"[^\w' -]+|\b(?:{'|'.join(sorted(_FUNCTION | _POINTING))})\b(?:'s)?", re.I)
