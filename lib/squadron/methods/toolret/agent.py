"""What retrieval is worth to an agent: a model is shown the right tools, tools that were found, or as many as fit, and
writes calls, which are compared with those that are right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from squadron.core.config import Config
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.core.panels import Table
from squadron.core.run import Stage
from squadron.data.clustering import hash_ids
from squadron.data.records import read_records
from squadron.data.rows import ArrowRows, write_rows
from squadron.evaluate.panels import headline
from squadron.evaluate.summary import Estimate, estimate
from squadron.llm.batch.collect import QUESTION_TYPES, collect, read_answers
from squadron.llm.parsing import Unreadable
from squadron.methods.toolret.agent_config import AgentConfig
from squadron.methods.toolret.calls import Call, gold_calls, read_calls, right_calls, right_tools
from squadron.methods.toolret.records import Benchmark, Ranked
from squadron.retrieval.documents import Document, Query

ORACLE, EVERYTHING = "the right tools", "no retrieval"
RULE = "a rule that counts shared words"
PROMPT = """\
You are given tools, and a task that some of them solve. Answer with the calls that solve it, as JSON and nothing \
else: a list of {{"name": <tool>, "arguments": {{<parameter>: <value>}}}}. Give parameters that the task states, with \
the values as it states them. Where a value is the result of another of your calls, write "API_call_0" for that of the \
first call of your list, "API_call_1" for that of the second, and so on.

Tools:
{tools}

