"""The round loop of a Flower strategy, with the whole server state saved after every round."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.exception import AppExitException
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import config_to_str

from squadron.core import console
from squadron.core.config import Config
from squadron.core.errors import ConfigError, SquadronError, WorkerError
from squadron.core.folder import Folder
from squadron.federated.grid import ClientFailure, RayGrid
from squadron.federated.memory import Memory, take_apart
from squadron.federated.records import BufferTable
from squadron.federated.replies import check_model, check_replies, check_strategy, explain
from squadron.federated.state import ServerState, load_state, prepare_save, save_best

_PHASES = ("train", "evaluate", "server")  # each has its own random numbers
_SHOWN_CAUSES = 3
_OF_REPLIES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

Metrics = dict[str, Any]  # of numbers and lists of numbers


class RoundRecord(Config):
    """What happened in one round; round 0 is the model before any training."""

    round: int
    seconds: float = 0
    clients: int = 0  # asked to train
    aggregated: bool = False  # the strategy made a new model
    train: Metrics = {}  # the strategy's aggregate of the clients' training metrics
    evaluate: Metrics = {}  # the same of their evaluation metrics
    server: Metrics = {}  # from evaluate_fn
    failures: tuple[ClientFailure, ...] = ()

    def metric(self, name: str) -> float | None:
        """The metric of this name: the server's, else the clients' evaluation, else their training."""
        for metrics in (self.server, self.evaluate, self.train):
            if name in metrics:
                if isinstance(metrics[name], list):
                    raise ConfigError(
                        f"the metric {name!r} is a list of numbers, which has no best", fix="name a number"
                    )
                return float(metrics[name])
        return None


@dataclass(frozen=True)
class FederatedResult:
    """The final model, the history from round 0 on, and the best round if a metric was named."""

    arrays: ArrayRecord
    history: list[RoundRecord]
    best_round: int | None


@dataclass
class _Run:
    """One call of `federate`, as its steps share it."""

    grid: RayGrid
    strategy: Strategy
    folder: Folder
    seed: int
    timeout_s: float
    evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None
    state: ServerState
    saved_clients: dict[int, bytes]
    saver: Executor
    saving: Future[None] | None = None  # the write of the last round, which may still be under way


def federate(
    grid: RayGrid,
    strategy: Strategy,
    initial_arrays: ArrayRecord,
    num_rounds: int,
    folder: Folder,
    *,
    seed: int = 0,
    train_config: ConfigRecord | None = None,
    evaluate_config: ConfigRecord | None = None,
    evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    on_round: Callable[[int, RoundRecord, ArrayRecord], None] | None = None,
    on_resume: Callable[[list[RoundRecord]], None] | None = None,
    timeout_s: float = 3600,
    keep: int = 2,
    best_metric: str | None = None,
    best_mode: Literal["min", "max"] = "min",
) -> FederatedResult:
    """Run `strategy` for `num_rounds` rounds on the clients of `grid`, as `Strategy.start` would.

    After every round the model, the strategy's memory, the clients' states and the history are saved in `folder`,
    while the next round's visits begin; a run that was killed resumes after its last whole saved round and ends with
    the very same weights, because all random numbers are seeded by (`seed`, round) on the server and by (`seed`,
    round, client) on the clients. `on_round` is called after each round with its record and model, for whoever watches:
    a kill may come before it, or before the round is saved. What counts is the history of the result. Rounds that an
    earlier run saved are not repeated; `on_resume` is called first, with their records.
    `timeout_s` bounds each phase of a round. The last `keep` states are kept, and the model of the round with the best
    `best_metric`.

    Raises ConfigError if the strategy asks for more clients than there are, or `folder` holds a run with another
    strategy, model, seed, configuration or number of clients; WorkerError if all clients of a round fail;
    InputError if their replies do not fit together.
    """
    for said in check_strategy(strategy):
        console.say(f"  [yellow]{console.plain(said)}[/yellow]")
    _check_client_counts(strategy, len(grid.get_node_ids()))
    memory = take_apart(strategy, BufferTable())
    made_with = _made_with(memory, initial_arrays, grid, seed, train_config, evaluate_config)
    clients: dict[int, bytes] = {}
    with _quiet_flower(), ThreadPoolExecutor(1, "save") as saver:
        resumed = load_state(folder, strategy, made_with, memory.born, grid)
        if resumed is None:  # strategies write into their configurations, round by round: these are ours to keep
            configs = {"train": train_config or ConfigRecord(), "evaluate": evaluate_config or ConfigRecord()}
            records = RecordDict({name: ConfigRecord(dict(config)) for name, config in configs.items()})
            state = ServerState(0, initial_arrays, records, [], made_with, memory.born)
        else:
            state, clients = resumed
        grid.client_states = clients
        run = _Run(grid, strategy, folder, seed, timeout_s, evaluate_fn, state, dict(clients), saver)
        best = _best(state.history, best_metric, best_mode)
        if on_resume is not None:
            on_resume(_records(state))
        for number in range(len(state.history), num_rounds + 1):
            record = _play(run, number)
            state.round = number
            state.history.append(record.model_dump())
            best, old_best = _best(state.history, best_metric, best_mode), best
            if best_metric is not None and best != old_best:
                save_best(folder, state.arrays, {"round": best, best_metric: record.metric(best_metric)})
            _save(run, keep)
            if on_round is not None:
                on_round(number, record, state.arrays)
        _wait_for_save(run)
    return FederatedResult(state.arrays, _records(state), best)


def _made_with(
    memory: Memory,
    arrays: ArrayRecord,
    grid: RayGrid,
    seed: int,
    train_config: ConfigRecord | None,
    evaluate_config: ConfigRecord | None,
) -> dict[str, Any]:
    """What a saved run must have in common with one that goes on from it."""
    return {
        "strategy": memory.settings(),
        "model": {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()},
        "clients": len(grid.get_node_ids()),
        "seed": seed,
        "train_config": config_to_str(train_config or ConfigRecord()),
        "evaluate_config": config_to_str(evaluate_config or ConfigRecord()),
    }


def _play(run: _Run, number: int) -> RoundRecord:
    """One round: train and aggregate, evaluate on the clients, evaluate on the server."""
    started = time.monotonic()
    run.grid.seed_visits(run.seed, number)
    trained = _train(run, number) if number > 0 else {}
    failures = run.grid.take_failures()
    evaluated = _evaluate(run, number) if number > 0 else {}
    failures += run.grid.take_failures()
    server: Metrics = {}
    if run.evaluate_fn is not None:
        with _seeded(run.seed, number, "server"):
            server = dict(run.evaluate_fn(number, run.state.arrays) or {})
    seconds = time.monotonic() - started
    return RoundRecord(
        round=number, seconds=seconds, server=server, failures=tuple(failures), **trained, evaluate=evaluated
    )


def _train(run: _Run, number: int) -> dict[str, Any]:
    """Send the model out, and put the strategy's new one in its place."""
    state, config = run.state, run.state.configs.config_records["train"]
    replies: list[Message] = []
    with _seeded(run.seed, number, "train"), _explained(run, number, replies):
        messages = run.strategy.configure_train(number, state.arrays, config, run.grid)
        replies += _ask(run, number, messages)
        check_replies(run.strategy, number, "train", replies, run.grid.client_name)
        arrays, metrics = run.strategy.aggregate_train(number, replies)
    if arrays is not None:
        check_model(number, arrays)
        state.arrays = arrays
    return {"clients": len(replies), "aggregated": arrays is not None, "train": dict(metrics or {})}


