"""Responses and scores that the rows of a pool bring along, in either layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from squadron.core.errors import InputError, suggest
from squadron.data.records import Record, is_number
from squadron.llm.settings import ModelSettings
from squadron.methods.crowdselect.config import PoolConfig
from squadron.methods.crowdselect.records import ResponseModel

_CELL = "give {{content, score}} of {}, or null; see pool.layout: generator_zoo"


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
            for model in map(_model_of, _listed(record)):
                if self.models.setdefault(model.name, model) != model:
                    raise InputError(f"{model.name} changes its family or size here", where=record.where)
        for name, response in responses(record, config, self.models).items():
            self.present[name] += 1
            self.texts[name] += content_of(response) is not None
            self.keys.update(key for key, value in response.values.items() if value is not None)
            score_of(response, config)

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


def responses(record: Record, config: PoolConfig, models: Iterable[str]) -> dict[str, Record]:
    """The responses that a row came with, by model. Raises InputError for what is no response."""
    if config.layout == "responses":
        listed = _listed(record)
        found = {one.text("model"): one for one in listed}
        if len(found) < len(listed):
            twice = Counter(one.text("model") for one in listed).most_common(1)[0][0]
            raise InputError(f"{twice} responds twice here", where=record.where, fix="keep one response of each model")
        return found
    return {name: record.record(name, fix=_CELL.format(name)) for name in models if record.has(name)}


def score_key(config: PoolConfig) -> str | None:
    """The key of a response's score."""
    return "score" if config.layout == "responses" else config.score


def content_of(response: Record) -> str | None:
    """A response's text, None where it has none. Raises InputError for one that is no text."""
    return response.text("content") if response.has("content") else None


def score_of(response: Record, config: PoolConfig) -> float | None:
    """A response's score, None where it has none. Raises InputError for one that is no number."""
    key = score_key(config) or ""
    return response.number(key, fix="write a number, or null") if response.has(key) else None


def _listed(record: Record) -> list[Record]:
    if record.values.get("responses") == []:
        return []
    return record.records("responses", fix="give a list of {model, content, score}")


def _model_of(response: Record) -> ResponseModel:
    size = response.values.get("size_b")
    if size is not None and not (is_number(size) and size > 0):
        raise response.refusal("size_b", "a number of billions of parameters", fix="write 7 for 7B, or null")
    family = response.text("family") if response.has("family") else None
    return ResponseModel(name=response.text("model", blank=False), family=family, size_b=size)
