"""The instructions to choose from: read and checked before anything is asked, some kept out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from squadron.core.errors import InputError
from squadron.core.folder import relative
from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.data.records import Record, read_records
from squadron.data.rows import ArrowRows, store_rows, write_rows
from squadron.llm.batch.collect import ANSWER_TYPES, Answers
from squadron.llm.settings import ModelSettings
from squadron.methods.crowdselect import plan
from squadron.methods.crowdselect.config import PoolConfig
from squadron.methods.crowdselect.given import Given, column_models, content_of, responses, score_of
from squadron.methods.crowdselect.records import Pool
from squadron.methods.crowdselect.synthetic_task import TasksConfig, held_out_tasks, pool_tasks

_TYPES = {"id": "string", "instruction": "string", "reference": "string"}
_GIVEN_TYPES = {"response": "string", "score": "float64"}


@dataclass
class _Seen:
    """What a first reading finds: which rows count, and what they bring along."""

    ids: dict[str, str] = field(default_factory=dict)
    given: Given = field(default_factory=Given)
    repeats: int = 0


@estimated(plan.instructions)
def read_pool(stage: Stage, config: PoolConfig, world: TasksConfig, models: tuple[ModelSettings, ...]) -> Pool:
    """Read and check every instruction, and keep some out.

    Writes the pool, the rows kept out, and the answers that rows came with.

    Raises InputError for a row without an instruction, an empty or enormous one, an id that occurs twice, a response
    without a model, a model without a response, fewer than two rows.
    """
    given = Given(column_models(models) if config.layout == "generator_zoo" else {})
    seen = _Seen(given=given)
    for record in _records(config, world):
        _check(record, config, seen)
    if len(seen.ids) < 2:
        raise InputError(f"{len(seen.ids)} instructions are too few to choose from", where=config.path or "world")
    if config.layout != "instructions":
        given.check(config)
        _say_missing(stage, given)
    kept_out = _keep_out(list(seen.ids), config)
    crowd = tuple(given.models.values())
    columns = {f"{kind} {number}": type_ for number in range(len(crowd)) for kind, type_ in _GIVEN_TYPES.items()}
    rows = _rows(config, world, given, kept_out, inside=False)
    questions = store_rows(stage, "pool.arrow", rows, types=_TYPES | columns)
    held_out = store_rows(stage, "held_out.arrow", _held_out(config, world, given, kept_out), types=_TYPES)
    stage.headline("instructions, and kept out", f"{questions.count:,} + {held_out.count:,}")
    if seen.repeats:
        stage.headline("repeated instructions left out", f"{seen.repeats:,}")
    return Pool(
        questions=questions,
        held_out=held_out,
        answers=tuple(_write_answers(stage, number, model.name) for number, model in enumerate(crowd)),
        crowd=crowd,
    )


def row_id(config: PoolConfig, record: Record) -> str:
    """What names a row: its id column, or its content."""
    if config.id is not None:
        return str(record.label(config.id, "pool.id"))
    return hashlib.sha256(record.text(config.instruction).encode()).hexdigest()[:16]


def _records(config: PoolConfig, world: TasksConfig) -> Iterator[Record]:
    if config.path is None:
        for number, task in enumerate(pool_tasks(world)):
            values = {config.instruction: task.instruction, config.reference or "reference": task.answer}
            yield Record(f"small tasks, number {number}", values)
        return
    for number, record in enumerate(read_records(config.path, config.split, config.subset)):
        if number == config.limit:
            return
        yield record


def _check(record: Record, config: PoolConfig, seen: _Seen) -> None:
    _check_text(record, config)
    if config.reference is not None:
        record.label(config.reference, "pool.reference")
    identifier = row_id(config, record)
    if identifier in seen.ids and config.id is not None:
        what = f"the id {identifier!r} occurs twice: first in {seen.ids[identifier]}"
        raise InputError(what, where=record.where, fix="give each row an id of its own, or leave pool.id out")
    seen.repeats += identifier in seen.ids
    seen.ids.setdefault(identifier, record.where)
    if config.layout != "instructions":
        seen.given.take(record, config)


def _check_text(record: Record, config: PoolConfig) -> None:
    text = record.text(config.instruction, "pool.instruction", blank=False)
    if len(text) > config.max_characters:
        what = f"the instruction has {len(text):,} characters, more than {config.max_characters:,}: {text[:40]!r}…"
        raise InputError(what, where=record.where, fix="leave this row out, or raise pool.max_characters")


def _say_missing(stage: Stage, given: Given) -> None:
    """Tell which models lack rows, and whether there are scores alone."""
    if given.missing:
        shown = ", ".join(f"{name} {count:,}" for name, count in given.missing.items())
        stage.headline(f"of {given.rows:,} rows lack a model", shown)
    if not given.has_texts:
        stage.headline("responses in the pool", "none, scores alone: what is chosen has no response to train on")


def _keep_out(ids: list[str], config: PoolConfig) -> set[str]:
    """A share of the ids, drawn in an order that does not depend on the file's."""
    if config.path is None or config.held_out_path is not None:
        return set()
    count = min(config.held_out_most, int(config.held_out * len(ids)))
    return set(random.Random(config.seed).sample(sorted(ids), count))


