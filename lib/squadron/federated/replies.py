"""What is looked at before and after a strategy: methods that nobody calls, and replies that do not fit together."""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from squadron.core.errors import ConfigError, InputError

CALLED = ("configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate")
_NEVER_CALLED = {
    "start": "its rounds are run here, with the whole state saved after each",
    "configure_fit": "Flower calls it configure_train now",
    "aggregate_fit": "Flower calls it aggregate_train now",
    "initialize_parameters": "the first model is given to `federate`",
    "evaluate": "give `federate` an evaluate_fn",
}
_SHOWN = 5

Phase = Literal["train", "evaluate"]
Clients = Callable[[Message], str]
"""What a reply's client is called."""


def check_strategy(strategy: Any) -> list[str]:
    """What is to be said about a strategy, and those that it wraps, before its first round: a sentence for each method
    that it defines and that is never called. Raises ConfigError if it is no strategy of Flower's message API."""
    said = []
    while strategy is not None:
        if not isinstance(strategy, Strategy):
            missing = [name for name in CALLED if not hasattr(strategy, name)]
            what = f"{type(strategy).__name__} is no flwr.serverapp.strategy.Strategy"
            raise ConfigError(what, fix=f"it lacks {', '.join(missing)}" if missing else "make it a subclass")
        for name in sorted(_own_methods(strategy)):
            why = _NEVER_CALLED.get(name)
            if why is None and name not in CALLED and (near := get_close_matches(name, CALLED, 1, 0.85)):
                why = f"did you mean {near[0]}?"
            if why is not None:
                said.append(f"{type(strategy).__name__}.{name} is never called: {why}")
        strategy = getattr(strategy, "strategy", None)
    return said


def _own_methods(strategy: Strategy) -> set[str]:
    """The public methods that are neither Flower's nor reached from a method that is called."""
    own = [kind for kind in type(strategy).__mro__ if not kind.__module__.startswith(("flwr.", "builtins", "abc"))]
    codes = [value for kind in own for value in vars(kind).values() if inspect.isfunction(value)]
    named = {name for function in codes for name in (*function.__code__.co_names,)}
    found = {name for kind in own for name, value in vars(kind).items() if inspect.isfunction(value)}
    found |= {name for name, value in vars(strategy).items() if name in _NEVER_CALLED and callable(value)}
    return {name for name in found if not name.startswith("_") and (name == "start" or name not in named)}


def check_replies(strategy: Any, number: int, phase: Phase, replies: Sequence[Message], client: Clients) -> None:
    """Raise InputError, naming the round and the clients, where replies cannot be averaged as Flower's strategies do.

    Only what a strategy leaves to Flower is checked: one with an `aggregate_train` of its own may take any arrays.
    """
    inner = _innermost(strategy)
    answered = [reply for reply in replies if not reply.has_error()]
    if not isinstance(inner, FedAvg) or not answered:
        return
    if problems := [*_misfits(inner, phase, answered, client)]:
        raise InputError(
            f"the replies of round {number} ({phase}) cannot be averaged: {'; '.join(problems)}",
            where=f"round {number}; the rounds before it are saved",
            fix="correct the ClientApp, then give the same command again: it resumes with this round",
        )


def check_model(number: int, arrays: ArrayRecord) -> None:
    """Raise InputError if a strategy makes a model without arrays of the replies of a round."""
    if not arrays:
        what = f"the strategy made a model without arrays in round {number}"
        raise InputError(what, fix="let clients reply with the arrays of the model that they trained")


def explain(error: Exception, number: int, replies: Sequence[Message], client: Clients) -> InputError:
    """What a strategy raised in a round, and where, with what does not fit among the replies that it was given."""
    answered = [reply for reply in replies if not reply.has_error()]
    problems = [*_arrays_misfit(answered, client), *_metrics_misfit(answered, client)] if answered else []
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = f"cannot use the replies of round {number}" if replies else f"failed in round {number}"
    lines = [f"the strategy {what}: {type(error).__name__}: {error}", *problems]
    return InputError("\n  ".join(lines), where=f"{place.filename}, line {place.lineno}, in {place.name}")


def _innermost(strategy: Any) -> Any:
    while isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        strategy = inner
    return strategy


