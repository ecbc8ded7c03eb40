"""Every model's answer to every question, so many times each: resumable, with failures kept and costs counted.

Answers are kept in the run folder under the content of what was asked (the model, the conversation, the sampling), so
that more models, more questions or another order ask for what is missing and nothing else.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from squadron.core import console
from squadron.core.config import Config
from squadron.core.folder import Folder, relative
from squadron.core.profile import WorkerResources
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.llm.batch.answer_cache import ANSWERS, Entry, Index, KeyedLog, spent_usd
from squadron.llm.batch.budget import Budget, SpendingConfig
from squadron.llm.batch.model_client import TALKS, chat_entry, item_key, log_folder
from squadron.llm.batch.pools import Pool, Work, refuse_stopped, run_pools
from squadron.llm.chat import ChatModel, ChatRequest, Sampling, user
from squadron.llm.providers import check_models, identity, open_model, resources
from squadron.llm.settings import AnyModel, VllmModel

QUESTION_TYPES = {"id": "string", "instruction": "string"}
ANSWER_TYPES = {"id": "string", "sample": "int64", "response": "string", "error": "string", "score": "float64"}
"""Columns of questions and of answers; `response` is missing where `error` says why, `score` is one that came along."""
_TOKENS = ("prompt_tokens", "completion_tokens", "reasoning_tokens")
_PARTS_EACH = 8
_LARGEST_PART, _SMALLEST_PART = 4096, 64


class CollectConfig(SpendingConfig):
    """How models are asked."""

    sampling: Sampling = Sampling()
    samples: int = Field(1, ge=1, description="answers to each question; they differ by their seed")


class Answers(Config):
    """One model's answers, in a file of this run: a row a question and sample, in the order of the questions."""

    model: str
    file: str
    samples: int
    answered: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float


