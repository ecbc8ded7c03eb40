"""Tools and queries made up for a rehearsal, where those that a configuration names cannot be read here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from squadron.core.rehearsal import Replies

REPLIES: Replies = (
    ("An instruction tells a search engine", ("Given a task, retrieve tools that do it.",)),
    ("Answer with the calls", ('[{"name": "tool_1", "arguments": {}}]', "I cannot.")),
    ("Rank them by their relevance", ("[2] > [1] > [3]", "[1] > [3] > [2]")),
    ("Score: ", tuple(f"Score: {mark}" for mark in range(1, 6))),
)
TOOLS, QUERIES = 40, 12
_DOES = ("adds two numbers", "tells the weather of a city", "sends a message", "sorts a list", "draws a chart")


def made_up_tools(category: str) -> str:
    """Lines of `{id, documentation}`."""
    rows = []
    for number in range(TOOLS):
        does = f"{_DOES[number % len(_DOES)]}, in way {number}"
        documentation = {"name": f"tool_{number}", "description": f"This {category} tool {does}.", "parameters": {}}
        rows.append({"id": f"{category}_{number}", "documentation": json.dumps(documentation)})
    return _lines(rows)


def made_up_queries(category: str, file: int) -> str:
    """Lines of `{id, query, instruction, labels}`, labels as the JSON text that ToolRet has."""
    rows = []
    for number in range(QUERIES):
        does = _DOES[number % len(_DOES)]
        labels = [{"id": f"{category}_{number}", "relevance": 1}]
        rows.append(
            {
                "id": f"{category}_query_{file}_{number}",
                "query": f"I need something that {does}, number {number}.",
                "instruction": f"Given a task, retrieve tools: one that {does}.",
                "labels": json.dumps(labels),
            }
        )
    return _lines(rows)


def made_up_run(categories: tuple[str, ...]) -> str:
    """Lines of `{id, tools}` for these queries."""
    rows = [
        {"id": f"{category}_query_0_{number}", "tools": [f"{category}_{(number + n) % TOOLS}" for n in range(10)]}
        for category in categories
        for number in range(QUERIES)
    ]
    return _lines(rows)


def made_up_rows() -> Iterator[dict[str, Any]]:
    """Rows of a training set as it is published: documents as the text of Python dictionaries."""
    tools = [repr({"name": f"other_{number}", "description": does}) for number, does in enumerate(_DOES)]
    for number in range(QUERIES):
        place = number % len(tools)
        prompt = f"Given a task, retrieve tools: one that {_DOES[place]}."
        others = tools[:place] + tools[place + 1 :]
        yield {"query": f"Who {_DOES[place]}, {number}?", "pos": [tools[place]], "neg": others, "prompt": prompt}


def made_up_calls() -> Iterator[dict[str, Any]]:
    """Calls that are right for the queries of the first file."""
    for number in range(QUERIES):
        query = f"I need something that {_DOES[number % len(_DOES)]}, number {number}."
        yield {"query": query, "calling": [{"api": f"tool_{number}", "parameters": {}, "responses": ["API_call_0"]}]}


def _lines(rows: Sequence[Mapping[str, object]]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)
