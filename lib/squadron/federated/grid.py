"""A Flower Grid whose nodes live on Ray: unmodified ClientApps and strategies, any number of clients, few workers."""

from __future__ import annotations

import gc
import itertools
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ray
from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from squadron.core.actors import ActorPool, Failure, Outcome
from squadron.core.cluster import connect
from squadron.core.config import Config
from squadron.core.errors import ConfigError
from squadron.core.host import reuse_freed_memory
from squadron.core.profile import WorkerResources
from squadron.federated.clients import Answer, ClientHost, Letter
from squadron.federated.records import Buffer, buffer_of, pack, unpack

FIRST_NODE_ID = 1000  # above the ids that Flower keeps for itself
_CODES = {
    "raised": ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
    "died": ErrorCode.CLIENT_APP_CRASHED,
    "memory": ErrorCode.CLIENT_APP_CRASHED,
    "timeout": ErrorCode.NODE_UNAVAILABLE,
    "start": ErrorCode.LOAD_CLIENT_APP_EXCEPTION,
}


class ClientFailure(Config):
    """A client that brought no usable reply, and why."""

    client: int  # its partition id
    node_id: int
    phase: str  # "train", "evaluate" or "query"
    cause: str  # "raised", "died", "memory", "timeout", "start", "non-finite" or "error"
    message: str
    detail: str = ""
    log_lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"client {self.client} ({self.phase}, {self.cause}): {self.message}"