@dataclass(frozen=True)
class Asked:
    """A model and the questions that it is asked, as it travels to workers. A row is a question and a sample of it."""

    settings: AnyModel
    questions: ArrowRows
    config: CollectConfig

    @property
    def name(self) -> str:
        return self.settings.name

    def open(self, budget: Budget) -> contextlib.AbstractContextManager[ChatModel]:
        return open_model(self.settings, budget)

    def keys(self, rows: Sequence[int]) -> list[str]:
        known = identity(self.settings)
        return [item_key(known, self._request(row, "")) for row in rows]

    def answer(self, opened: ChatModel, rows: Sequence[int]) -> Iterator[Entry]:
        def requests() -> Iterator[ChatRequest]:
            for row, key in zip(rows, self.keys(rows), strict=True):
                yield self._request(row, key)

        return map(chat_entry, opened.chat(requests()))

    def _request(self, row: int, key: str) -> ChatRequest:
        question: str = self.questions[row // self.config.samples]["instruction"]
        return ChatRequest(key, user(question), self._sampling(row))

    def _sampling(self, row: int) -> Sampling:
        sampling, sample = self.config.sampling, row % self.config.samples
        if self.config.samples == 1 and sampling.seed is None and sampling.temperature == 0:
            return sampling
        return sampling.model_copy(update={"seed": (sampling.seed or 0) + sample})


def collect(
    stage: Stage,
    questions: ArrowRows,
    models: Sequence[AnyModel],
    config: CollectConfig,
) -> list[Answers]:
    """Ask every model every question, `config.samples` times, and write each model's answers as an Arrow file
    (`ANSWER_TYPES`) into the stage folder.

    `questions` are rows with `id` and `instruction`. A request that fails for good is a failed row of the stage: its
    response is missing, and the next run asks it again.

    Raises ConfigError, InputError or ResourceError before anything is asked if a model cannot be used, and
    ResourceError if the cap is reached or a model is lost on the way; what was answered until then is kept.
    """
    check_models(models)
    store = stage.run.folder / ANSWERS
    asked = [Asked(settings, questions, config) for settings in models]
    logs = {member.name: KeyedLog(log_folder(store, member.settings)) for member in asked}
    indexes = {name: log.index() for name, log in logs.items()}
    rows = len(questions) * config.samples
    keys = {member.name: member.keys(range(rows)) for member in asked}
    missing = {member.name: _missing(keys[member.name], indexes[member.name]) for member in asked}
    if known := sum(rows - len(left) for left in missing.values()):
        console.say(f"  {known:,} of {rows * len(models):,} answers were there before")
    if any(map(len, missing.values())):
        result = run_pools(
            stage,
            _pools(stage, asked, missing, store),
            unit="answer",
            done=known,
            cap_usd=config.cap_usd,
            spent_usd=0.0 if config.cap_usd is None else spent_usd(stage.run.folder),
        )
        indexes = {name: log.index() for name, log in logs.items()}
        refuse_stopped(result, lambda: sum(len(_missing(keys[name], indexes[name])) for name in keys))
    return [_compile(stage, member, keys[member.name], logs[member.name], indexes[member.name]) for member in asked]


def read_answers(run: Folder, answers: Answers) -> ArrowRows:
    """The rows of one model's answers, with the columns of `ANSWER_TYPES`."""
    return ArrowRows(run, [answers.file])


def _missing(keys: Sequence[str], index: Index) -> np.ndarray:
    """Rows whose key has no answer, each key once."""
    seen: set[str] = set()
    rows = []
    for row, key in enumerate(keys):
        if key not in seen and not index.answers(key):
            seen.add(key)
            rows.append(row)
    return np.array(rows, np.int64)


def _pools(stage: Stage, asked: Sequence[Asked], missing: Mapping[str, np.ndarray], store: Folder) -> list[list[Pool]]:
    """Models that only talk to a server side by side, each on one actor; beside them, in turn, those that compute:
    models of transformers of one kind of share in one pool, a model of vLLM in a pool of its own."""
    talking: list[Work] = []
    computing: dict[tuple[str, str], list[Work]] = {}
    share: dict[tuple[str, str], WorkerResources] = {}
    for member in asked:
        rows = missing[member.name]
        if not len(rows):
            continue
        log = log_folder(store, member.settings)
        needs = resources(member.settings, stage.run.profile)
        if needs is None:
            talking.append(Work(member, rows, log, part_size=len(rows)))
            continue
        alone = member.name if isinstance(member.settings, VllmModel) else ""
        share[needs.model_dump_json(), alone] = needs
        computing.setdefault((needs.model_dump_json(), alone), []).append(Work(member, rows, log, part_size=0))
    local = []
    for kind, work in computing.items():
        tasks = sum(-(-len(one.rows) // _SMALLEST_PART) for one in work)
        size = stage.claim_workers(f"{stage.name} (models)", tasks, share[kind])
        sized = [Work(one.member, one.rows, one.log, _part_size(len(one.rows), size)) for one in work]
        local.append(Pool(tuple(sized), share[kind], size))
    return [[Pool(tuple(talking), TALKS, len(talking))] if talking else [], local]


def _part_size(rows: int, workers: int) -> int:
    """Parts small enough that workers end together and little is lost with one, large enough to batch well."""
    return min(_LARGEST_PART, max(_SMALLEST_PART, -(-rows // (workers * _PARTS_EACH))))


def _compile(stage: Stage, asked: Asked, keys: Sequence[str], log: KeyedLog, index: Index) -> Answers:
    """Write a model's answers in the order of the questions, and note what failed."""
    count: Counter[str] = Counter()
    cost = 0.0
    notes: set[str] = set()
    samples = asked.config.samples

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal cost
        with log.reader() as reader:
            for row, key in enumerate(keys):
                known = index.places.get(key)
                entry: Entry = reader.read(known) if known else {"error": "never answered"}
                identifier, error = asked.questions[row // samples]["id"], entry.get("error", "")
                if error:
                    stage.fail(f"{asked.name}: {identifier}", error)
                count.update(answered=not error, failed=bool(error))
                count.update({name: entry.get(name, 0) for name in _TOKENS})
                cost += entry.get("cost_usd", 0.0)
                if entry.get("note"):
                    notes.add(entry["note"])
                response = None if error else entry["text"]
                said = {"response": response, "error": error, "score": None}
                yield {"id": identifier, "sample": row % samples, **said}

    name = f"answers/{log.folder.name}.arrow"
    write_rows(stage.folder, name, rows(), types=ANSWER_TYPES)
    if count["reasoning_tokens"]:
        stage.headline(f"tokens of {asked.name} that went into reasoning", f"{count['reasoning_tokens']:,}")
    for note in sorted(notes):
        stage.headline(f"left out for {asked.name}", note)
    return Answers(
        model=asked.name,
        file=relative(stage.folder, stage.run.folder, name),
        samples=samples,
        answered=count["answered"],
        failed=count["failed"],
        prompt_tokens=count["prompt_tokens"],
        completion_tokens=count["completion_tokens"],
        cost_usd=cost,
    )
