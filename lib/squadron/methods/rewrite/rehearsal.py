"""Conversations made up for a rehearsal, where those that a configuration names cannot be read here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from squadron.core.rehearsal import Replies

REPLIES: Replies = (("Rewritten query:", ("Show monthly revenue by country.", "What is throat cancer?")),)
_THINGS = ("throat cancer", "a garage door opener", "the Neolithic revolution", "a tool box", "an electric car")
_ASKS = (
    ("What is {0}?", "What is {0}?"),
    ("What does it cost?", "What does {0} cost?"),
    ("Who needs it?", "Who needs {0}?"),
)
CONVERSATIONS = 10


def made_up_logs(name: str) -> str:
    """Lines of `{conversation, turns}`, with rewrites and passages."""
    rows = []
    for number in range(CONVERSATIONS):
        thing = _THINGS[number % len(_THINGS)]
        turns = [
            {
                "query": query.format(thing),
                "response": f"It is said of {thing}, in answer {place}.",
                "rewrite": rewrite.format(thing),
                "passages": [f"p{number % len(_THINGS)}"],
            }
            for place, (query, rewrite) in enumerate(_ASKS)
        ]
        rows.append({"conversation": f"{name}-{number}", "turns": turns})
    return _lines(rows)


def made_up_passages() -> str:
    """Lines of `{id, text}` for these turns."""
    return _lines(
        [{"id": f"p{number}", "text": f"All there is to know of {one}."} for number, one in enumerate(_THINGS)]
    )


def _lines(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)
