"""Responses and scores that the rows of a pool bring along, in either layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from squadron.core.errors import InputError, suggest
from squadron.data.records import Record
from squadron.llm.settings import ModelSettings
from squadron.methods.crowdselect.config import PoolConfig
from squadron.methods.crowdselect.records import ResponseModel


@dataclass
class Given:
    """What the rows of a pool bring, counted: rows and texts of each model, and the keys of rows and of responses."""

    models: dict[str, ResponseModel] = field(default_factory=dict)
    rows: int = 0
    present: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    columns: set[str] = field(default_factory=set)
    keys: Counter[str] = field(default_factory=Counter)

    def take(self, record: Record, config: PoolConfig) -> None:
        """Count one row. Raises InputError for responses that are none, or a model that comes twice or changes."""
        self.rows += 1
        self.columns.update(record.values)
        if config.layout == "responses":
            for response in _listed(record):
                model = _model_of(response)
                if self.models.setdefault(model.name, model) != model:
                    raise InputError(f"{model.name} changes its family or size here", where=record.where)
        for name, response in responses(record, config, self.models).items():
            self.present[name] += 1
            self.texts[name] += response.get("content") is not None
            self.keys.update(key for key, value in response.items() if value is not None)
            score_of(response, config, name, record.where)

    def check(self, config: PoolConfig) -> None:
        """Raise InputError where a model, or every text and score, is in no row at all."""
        if not self.models:
            raise InputError("no row holds a response", where=config.path or "", fix="set pool.layout: instructions")
        for name in self.models:
            if not self.present[name]:
                what = f"no row has the column {name!r}, which models names"
                raise InputError(what, where=config.path or "", fix=suggest(name, self.columns - set(self.models)))
        named = config.layout == "generator_zoo" and config.score is not None
        score = score_key(config)
        if score is not None and not self.keys[score] and (named or not self.keys["content"]):
            what = f"no response has {score!r}" + (", the score that pool.score names" if named else " or 'content'")
            raise InputError(what, where=config.path or "", fix=suggest(score, set(self.keys) - {"content"}))

    @property
    def has_texts(self) -> bool:
        """Whether there are responses; else there are scores alone."""
        return self.texts.total() > 0

    @property
    def missing(self) -> dict[str, int]:
        """How many rows lack a model's response, or its score where there are scores alone."""
        there = self.texts if self.has_texts else self.present
        return {name: self.rows - there[name] for name in self.models if there[name] < self.rows}


def column_models(models: tuple[ModelSettings, ...]) -> dict[str, ResponseModel]:
    """The models of the settings, each of which names a column."""
    return {one.name: ResponseModel(name=one.name, family=one.family, size_b=one.size_b) for one in models}


def responses(record: Record, config: PoolConfig, models: Mapping[str, ResponseModel]) -> dict[str, dict[str, Any]]:
    """The responses that a row came with, by model. Raises InputError for what is no response."""
    if config.layout == "responses":
        listed = _listed(record)
        found = {one["model"]: one for one in listed}
        if len(found) < len(listed):
            twice = Counter(one["model"] for one in listed).most_common(1)[0][0]
            raise InputError(f"{twice} responds twice here", where=record.where, fix="keep one response of each model")
        return found
    cells = {name: cell for name in models if (cell := record.values.get(name)) is not None}
    for name, cell in cells.items():
        if not isinstance(cell, dict):
            what = f"the column {name!r} holds no {{content, score}}: {str(cell)[:40]!r}"
            raise InputError(what, where=record.where, fix="see pool.layout: generator_zoo")
    return cells


def score_key(config: PoolConfig) -> str | None:
    """The key of a response's score."""
    return "score" if config.layout == "responses" else config.score


def score_of(response: Mapping[str, Any], config: PoolConfig, model: str, where: str) -> float | None:
    """A response's score, None where it has none. Raises InputError for one that is no number."""
    score = response.get(score_key(config) or "")
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise InputError(f"the score of {model} is no number: {score!r}", where=where, fix="write a number, or null")
    return float(score)


def _listed(record: Record) -> list[dict[str, Any]]:
    listed = record.values.get("responses")
    if not isinstance(listed, list) or not all(isinstance(one, dict) and "model" in one for one in listed):
        raise InputError("expected `responses`, a list of {model, content, score}", where=record.where)
    return listed


def _model_of(response: Mapping[str, Any]) -> ResponseModel:
    return ResponseModel(name=response["model"], family=response.get("family"), size_b=response.get("size_b"))
