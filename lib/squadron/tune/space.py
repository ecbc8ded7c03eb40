"""What a sweep varies: settings of a job, each with the values that it may take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from squadron.core.assignments import check_overlap
from squadron.core.config import Config, ConfigT, fingerprint, from_values
from squadron.core.errors import ConfigError, suggest
from squadron.core.inputs import find_inputs
from squadron.core.masking import names_secret
from squadron.core.typed_values import Walk, annotations_at
from squadron.core.yaml_text import read_flow

Kind = Literal["choice", "grid", "uniform", "loguniform", "randint", "lograndint"]
Settings = dict[str, Any]
"""A value for each setting that is varied, by its path in the configuration, such as `training.learning_rate`."""

_LISTED = ("choice", "grid")
_RANGES = ("uniform", "loguniform", "randint", "lograndint")


@dataclass(frozen=True)
class Domain:
    """The values that one setting may take: some that are listed, or those between two ends, both of them included.

    `choice` draws one of its values, `grid` tries each; `loguniform` and `lograndint` are uniform in the logarithm.
    """

    kind: Kind
    values: tuple[Any, ...]

    @property
    def is_listed(self) -> bool:
        return self.kind in _LISTED

    @property
    def is_whole(self) -> bool:
        return self.kind in ("randint", "lograndint")

    @property
    def is_log(self) -> bool:
        return self.kind in ("loguniform", "lograndint")

    def draw(self, rng: np.random.Generator) -> Any:
        """One of the values, each as likely as any other (in the logarithm, if it is one)."""
        if self.is_listed:
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "randint":
            return int(rng.integers(low, high, endpoint=True))
        if self.kind == "uniform":
            return float(rng.uniform(low, high))
        if self.kind == "lograndint":  # each whole number stands for all that is rounded to it
            return round(math.exp(rng.uniform(math.log(low - 0.5), math.log(high + 0.5))))
        return float(np.clip(math.exp(rng.uniform(math.log(low), math.log(high))), low, high))


Space = dict[str, Domain]


def parse_space(words: Sequence[str], model: type[Config] | None = None) -> Space:
    """`key=kind(a,b)` for every setting, as in `training.learning_rate=loguniform(1e-5,1e-3)`.

    What a shell would need quotes for may be written without: `key=loguniform:1e-5,1e-3`. Values alone, `key=a,b`,
    are a choice, read by the types of the model's settings: a text that holds , # : or a bracket stands in quotes.
    Raises ConfigError for a word that says nothing of the kind, and for two settings of which one is part of the other.
    """
    space: Space = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise ConfigError(f"{word!r} varies nothing", where="--over", fix="write key.path=choice(a,b)")
        check_overlap([*space, key], "--over")
        if names_secret(key, text):
            fix = "leave it out: trials are told by what is varied, in files and tables"
            raise ConfigError(f"{key} is a secret and is not varied", where="--over", fix=fix)
        space[key] = _parse_domain(key, text, (Any,) if model is None else annotations_at(model, key), f"--over {word}")
    return space


def sample(space: Space, number: int, seed: int) -> Settings:
    """The settings of trial `number`: a function of the seed and of that number alone. Grids are gone through in order,
    the first setting slowest."""
    rng = np.random.default_rng([seed, number])
    drawn = {key: domain.draw(rng) for key, domain in space.items() if domain.kind != "grid"}
    return drawn | _combinations(space)[number % grid_size(space)]


def grid_size(space: Space) -> int:
    """How many combinations the grids of a space have; 1 without any."""
    return math.prod(len(domain.values) for domain in space.values() if domain.kind == "grid")


def check_space(space: Space, model: type[Config], base: Mapping[str, Any]) -> None:
    """Raise ConfigError if the configuration has no such setting, or refuses one of the values or an end of a range."""
    for key, domain in space.items():
        _try_values(key, domain, model, base)


def describe_contents(space: Space, model: type[Config], base: Mapping[str, Any]) -> str:
    """A few digits for what the files and models hold that the configurations of a sweep name, of which plain values
    have the names alone; empty if there are none. Raises ConfigError as `check_space` does."""
    listed = {key: domain for key, domain in space.items() if domain.is_listed}
    varied = [config for key, domain in listed.items() for config in _try_values(key, domain, model, base)]
    configs = [from_values(model, base, {}), *varied]
    return fingerprint(configs) if any(path for config in configs for _, path in find_inputs(config)) else ""


def _try_values(key: str, domain: Domain, model: type[ConfigT], base: Mapping[str, Any]) -> list[ConfigT]:
    """A configuration for each value of one setting."""
    where = f"--over {key}={domain.kind}(…)"
    return [from_values(model, base, {key: value}, where=where) for value in domain.values]


def _combinations(space: Space) -> list[Settings]:
    grids = {key: domain.values for key, domain in space.items() if domain.kind == "grid"}
    return [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]


def _parse_domain(key: str, text: str, annotations: tuple[Any, ...], where: str) -> Domain:
    kind, values = _split(text)
    if kind not in _LISTED + _RANGES:
        fix = suggest(kind, _LISTED + _RANGES)
        raise ConfigError(f"there is no way to draw values called {kind!r}", where=where, fix=fix)
    try:
        listed = read_flow(f"[{values}]")
    except ConfigError:
        fix = "separate them by commas, and put a text that holds , # : or a bracket in quotes"
        raise ConfigError(f"cannot read the values {values!r}", where=where, fix=fix) from None
    walk, typed = Walk(), (float,) if kind in _RANGES else annotations
    found = tuple(walk.value(typed, value, f"{key} {number}") for number, value in enumerate(listed, start=1))
    if walk.problems and kind in _LISTED:
        raise ConfigError("; ".join(walk.problems.values()), where=where)
    if kind in _RANGES:
        found = _ends(kind, found, where)
    elif not found:
        raise ConfigError("no values", where=where, fix=f"write {kind}(a,b)")
    return Domain(kind, found)  # type: ignore[arg-type]


def _split(text: str) -> tuple[str, str]:
    """The name of a domain and its values, in either spelling; a list alone is a choice."""
    name, mark, rest = text.partition("(")
    if mark and name.isidentifier() and rest.endswith(")"):
        return name, rest.removesuffix(")")
    name, mark, rest = text.partition(":")  # a value may hold one too, such as an address
    return (name, rest) if mark and name in _LISTED + _RANGES else ("choice", text)


def _ends(kind: str, values: tuple[Any, ...], where: str) -> tuple[float, float] | tuple[int, int]:
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if len(values) != 2 or len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{kind} takes two numbers", where=where, fix=f"write {kind}(low,high)")
    low, high = numbers
    if low >= high:
        raise ConfigError(f"{low:g} is not below {high:g}", where=where)
    if kind in ("loguniform", "lograndint") and low <= 0:
        raise ConfigError(f"there is no logarithm of {low:g}", where=where, fix="begin above 0")
    if kind in ("randint", "lograndint"):
        if low != int(low) or high != int(high):
            raise ConfigError(f"{kind} takes whole numbers", where=where)
        return int(low), int(high)
    return low, high