Task: {query}
"""


class Success(Config):
    """How often a model calls the right tools, and with the right arguments, in one setting; `unreadable` answers hold
    no calls, and count as wrong. `shown` is how many tools it was shown, on average."""

    setting: str
    tools: Estimate
    calls: Estimate | None
    shown: float
    unreadable: int


class Successes(Config):
    """All settings, by the model `model`."""

    model: str
    settings: tuple[Success, ...]


@dataclass(frozen=True)
class Question:
    """One query in one setting: the places of the tools that are shown."""

    setting: str
    query: Query
    gold: tuple[Call, ...]
    shown: tuple[int, ...]

    @property
    def id(self) -> str:
        return f"{self.setting} | {self.query.id}"


def try_agent(stage: Stage, benchmark: Benchmark, rankings: tuple[Ranked, ...], config: AgentConfig) -> Successes:
    """Let the model solve queries with the right tools, with those of each ranking, and without retrieval.

    Answers are kept under the content of what was asked. A request that fails is a failed row, which counts in no mean
    and is asked again by the next run.

    Raises ConfigError for a retriever that there is none of, InputError if no query has calls; and as `collect`.
    """
    run = stage.run.folder
    documents, queries = benchmark.documents(run), benchmark.asked(run)
    names = [name for (name,) in benchmark.tools.rows(run).columns("name")]
    gold = _gold(queries, dict(zip((one.id for one in documents), names, strict=True)), config)
    asked = _drawn(gold, config)
    if not asked:
        fix = "give calls of the run's own queries, with the same texts"
        raise InputError("none of the queries has calls", where=str(config.calls), fix=fix)
    questions = list(_questions(run, documents, queries, gold, asked, _chosen(rankings, config), config))
    said = _answers(stage, questions, documents, names, config)
    settings = list(dict.fromkeys(question.setting for question in questions))
    found = [_success(one, questions, said, names, judged=config.calls is not None) for one in settings]
    _show(stage, found, config)
    return Successes(model=config.model.name if config.model is not None else RULE, settings=tuple(found))


def write_question(question: Question, documents: Sequence[Document], characters: int) -> str:
    """What a model is asked: the tools as they are documented, and the task."""
    tools = "\n".join(f"- {documents[place].text[:characters]}" for place in question.shown)
    return PROMPT.format(tools=tools, query=question.query.text)


def call_by_words(question: Question, documents: Sequence[Document], names: Sequence[str]) -> str:
    """The answer of the rule: it calls the tool that shares most words with the task, the rarer the better, and takes
    what stands in quotation marks as values of its parameters, in their order. It is no agent: it stands in for one
    where no chat model is at hand."""
    words = [set(re.findall(r"[a-z]+", documents[place].text.lower())) for place in question.shown]
    task = set(re.findall(r"[a-z]+", question.query.text.lower()))
    scores = [sum(1 / sum(word in other for other in words) for word in task & own) for own in words]
    if not scores:
        return "[]"
    best = question.shown[int(np.argmax(scores))]
    try:
        documentation = json.loads(documents[best].text)
        parameters = list(documentation.get("parameters") or {})
    except (ValueError, AttributeError, TypeError):
        parameters = []
    values = re.findall(r"['\"]([^'\"]+)['\"]", question.query.text)
    return json.dumps([{"name": names[best], "arguments": dict(zip(parameters, values, strict=False))}])


def _gold(queries: Sequence[Query], names: Mapping[str, str], config: AgentConfig) -> dict[int, tuple[Call, ...]]:
    """The calls of each query that has some, by its place; without a file one of each tool that it needs."""
    if config.calls is None:
        return {place: tuple(Call(names[one]) for one in query.relevant) for place, query in enumerate(queries)}
    by_text: dict[str, tuple[Call, ...]] = {}
    for record in read_records(str(config.calls)):
        calling = [one.values for one in record.records("calling")]
        if any("api" not in one for one in calling):
            raise record.refusal("calling", "a list of {api, parameters}")
        by_text[record.text("query")] = tuple(gold_calls(calling))
    return {place: by_text[query.text] for place, query in enumerate(queries) if query.text in by_text}


def _drawn(gold: Mapping[int, tuple[Call, ...]], config: AgentConfig) -> list[int]:
    places = sorted(gold)
    if config.queries is None or config.queries >= len(places):
        return places
    order = hash_ids([str(place) for place in places], f"asked {config.seed} ").argsort(kind="stable")
    return sorted(places[number] for number in order[: config.queries])


def _chosen(rankings: Sequence[Ranked], config: AgentConfig) -> list[Ranked]:
    known = [one.method for one in rankings]
    if unknown := sorted(set(config.retrievers) - set(known)):
        fix = f"there are {', '.join(dict.fromkeys(known))}"
        raise ConfigError(f"{', '.join(unknown)} ranks no tools", where="agent.retrievers", fix=fix)
    return [one for one in rankings if not config.retrievers or one.method in config.retrievers]


def _questions(
    run: Folder,
    documents: Sequence[Document],
    queries: Sequence[Query],
    gold: Mapping[int, tuple[Call, ...]],
    asked: Sequence[int],
    rankings: Sequence[Ranked],
    config: AgentConfig,
) -> Iterator[Question]:
    place_of = {one.id: place for place, one in enumerate(documents)}
    found = {f"{one.label}, best {config.k}": one.ranking(run).places_QK for one in rankings}
    lengths = [min(len(one.text), config.tool_characters) for one in documents]
    for number in asked:
        query, calls = queries[number], gold[number]
        right = tuple(place_of[name] for name in query.relevant)
        yield Question(ORACLE, query, calls, right)
        for setting, places_QK in found.items():
            yield Question(setting, query, calls, tuple(int(p) for p in places_QK[number, : config.k] if p >= 0))
        if config.everything:
            order = np.random.default_rng([config.seed, number]).permutation(len(documents))
            fits = int((np.cumsum([lengths[place] for place in order]) <= config.context_characters).sum())
            yield Question(EVERYTHING, query, calls, tuple(int(place) for place in order[:fits]))


def _answers(
    stage: Stage,
    questions: Sequence[Question],
    documents: Sequence[Document],
    names: Sequence[str],
    config: AgentConfig,
) -> list[str | None]:
    """What the model says to each question; None where that failed."""
    if config.model is None:
        return [call_by_words(question, documents, names) for question in questions]
    rows = ({"id": one.id, "instruction": write_question(one, documents, config.tool_characters)} for one in questions)
    write_rows(stage.folder, "questions.arrow", rows, QUESTION_TYPES)
    (answers,) = collect(stage, ArrowRows(stage.folder, ["questions.arrow"]), [config.model], config.collect)
    return [row["response"] for row in read_answers(stage.run.folder, answers)]


def _success(
    setting: str, questions: Sequence[Question], said: Sequence[str | None], names: Sequence[str], *, judged: bool
) -> Success:
    tools, calls, unreadable, shown = [], [], 0, []
    for question, text in zip(questions, said, strict=True):
        if question.setting != setting:
            continue
        shown.append(len(question.shown))
        found: list[Call] = []
        try:
            found = read_calls(text) if text is not None else []
        except Unreadable:
            unreadable += 1
        tools.append(float("nan") if text is None else float(right_tools(found, question.gold)))
        calls.append(float("nan") if text is None else float(right_calls(found, question.gold)))
    return Success(
        setting=setting, tools=estimate(tools, share=True), calls=estimate(calls, share=True) if judged else None,
        shown=float(np.mean(shown)), unreadable=unreadable,
    )  # fmt: skip


def _show(stage: Stage, found: Sequence[Success], config: AgentConfig) -> None:
    model = config.model.name if config.model is not None else RULE
    rows = [
        [one.setting, round(one.shown, 1), one.tools.text(".1%"), one.calls.text(".1%") if one.calls else None,
         one.unreadable, one.tools.missing]
        for one in found
    ]  # fmt: skip
    columns = ["tools shown", "how many", "right tools called", "right calls", "unreadable", "failed"]
    note = f"By {model}. Share of tasks, in brackets 95% intervals. Values are compared without case and spaces; the "
    note += "order of calls does not count. An answer that holds no calls is wrong; a request that failed counts not."
    stage.show(Table(title="An agent with these tools", columns=columns, rows=rows, note=note))
    for one in found:
        headline(stage, f"tasks solved with {one.setting}", one.calls or one.tools, ".1%")
