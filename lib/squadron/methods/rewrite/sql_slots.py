"""What a SQL query asks for, as slots: its columns, values, aggregates, grouping, order and limit.

For conversations about a database whose turns come with SQL (SParC): a slot that one turn's SQL and the next one's have
is kept, and a rewrite has to say it if a query has said it. Words of the schema are compared as words, so a slot that
nobody has named is no slot to check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from squadron.methods.rewrite.slots import share_said

_TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"|[A-Za-z_][\w.]*|\d+(?:\.\d+)?|[^\s\w]")
_KEYWORDS = {
    "select", "from", "where", "group", "order", "by", "having", "limit", "and", "or", "not", "in", "like", "between",
    "as", "on", "join", "distinct", "asc", "desc", "union", "intersect", "except", "is", "null", "exists", "inner",
    "left", "outer",
}  # fmt: skip
_SPOKEN = {
    "count": ("how many", "number", "count"), "max": ("maximum", "most", "highest", "largest", "oldest", "max"),
    "min": ("minimum", "least", "lowest", "smallest", "youngest", "min"), "avg": ("average", "mean"),
    "sum": ("total", "sum"), "desc": ("descending", "most", "highest", "largest", "decreasing"),
    "asc": ("ascending", "least", "lowest", "smallest", "alphabetical", "increasing"),
}  # fmt: skip
Slot = tuple[str, str]
"""A part of a query, and what stands there: `("where", "airline")`, `("value", "jetblue airways")`."""


def sql_slots(sql: str) -> frozenset[Slot]:
    """The slots of a query, with those of queries inside it. Names are lower case, without the tables before them."""
    tokens = _TOKEN.findall(sql)
    return frozenset(_slots(tokens, _aliases(tokens)))


def kept_slots(earlier: Sequence[str], before: str, now: str) -> tuple[tuple[str, ...], ...]:
    """Slots that the SQL `before` and that of `now` have, and that a query of `earlier` turns names: each as the texts
    of which a rewrite has to hold one."""
    said = " . ".join(earlier)
    slots = [spoken(one) for one in sorted(sql_slots(before) & sql_slots(now))]
    return tuple(dict.fromkeys(one for one in slots if one and share_said([one], said) == 1.0))


def spoken(slot: Slot) -> tuple[str, ...]:
    """The texts by which a question names a slot."""
    part, name = slot
    if part in ("aggregate", "direction"):
        return _SPOKEN.get(name, ())
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("_", " ").replace("%", " ").strip()
    return (words,) if words else ()


def _aliases(tokens: Sequence[str]) -> frozenset[str]:
    """Names that stand for tables, as in `airlines AS T1`."""
    pairs = pairwise(tokens)
    return frozenset(after.lower() for word, after in pairs if word.lower() == "as")


def _slots(tokens: Sequence[str], aliases: frozenset[str]) -> Iterator[Slot]:
    part, before, outer = "select", "", list[str]()
    for token, after in zip(tokens, [*tokens[1:], ""], strict=True):
        low = token.lower()
        if low in ("select", "from", "where", "group", "order", "having", "limit"):
            part = low
        elif low in ("join", "on"):
            part = {"join": "from"}.get(low, "on")
        elif low == "(":
            outer.append(part)
        elif low == ")":
            part = outer.pop() if outer else part
        elif low in ("asc", "desc"):
            yield "direction", low
        elif low in _SPOKEN and after == "(":
            yield "aggregate", low
        elif token[0] in "'\"":
            yield "value", token[1:-1].lower()
        elif token[0].isdigit():
            yield ("limit" if part == "limit" else "value"), token
        elif low not in _KEYWORDS and (token[0].isalpha() or token[0] == "_") and part not in ("from", "on"):
            name = low.rpartition(".")[2]
            if name not in aliases:
                yield part, name
        elif part == "from" and low not in _KEYWORDS and token[0].isalpha() and "." not in low and before != "as":
            yield "table", low
        before = low