class RayGrid(Grid):
    """`clients` nodes that run `app`, visited by as many workers as fit.

    `app` is a ClientApp, or a reference "module:attribute" to one that workers can import. `clients` is a number, or
    one mapping a client that is added to its node_config, next to Flower's own partition-id and num-partitions.
    Every visit must end within `client_timeout_s`. With `check_finite`, a reply with NaN or infinite values becomes
    an error reply. A client whose worker dies is visited again, `max_retries` times.

    A client that fails becomes an error reply, which strategies know how to leave out; the failures are listed by
    `take_failures`. Replies come sorted by node id, so that results do not depend on who was fastest.

    Raises ResourceError at once if not even one worker fits.
    """

    def __init__(
        self,
        app: ClientApp | str,
        clients: int | Sequence[Mapping[str, Any]],
        resources: WorkerResources | None = None,
        max_workers: int | None = None,
        *,
        run_config: Mapping[str, Any] | None = None,
        client_timeout_s: float = 3600,
        start_timeout_s: float = 120,
        max_retries: int = 2,
        check_finite: bool = True,
        purpose: str = "federated learning",
    ) -> None:
        extra: Sequence[Mapping[str, Any]] = [{}] * clients if isinstance(clients, int) else clients
        if not extra:
            raise ConfigError("federated learning needs at least one client")
        resources = resources or WorkerResources()
        reuse_freed_memory()  # aggregation makes and frees a model's worth of arrays for each reply
        gc.collect()
        gc.freeze()  # Flower collects garbage by hand for each reply: spare it what exists by now
        cluster = connect()
        cluster.require(1, resources, purpose)
        self._nodes: dict[int, dict[str, Any]] = {
            FIRST_NODE_ID + i: {**config, "partition-id": i, "num-partitions": len(extra)}
            for i, config in enumerate(extra)
        }
        self.set_run(Run.create_empty(run_id=1))
        self._run_config = dict(run_config or {})
        self._client_timeout_s = client_timeout_s
        self._ids = itertools.count(1)
        self._states: dict[int, bytes] = {}
        # By node: its messages in order, for a client is visited by one worker at a time.
        self._queues: dict[int, deque[tuple[Message, dict[str, Any]]]] = {}
        self._requests: dict[str, Message] = {}
        self._replies: dict[str, Message] = {}
        self._failures: list[ClientFailure] = []
        self._stored: list[tuple[list[tuple[str, str, Buffer]], ray.ObjectRef]] = []
        self._seed: tuple[int, ...] | None = None
        count = min(cluster.fit(resources, max_workers), len(extra))
        self._pool = ActorPool(
            lambda: ClientHost(app, check_finite),
            count,
            resources,
            purpose=purpose,
            start_timeout_s=start_timeout_s,
            max_retries=max_retries,
        )

    def __enter__(self) -> RayGrid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers."""
        self._pool.close()

    @property
    def worker_pids(self) -> list[int]:
        return self._pool.pids

    def seed_visits(self, *seed: int) -> None:
        """From now on, random, NumPy and torch are seeded for each visit by these numbers, its phase and its client."""
        self._seed = seed

    def take_failures(self) -> list[ClientFailure]:
        """The clients that failed since the last call, sorted by client."""
        failures, self._failures = sorted(self._failures, key=lambda failure: failure.client), []
        return failures

    @property
    def client_states(self) -> dict[int, bytes]:
        """The context.state that clients keep between visits, by node id, as an .npz file."""
        return dict(self._states)

    @client_states.setter
    def client_states(self, states: Mapping[int, bytes]) -> None:
        self._states = dict(states)

    def client_name(self, reply: Message) -> str:
        """What the client of a reply is called: by its partition id."""
        return f"client {self._nodes.get(reply.metadata.src_node_id, {}).get('partition-id', '?')}"

    def set_run(self, run: Run) -> None:
        self._run = run
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run.run_id, SUPERLINK_NODE_ID, 1

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> list[int]:
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages on their way and return their ids at once. Arrays that they share are stored once."""
        earlier, self._stored = self._stored, []
        ids = []
        for message in messages:
            message_id, node_id = str(next(self._ids)), message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = message_id
            ids.append(message_id)
            self._requests[message_id] = remove_content_from_message(message)
            if node_id not in self._nodes:
                self._fail(message_id, "error", f"there is no node {node_id}", code=ErrorCode.NODE_UNAVAILABLE)
                continue
            queue = self._queues.setdefault(node_id, deque())
            queue.append((self._requests[message_id], self._store(message.content, earlier)))
            if len(queue) == 1:
                self._visit(node_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come to these messages so far; each is handed out once."""
        while (outcome := self._pool.poll(0)) is not None:
            self._receive(outcome)
        replies = [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]
        return sorted(replies, key=_by_node)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and wait for all replies, `timeout` seconds at most; a late reply becomes an error reply."""
        waiting = self.push_messages(messages)
        until = time.monotonic() + (self._client_timeout_s * len(waiting) if timeout is None else timeout)
        left = list(waiting)
        while left:
            if left[-1] in self._replies:  # each message is looked at once, however many there are
                left.pop()
                continue
            outcome = self._pool.poll(max(0.0, until - time.monotonic()))
            if outcome is not None:
                self._receive(outcome)
            elif time.monotonic() >= until:
                self._give_up(timeout or 0)
        replies = [self._replies.pop(message_id) for message_id in waiting]
        return sorted(replies, key=_by_node)

    def _visit(self, node_id: int) -> None:
        """Send a worker to a client with the first message that waits for it."""
        request, parts = self._queues[node_id][0]
        metadata = request.metadata
        seed = None
        if self._seed is not None:
            seed = (*self._seed, int.from_bytes(metadata.message_type.encode(), "big"), node_id)
        letter = Letter(metadata, parts, self._nodes[node_id], self._run_config, self._states.get(node_id, b""), seed)
        self._pool.submit(metadata.message_id, "visit", letter, timeout_s=self._client_timeout_s)

    def _receive(self, outcome: Outcome) -> None:
        message_id = str(outcome.key)
        node_id = self._requests[message_id].metadata.dst_node_id
        if outcome.failure is not None:
            self._fail(message_id, outcome.failure.cause, outcome.failure.message, failure=outcome.failure)
        else:
            self._accept(message_id, node_id, outcome.value)
        queue = self._queues[node_id]
        queue.popleft()
        if queue:
            self._visit(node_id)

    def _accept(self, message_id: str, node_id: int, answer: Answer) -> None:
        if answer.non_finite:
            self._fail(message_id, "non-finite", answer.non_finite)
            return
        if self._states.get(node_id, b"") != answer.state:
            self._states[node_id] = bytes(answer.state)
        if answer.error is not None:
            code, reason = answer.error
            self._fail(message_id, "error", reason, code=code)
            return
        del self._requests[message_id]
        self._replies[message_id] = make_message(metadata=answer.metadata, content=unpack(answer.content))

    def _fail(
        self, message_id: str, cause: str, message: str, *, code: int | None = None, failure: Failure | None = None
    ) -> None:
        """Turn a failure into an error reply that the strategy sees, and keep it for the record."""
        request = self._requests.pop(message_id)
        node_id = request.metadata.dst_node_id
        client = self._nodes.get(node_id, {}).get("partition-id", -1)
        note = ClientFailure(
            client=client,
            node_id=node_id,
            phase=request.metadata.message_type,
            cause=cause,
            message=message,
            detail=failure.detail if failure else "",
            log_lines=failure.log_lines if failure else (),
        )
        self._failures.append(note)
        code = _CODES.get(cause, ErrorCode.CLIENT_APP_RAISED_EXCEPTION) if code is None else code
        self._replies[message_id] = Message(Error(code, f"client {client}: {failure or message}"), reply_to=request)

    def _give_up(self, timeout: float) -> None:
        """Answer for all clients that are still out: their time is up."""
        for outcome in self._pool.abandon():
            self._receive_late(str(outcome.key), timeout)
        for queue in self._queues.values():
            for request, _ in queue:
                self._receive_late(request.metadata.message_id, timeout)
            queue.clear()

    def _receive_late(self, message_id: str, timeout: float) -> None:
        if message_id in self._requests:
            self._fail(message_id, "timeout", f"no reply within the {timeout:g} s of this round")

    def _store(self, content: RecordDict, earlier: list[Any]) -> dict[str, Any]:
        """The content with each array record laid in the object store once, however many messages carry it."""
        return {
            key: self._ref(record, earlier) if isinstance(record, ArrayRecord) else pack(RecordDict({"": record}))
            for key, record in content.items()
        }

    def _ref(self, record: ArrayRecord, earlier: list[Any]) -> ray.ObjectRef:
        fingerprint = [(name, array.stype, buffer_of(array)) for name, array in record.items()]
        for stored in (self._stored, earlier):
            for known, ref in stored:
                if known == fingerprint:
                    if stored is earlier:
                        self._stored.append((known, ref))
                    return ref
        ref = ray.put(pack(RecordDict({"": record})))
        self._stored.append((fingerprint, ref))
        return ref


def _by_node(message: Message) -> tuple[int, int]:
    return message.metadata.src_node_id, int(message.metadata.reply_to_message_id)
