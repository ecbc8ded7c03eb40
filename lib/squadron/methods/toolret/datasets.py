"""Tools and queries as people publish them, each with the file and line where it stands.

| a tool's record | its id |
|---|---|
| `{id, documentation}`, a text or an object (ToolRet, and others made alike) | `id` |
| `{api_name, api_description, …}` (Seal-Tools) | `api_name` |
| `{type: function, function: {name, …}}` (OpenAI), `{name, description, …}` (MCP), `{tools: […]}` of these | `name` |
| one object `{name: description, …}` (MetaTool) | the name |

| a query's record | its tools |
|---|---|
| `{id, query, instruction, labels}` (ToolRet) | `labels`: a JSON text or a list of `{id, relevance}`, or of ids |
| `{Query, Tool}` (MetaTool) | `Tool`; rows of one query are merged |
| `{query, tool: […]}` (MetaTool, several tools) | `tool` |
| `{id, query, calling: [{api}]}` (Seal-Tools) | `api` of each call |

The text of a tool is its documentation as it stands; of an object, its JSON.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from squadron.core.errors import InputError
from squadron.data.record_files import RecordsPath, read_json_text
from squadron.data.records import Record, read_records
from squadron.methods.toolret.config import QueriesConfig, ToolsConfig

_TOOL_FORMATS = "give {id, documentation}, {name, description, …}, or a function as OpenAI's interface has it"
_QUERY_FORMATS = "give {id, query, labels: [tool ids]}; README.md lists the other formats"
_DESCRIPTIONS = ("description", "api_description", "functionality")
_BLANK = re.compile(r"""['"]description['"]\s*:\s*(['"])\s*\1""")
"""In a documentation that is a text: JSON or a Python dictionary."""


@dataclass(frozen=True)
class Tool:
    """A tool, where it stands, and the value by which it is one with others."""

    id: str
    name: str
    text: str
    described: bool
    merged_by: str
    where: str


@dataclass(frozen=True)
class Asked:
    """A query with the grades of the tools that it needs, and where it stands."""

    id: str
    text: str
    instruction: str | None
    labels: Mapping[str, int]
    task: str
    where: str


def read_tools(config: ToolsConfig) -> Iterator[Tool]:
    """The tools of a file, in its order. Raises InputError, with file and line, for a record that is none."""
    for place, subset, _ in places(config.path, (config.subset,) if config.subset else ()):
        for record in read_records(place, config.split, subset):
            for one in _split(record):
                yield _tool(one, config.merge)


def read_queries(config: QueriesConfig, prefix: str) -> Iterator[Asked]:
    """The queries of a file or of subsets of a data set; rows of MetaTool with the same text are one query.

    What has no id of its own is named `prefix` and its number. Raises InputError as `read_tools` does.
    """
    pairs: dict[str, Asked] = {}
    for place, subset, name in places(config.path, config.subsets):
        task = name or prefix
        for number, record in enumerate(read_records(place, config.split, subset)):
            if number == config.limit:
                break
            if record.has("Query"):
                text, label = record.text("Query", blank=False), record.text("Tool", blank=False)
                known = pairs.get(text)
                labels = {**(known.labels if known else {}), label: 1}
                name = known.id if known else f"{prefix}-{number}"
                pairs[text] = Asked(name, text, None, labels, task, known.where if known else record.where)
            else:
                yield _asked(record, f"{prefix}-{number}", task)
    yield from pairs.values()


def places(path: RecordsPath, subsets: Sequence[str]) -> list[tuple[str, str | None, str]]:
    """What to read: a path, a subset of a data set of the hub, and the name of either's task. In a copy of a data set,
    a subset is a folder; a single file holds them all."""
    if not subsets or os.path.isfile(path.local):
        return [(str(path), None, "")]
    if path.is_local:
        return [(os.path.join(path, name), None, name) for name in subsets]
    return [(str(path), name, name) for name in subsets]


def _split(record: Record) -> Iterator[Record]:
    """The tools that a record holds: most are one."""
    values = record.values
    if isinstance(values.get("tools"), list):
        yield from record.records("tools")
    elif isinstance(values.get("function"), dict):
        yield record.record("function")
    elif not {"documentation", "api_name", "name"} & set(values) and all(
        isinstance(one, str) for one in values.values()
    ):
        for name, description in values.items():
            yield Record(f"{record.where}, {name}", {"name": name, "description": description})
    else:
        yield record


def _tool(record: Record, merge: str | None) -> Tool:
    values = record.values
    if isinstance(values.get("function"), dict):
        record = record.record("function")
        values = record.values
    if "documentation" in values:
        documentation = values["documentation"]
        name = str(record.label("id", fix=_TOOL_FORMATS))
        if not isinstance(documentation, str | dict):
            raise record.refusal("documentation", "a text or an object")
    else:
        column = next((one for one in ("api_name", "name") if one in values), "documentation")
        documentation = {key: value for key, value in values.items() if key != "id" or column == "documentation"}
        name = str(record.label("id") if record.has("id") else record.label(column, fix=_TOOL_FORMATS))
    if isinstance(documentation, str):
        record.text("documentation", blank=False)
        return Tool(name, name, documentation, not _BLANK.search(documentation), name, record.where)
    shown = next((str(documentation[one]) for one in ("name", "api_name") if documentation.get(one)), name)
    described = any(str(documentation.get(one) or "").strip() for one in _DESCRIPTIONS)
    same = json.dumps(documentation.get(merge), ensure_ascii=False) if merge and merge in documentation else name
    text = json.dumps(documentation, ensure_ascii=False)
    return Tool(name, shown, text, described, same, record.where)


def _asked(record: Record, name: str, task: str) -> Asked:
    text = record.text("query", fix=_QUERY_FORMATS)  # one of the published ones is empty, and counted
    instruction = record.text("instruction").strip() if record.has("instruction") else ""
    labels = dict(_labels(record))
    name = str(record.label("id")) if record.has("id") else name
    return Asked(name, text, instruction or None, labels, task, record.where)


def _labels(record: Record) -> Iterator[tuple[str, int]]:
    """Ids of tools with their grades. An empty list means that no tool answers."""
    values = record.values
    column = next((one for one in ("labels", "tool", "calling") if one in values), "labels")
    found: Any = record.value(column)
    if isinstance(found, str):
        found = read_json_text(found, column, record.where) if column == "labels" else [found]
    if not isinstance(found, list):
        raise record.refusal(column, "a list of tools", fix=_QUERY_FORMATS)
    for number, one in enumerate(found, start=1):
        where = f"{record.where}, {column} {number}"
        if isinstance(one, dict):
            label = Record(where, one)
            grade = label.number("relevance") if label.has("relevance") else 1
            yield str(label.label("api" if column == "calling" else "id")), int(grade)
        elif isinstance(one, str | int):
            yield str(one), 1
        else:
            raise InputError(f"expected the id of a tool, found {one!r:.60}", where=where, fix=_QUERY_FORMATS)