def _evaluate(run: _Run, number: int) -> Metrics:
    """Let clients judge the model, as many as the strategy asks."""
    state, config = run.state, run.state.configs.config_records["evaluate"]
    replies: list[Message] = []
    with _seeded(run.seed, number, "evaluate"), _explained(run, number, replies):
        messages = run.strategy.configure_evaluate(number, state.arrays, config, run.grid)
        replies += _ask(run, number, messages)
        check_replies(run.strategy, number, "evaluate", replies, run.grid.client_name)
        return dict(run.strategy.aggregate_evaluate(number, replies) or {})


def _ask(run: _Run, number: int, messages: Iterable[Message]) -> list[Message]:
    """Send the messages of one phase. Raises WorkerError if no client at all brings a usable reply."""
    replies = run.grid.send_and_receive(messages, timeout=run.timeout_s)
    if replies and all(reply.has_error() for reply in replies):
        failures = run.grid.take_failures()
        causes = [line for failure in failures[:_SHOWN_CAUSES] for line in _told(failure)]
        raise WorkerError(
            "\n".join([f"all {len(replies)} clients of round {number} failed; the first causes:", *causes]),
            where=f"round {number}; the rounds before it are saved in {run.folder.url}",
            fix="fix the cause, then give the same command again: it resumes with this round",
        )
    return replies