def _rows(
    config: PoolConfig, world: TasksConfig, given: Given, kept_out: set[str], *, inside: bool
) -> Iterator[dict[str, Any]]:
    """The rows that are (`inside`) or are not among those kept out, each once."""
    done: set[str] = set()
    for record in _records(config, world):
        identifier = row_id(config, record)
        if identifier in done or (identifier in kept_out) != inside:
            continue
        done.add(identifier)
        yield _row(identifier, record, config) | ({} if inside else _given(record, config, given))


def _row(identifier: str, record: Record, config: PoolConfig) -> dict[str, Any]:
    column = config.reference or "reference"
    reference = str(record.label(column, "pool.reference")) if record.has(column) else None
    return {"id": identifier, "instruction": record.text(config.instruction), "reference": reference}


def _held_out(config: PoolConfig, world: TasksConfig, given: Given, kept_out: set[str]) -> Iterator[dict[str, Any]]:
    if config.held_out_path is not None:
        settings = config.model_copy(update={"path": config.held_out_path, "layout": "instructions", "limit": None})
        seen = _Seen()
        for record in read_records(config.held_out_path, config.split, config.subset):
            _check(record, settings, seen)
            yield _row(row_id(config, record), record, config)
    elif config.path is None:
        for number, task in enumerate(held_out_tasks(world)):
            yield {"id": f"held-out-{number:05d}", "instruction": task.instruction, "reference": task.answer}
    else:
        yield from _rows(config, world, given, kept_out, inside=True)


def _given(record: Record, config: PoolConfig, given: Given) -> dict[str, Any]:
    """The responses that a row came with, in columns that are numbered as the models are.

    Among responses a score without its text counts as none: it could be chosen, and leave nothing to train on.
    """
    if config.layout == "instructions":
        return {}
    found = responses(record, config, given.models)
    columns: dict[str, Any] = {}
    for number, name in enumerate(given.models):
        response = found.get(name, Record(record.where, {}))
        text, score = content_of(response), score_of(response, config)
        columns[f"response {number}"] = text
        columns[f"score {number}"] = None if text is None and given.has_texts else score
    return columns


def _write_answers(stage: Stage, number: int, model: str) -> Answers:
    """One model's column of the pool as a file of answers."""
    rows = ArrowRows(stage.folder, ["pool.arrow"])
    answered = 0

    def answers() -> Iterator[dict[str, Any]]:
        nonlocal answered
        for identifier, response, score in rows.columns("id", f"response {number}", f"score {number}"):
            there = response is not None or score is not None
            answered += there
            error = "" if there else "not in the file"
            yield {"id": identifier, "sample": 0, "response": response, "error": error, "score": score}

    name = f"answers/{number:03d}.arrow"
    count = write_rows(stage.folder, name, answers(), types=ANSWER_TYPES)
    return Answers(
        model=model,
        file=relative(stage.folder, stage.run.folder, name),
        samples=1,
        answered=answered,
        failed=count - answered,
        prompt_tokens=0,
        completion_tokens=0,
        cost_usd=0.0,
    )
