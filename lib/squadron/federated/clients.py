"""The worker's side of the grid: it visits one client after another with an unmodified Flower ClientApp."""

from __future__ import annotations

import importlib
import random
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from flwr.app import Context, Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from squadron.core.errors import ConfigError, suggest
from squadron.federated.records import dump_records, first_non_finite, load_records, pack, unpack


@dataclass(frozen=True)
class Letter:
    """A message on its way to a client, with all that the client is between visits."""

    metadata: Metadata
    parts: dict[str, Any]  # the message's records: packed, or lying in the object store
    node_config: dict[str, Any]
    run_config: dict[str, Any]
    state: bytes  # context.state, as `dump_records` wrote it
    seed: tuple[int, ...] | None


@dataclass(frozen=True)
class Answer:
    """What a visit brought back: the reply, or an error, and the client's state from now on."""

    metadata: Metadata
    content: Any  # packed records, or None
    error: tuple[int, str] | None
    state: bytes
    non_finite: str


class ClientHost:
    """Holds one ClientApp and lends it to any client."""

    def __init__(self, app: ClientApp | str, check_finite: bool) -> None:
        self._app = load_app(app) if isinstance(app, str) else app
        self._check_finite = check_finite

    def visit(self, letter: Letter) -> Answer:
        """Run the app on one message as the client that the letter is addressed to."""
        metadata = letter.metadata
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = metadata.run_id, metadata.dst_node_id, 1
        content = RecordDict()
        for key, part in letter.parts.items():
            (content[key],) = unpack(ray.get(part) if isinstance(part, ray.ObjectRef) else part).values()
        context = Context(
            run_id=metadata.run_id,
            node_id=metadata.dst_node_id,
            node_config=dict(letter.node_config),
            state=load_records(letter.state),
            run_config=dict(letter.run_config),
        )
        if letter.seed is not None:
            _seed_everything(letter.seed)
        reply = self._app(make_message(metadata=metadata, content=content), context)
        if not isinstance(reply, Message):
            raise TypeError(f"the ClientApp returned {type(reply).__name__} where a Message was expected")
        state = dump_records(context.state)
        if reply.has_error():
            return Answer(reply.metadata, None, (reply.error.code, reply.error.reason or ""), state, "")
        non_finite = first_non_finite(reply.content) if self._check_finite else ""
        return Answer(reply.metadata, None if non_finite else pack(reply.content), None, state, non_finite)


def load_app(reference: str) -> ClientApp:
    """The ClientApp at "module:attribute". Raises ConfigError if there is none."""
    module_name, _, attribute = reference.partition(":")
    if not attribute:
        raise ConfigError(f"{reference!r} names no ClientApp", fix='write "package.module:attribute"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"the ClientApp's module cannot be imported: {error}", where=reference) from error
    app = getattr(module, attribute, None)
    if not callable(app):
        names = [name for name, value in vars(module).items() if isinstance(value, ClientApp)]
        what = f"{module_name} has no ClientApp {attribute!r}"
        raise ConfigError(what, where=reference, fix=suggest(attribute, names))
    return app


def _seed_everything(seed: tuple[int, ...]) -> None:
    """Make the visit's random numbers its own, so that they depend neither on the worker nor on earlier visits."""
    state = np.random.SeedSequence(seed).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(int(state[2]))
