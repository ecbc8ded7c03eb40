"""Tools and queries read and checked before anything is embedded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from squadron.core.errors import InputError
from squadron.core.job import estimated
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.rows import store_rows
from squadron.methods.toolret import plan
from squadron.methods.toolret.config import ReadConfig, ToolSet, WorldConfig
from squadron.methods.toolret.datasets import Asked, Tool, read_queries, read_tools
from squadron.methods.toolret.records import QUERY_TYPES, TOOL_TYPES, Benchmark
from squadron.methods.toolret.synthetic import make_world

COLUMNS = ["category", "tools", "said twice", "without description", "queries", "labels a query", "with instruction",
           "without text", "no tool answers", "labels of unknown tools"]  # fmt: skip


@dataclass
class _Read:
    """The tools of one category by their ids, what other ids stand for one of them, and the queries."""

    category: str
    tools: dict[str, Tool] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    queries: list[Asked] = field(default_factory=list)
    repeated: int = 0
    blank: int = 0
    unanswered: int = 0
    unknown: int = 0

    def row(self) -> list[str | int | float]:
        """What was found, as the table shows it."""
        labels = sum(len(one.labels) for one in self.queries)
        undescribed = sum(not tool.described for tool in self.tools.values())
        instructed = sum(one.instruction is not None for one in self.queries)
        each = round(labels / max(len(self.queries), 1), 2)
        return [self.category, len(self.tools), self.repeated, undescribed, len(self.queries), each, instructed,
                self.blank, self.unanswered, self.unknown]  # fmt: skip


@estimated(plan.benchmark)
def read_benchmark(
    stage: Stage, sets: tuple[ToolSet, ...], world: WorldConfig, config: ReadConfig, instructions: tuple[bool, ...]
) -> Benchmark:
    """Read and check all tools and queries.

    Tools without a description, repeated tools, queries without text and those that no tool answers are counted; such
    queries are left out. Raises InputError for a tool without documentation or with an enormous one, an id that stands
    for two tools or two queries, labels of which too few name a tool, and where there are to be instructions and no
    query has one.
    """
    found = [_read_set(one, config) for one in sets] if sets else [_made(*one) for one in make_world(world)]
    _keep_apart(found)
    elsewhere = {name: at for one in found for name, at in one.names.items()}
    corpus = {name for one in found for name in one.tools}
    for one in found:
        _resolve(one, {**elsewhere, **one.names}, corpus, config)
        if not one.queries:
            fix = "labels have to name tools by their ids"
            raise InputError("no query is answered by a tool", where=_where(sets, one.category), fix=fix)
    instructed = sum(query.instruction is not None for one in found for query in one.queries)
    if True in instructions and not instructed:
        fix = "set instructions: [false], or give each query an instruction"
        raise InputError("no query has an instruction", where=_where(sets, found[0].category), fix=fix)
    stage.show(Table(title="What was read", columns=COLUMNS, rows=[one.row() for one in found], note=_NOTE))
    tools = store_rows(stage, "tools.arrow", (row for one in found for row in _tool_rows(one)), TOOL_TYPES)
    queries = store_rows(stage, "queries.arrow", (row for one in found for row in _query_rows(one)), QUERY_TYPES)
    stage.headline("tools, queries", f"{tools.count:,}, {queries.count:,}")
    categories = tuple(one.category for one in found)
    return Benchmark(tools=tools, queries=queries, categories=categories, instructed=instructed)


_NOTE = (
    "Tools said twice, with the same documentation or merged, count once. A query that no tool answers is not asked: "
    "nobody could find anything. Nor is one without text, of which the published sets have one."
)


def _read_set(config: ToolSet, read: ReadConfig) -> _Read:
    found = _Read(config.name)
    same: dict[str, str] = {}
    for tool in read_tools(config.tools):
        _check_length(tool, read)
        known = found.tools.get(tool.id)
        if known is not None and known.text != tool.text:
            what = f"the id {tool.id!r} stands for two tools: first in {known.where}"
            raise InputError(what, where=tool.where, fix="give each tool an id of its own")
        found.repeated += known is not None or tool.merged_by in same
        found.names[tool.id] = same.setdefault(tool.merged_by, tool.id)
        if found.names[tool.id] == tool.id:
            found.tools.setdefault(tool.id, tool)
    if not found.tools:
        raise InputError("there is no tool in it", where=str(config.tools.path))
    for number, source in enumerate(config.queries):
        prefix = f"{config.name}-{number}" if len(config.queries) > 1 else config.name
        found.queries += read_queries(source, prefix)
    _refuse_repeated(found.queries)
    if config.tools.limit is not None:
        _cut(found, config.tools.limit)
    return found


def _made(category: str, tools: list[Tool], queries: list[Asked]) -> _Read:
    by_id = {tool.id: tool for tool in tools}
    return _Read(category, by_id, dict(zip(by_id, by_id, strict=True)), queries)


def _check_length(tool: Tool, config: ReadConfig) -> None:
    if len(tool.text) > config.max_characters:
        what = f"the documentation has {len(tool.text):,} characters, more than {config.max_characters:,}"
        raise InputError(what, where=tool.where, fix="shorten it, or raise read.max_characters")


def _refuse_repeated(queries: Iterable[Asked]) -> None:
    places: dict[str, str] = {}
    for query in queries:
        if query.id in places:
            what = f"the id {query.id!r} stands for two queries: first in {places[query.id]}"
            raise InputError(what, where=query.where, fix="give each query an id of its own")
        places[query.id] = query.where


def _cut(found: _Read, limit: int) -> None:
    """Keep so many tools: first those that a query needs."""
    needed = {found.names[label] for query in found.queries for label in query.labels if label in found.names}
    order = sorted(found.tools, key=lambda name: name not in needed)[:limit]
    found.tools = {name: tool for name, tool in found.tools.items() if name in set(order)}


def _keep_apart(found: Sequence[_Read]) -> None:
    """Tools and queries of two categories that have one id are told apart by the category."""
    tools = Counter(name for one in found for name in one.tools)
    queries = Counter(query.id for one in found for query in one.queries)
    for one in found:
        new = {name: f"{one.category}/{name}" if tools[name] > 1 else name for name in one.tools}
        one.tools = {new[name]: tool for name, tool in one.tools.items()}
        one.names = {name: new.get(at, at) for name, at in one.names.items()}
        one.queries = [
            replace(query, id=f"{one.category}/{query.id}") if queries[query.id] > 1 else query for query in one.queries
        ]


def _resolve(one: _Read, names: Mapping[str, str], corpus: Container[str], config: ReadConfig) -> None:
    """Labels as ids of the tools that are searched; queries without any, or without text, are left out."""
    kept, total, first = [], 0, ""
    written = [query for query in one.queries if query.text.strip()]
    for query in written:
        relevant: dict[str, int] = {}
        for label, grade in query.labels.items():
            total += 1
            if label not in names:
                one.unknown += 1
                first = first or f"{query.where}: {label!r}"
            elif grade > 0 and names[label] in corpus:
                relevant[names[label]] = max(grade, relevant.get(names[label], 0))
        if relevant:
            kept.append(replace(query, labels=relevant))
    if total - one.unknown < config.known_labels * total:
        what = f"{one.unknown:,} of {total:,} labels of {one.category} name no tool"
        fix = "correct the ids, or lower read.known_labels: queries then keep the labels that are known"
        raise InputError(what, where=first, fix=fix)
    one.blank = len(one.queries) - len(written)
    one.unanswered = len(written) - len(kept)
    one.queries = kept


def _tool_rows(one: _Read) -> Iterable[dict[str, object]]:
    for name, tool in one.tools.items():
        yield {"id": name, "category": one.category, "name": tool.name, "text": tool.text, "described": tool.described}


def _query_rows(one: _Read) -> Iterable[dict[str, object]]:
    for query in one.queries:
        yield {
            "id": query.id,
            "category": one.category,
            "task": query.task,
            "text": query.text,
            "instruction": query.instruction,
            "relevant": dict(query.labels),
        }


def _where(sets: Sequence[ToolSet], category: str) -> str:
    return next((str(one.queries[0].path) for one in sets if one.name == category), category)