def _told(failure: ClientFailure) -> list[str]:
    """A failure with the end of its traceback and of its worker's log."""
    more = [*failure.detail.rstrip().splitlines()[-4:], *failure.log_lines[-4:]]
    return [f"  {failure}", *(f"    {line}" for line in more)]


def _save(run: _Run, keep: int) -> None:
    states = run.grid.client_states
    changed = {node_id: data for node_id, data in states.items() if run.saved_clients.get(node_id) != data}
    write = prepare_save(run.folder, run.state, run.strategy, changed, keep)
    _wait_for_save(run)
    run.saving = run.saver.submit(write)
    run.saved_clients = states


def _wait_for_save(run: _Run) -> None:
    """Wait until the last round is on the disk, and raise what went wrong there."""
    if run.saving is not None:
        run.saving.result()


def _records(state: ServerState) -> list[RoundRecord]:
    return [RoundRecord.model_validate(entry) for entry in state.history]


def _best(history: list[Any], name: str | None, mode: str) -> int | None:
    """The round with the best metric so far; the first of equals; None if no round has it."""
    if name is None:
        return None
    sign = 1 if mode == "min" else -1
    values = [(RoundRecord.model_validate(entry).metric(name), entry["round"]) for entry in history]
    finite = [(sign * value, number) for value, number in values if value is not None and np.isfinite(value)]
    return min(finite)[1] if finite else None


def _check_client_counts(strategy: Any, available: int) -> None:
    """Flower waits forever for nodes that never come; say so instead."""
    while strategy is not None:
        for name in ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes"):
            asked = getattr(strategy, name, 0)
            if asked > available:
                raise ConfigError(
                    f"{type(strategy).__name__} asks for {name} = {asked}, and there are {available} clients",
                    fix=f"lower {name} or add clients",
                )
        strategy = getattr(strategy, "strategy", None)


@contextlib.contextmanager
def _seeded(seed: int, number: int, phase: str) -> Iterator[None]:
    """Strategies sample with the global generators: give each phase its own numbers, then put the old ones back."""
    python, numpy = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    tensors = torch.get_rng_state() if torch else None
    words = np.random.SeedSequence([seed, number, _PHASES.index(phase)]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    if torch:
        torch.manual_seed(int(words[2]))
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch:
            torch.set_rng_state(tensors)


@contextlib.contextmanager
def _explained(run: _Run, number: int, replies: list[Message]) -> Iterator[None]:
    """Say what the replies of a round have to do with what a strategy raises."""
    try:
        yield
    except SquadronError:
        raise
    except (AppExitException, *_OF_REPLIES) as error:
        raise explain(error, number, replies, run.grid.client_name) from error


@contextlib.contextmanager
def _quiet_flower() -> Iterator[None]:
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