def _misfits(strategy: FedAvg, phase: Phase, replies: list[Message], client: Clients) -> Iterator[str]:
    flowers = getattr(type(strategy), f"aggregate_{phase}").__module__.startswith("flwr.")
    metrics_fn = strategy.train_metrics_aggr_fn if phase == "train" else strategy.evaluate_metrics_aggr_fn
    if flowers and phase == "train" and not isinstance(strategy, flower.FedXgbBagging | flower.FedXgbCyclic):
        yield from _arrays_misfit(replies, client)
    if flowers and metrics_fn is aggregate_metricrecords:
        yield from _metrics_misfit(replies, client)
    yield from _weights_misfit(strategy.weighted_by_key, replies, client, required=flowers)


def _arrays_misfit(replies: list[Message], client: Clients) -> Iterator[str]:
    """How arrays differ from those of the first reply."""
    counts = {client(reply): len(reply.content.array_records) for reply in replies}
    if odd := {name: count for name, count in counts.items() if count != 1}:
        yield from _each(odd, lambda count: f"replied with {count} ArrayRecords, where one is expected")
        return
    arrays = {client(reply): _shapes(next(iter(reply.content.array_records.values()))) for reply in replies}
    if empty := {name: shapes for name, shapes in arrays.items() if not shapes}:
        yield from _each(empty, lambda _: "replied with no arrays")
        return
    first = next(iter(arrays))
    yield from _each(
        {name: found for name, shapes in arrays.items() if (found := _differences(shapes, arrays[first]))},
        lambda found: f"replied with the array {found[0]}, {first}'s {found[1]}",
    )


def _metrics_misfit(replies: list[Message], client: Clients) -> Iterator[str]:
    """How metrics differ from those of the first reply."""
    counts = {client(reply): len(reply.content.metric_records) for reply in replies}
    if odd := {name: count for name, count in counts.items() if count != 1}:
        yield from _each(odd, lambda count: f"replied with {count} MetricRecords, where one is expected")
        return
    metrics = {client(reply): _kinds(_metrics(reply)) for reply in replies}
    first = next(iter(metrics))
    yield from _each(
        {name: found for name, kinds in metrics.items() if (found := _differences(kinds, metrics[first]))},
        lambda found: f"replied with the metric {found[0]}, {first}'s {found[1]}",
    )


def _weights_misfit(key: str, replies: list[Message], client: Clients, required: bool) -> Iterator[str]:
    """What is wrong with the numbers that replies are weighted by."""
    weights: dict[str, Any] = {client(reply): _metrics(reply).get(key) for reply in replies}
    if not required:
        weights = {name: weight for name, weight in weights.items() if weight is not None}
    odd = {name: weight for name, weight in weights.items() if not _is_weight(weight)}
    yield from _each(
        odd, lambda weight: f"replied with {key} {_shown(weight)}, where a number of 0 or more is expected"
    )
    if weights and not odd and sum(weights.values()) == 0:
        yield f"no client has examples: {key} is 0 for all of {_listed(list(weights))}"


def _metrics(reply: Message) -> MetricRecord:
    """The first record of metrics in a reply; an empty one if there is none."""
    return next(iter(reply.content.metric_records.values()), MetricRecord())


def _is_weight(weight: Any) -> bool:
    return isinstance(weight, int | float) and 0 <= weight < math.inf


def _shapes(record: ArrayRecord) -> dict[str, str]:
    return {name: f"{array.dtype}{list(array.shape)}" for name, array in record.items()}


def _kinds(metrics: Mapping[str, Any]) -> dict[str, str]:
    return {name: _kind(value) for name, value in metrics.items()}


def _kind(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else "a number"


def _differences(found: dict[str, str], wanted: dict[str, str]) -> tuple[str, str] | None:
    """The first name of which two tables differ, with what is said in each."""
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            return f"{name!r} {found.get(name, 'missing')}", f"is {wanted.get(name, 'missing')}"
    return None


def _each(found: Mapping[str, Any], say: Callable[[Any], str]) -> Iterator[str]:
    """What is wrong with whom: clients of which the same is wrong are named together."""
    by_text: dict[str, list[str]] = {}
    for name, what in found.items():
        by_text.setdefault(say(what), []).append(name)
    for text, names in list(by_text.items())[:_SHOWN]:
        yield f"{_listed(names)} {text}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _shown(weight: Any) -> str:
    return "missing" if weight is None else _kind(weight) if isinstance(weight, list) else f"{weight}"
