"""A real OpenAI-compatible server on this machine, in a process of its own, that fails as it is told to.

    with chat_server(seconds=0.05, concurrency=64, too_many=0.1) as server:
        ...  # ask server.base_url
        print(server.stats()["answered"])

What goes wrong is drawn from the seed, the request's bytes and the attempt, so that it is the same in every run. HTTP
is spoken by hand, on one asyncio protocol: a web framework would take much of the CPU that the client is measured with.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

VECTOR_SIZE = 4
UNREADABLE = (
    b"", b"<html><body>Bad Gateway</body></html>", b"null", b"[]", b'"an answer"', b"{", b'{"choices": []}',
    b'{"choices": null, "usage": 5}', b'{"choices": [5]}', b'{"choices": [{}]}', b'{"choices": [{"index": 0}]}',
    b'{"choices": [{"message": {"content": 5}}]}', b'{"choices": [{"text": {"a": 1}}]}', b'{"error": "overloaded"}',
    b"[" * 100_000, b'{"choices": ' + b'[{"a":' * 50_000, b'{"created": ' + b"9" * 5_000 + b"}",
    b'{"choices": [{"message": {"content": "\xff"}}]}', b'{"error": {"message": "\\ud83d"}}',
)  # fmt: skip
"""What is no answer, though the state is 200."""
_ODD, _LONG = "nul \0 esc \x1b line \x85 \u2028 \r \ufeff \ufdd0 \U0010ffff", "long " * 50_000
ODD_TEXTS = (
    ("half \ud83d", "half \ufffd"), ("\ude00", "\ufffd"), ("a\ud83d\ud83d\ude00", "a\ufffd\U0001f600"),
    (_ODD, _ODD), (_LONG, _LONG),
)  # fmt: skip
"""What a model may write, and what is kept of it."""


@dataclass(frozen=True)
class Behaviour:
    """What the server does. The shares of requests that go wrong add up to at most 1."""

    seconds: float = 0.05
    concurrency: int = 64
    too_many: float = 0.0
    errors: float = 0.0
    hangs: float = 0.0
    cuts: float = 0.0
    unreadable: float = 0.0
    odd: float = 0.0  # answers with one of ODD_TEXTS
    seed: int = 0
    retry_after: str | None = "0.2"
    grace: float = 0.1  # what is under way when a pause begins may still arrive for so long
    status: int = 200
    says: str = "as told"
    key: str | None = None
    usage: bool = True
    content: bool = True
    finish_reason: str = "stop"


@dataclass(frozen=True)
class Server:
    """A running server."""

    root: str

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    def stats(self) -> dict[str, Any]:
        """Counts so far: `asked` and `answered` by last message, `requests`, `most_at_once`, `over_limit`, `paused`
        (requests during a pause that the server asked for), `faults` by kind, `first` and `last` body."""
        with urllib.request.urlopen(f"{self.root}/stats") as response:
            stats: dict[str, Any] = json.load(response)
        return stats

    def settled(self, quiet_s: float = 3.0, timeout_s: float = 240.0) -> dict[str, Any]:
        """`stats` once nobody has asked for `quiet_s` seconds: workers of a killed driver may outlive it a while."""
        deadline, last, since = time.monotonic() + timeout_s, -1, time.monotonic()
        while time.monotonic() - since < quiet_s:
            assert time.monotonic() < deadline, "somebody goes on asking"
            if (requests := self.stats()["requests"]) != last:
                last, since = requests, time.monotonic()
            time.sleep(0.1)
        return self.stats()


@contextmanager
def chat_server(**behaviour: Any) -> Iterator[Server]:
    """A server that behaves as the fields of Behaviour say, for as long as the block runs."""
    words = [sys.executable, __file__, json.dumps(asdict(Behaviour(**behaviour)))]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:  # ends it: its input ends then, as it does where this process is killed
        assert process.stdout is not None
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}")


def echo(prompt: str) -> str:
    """What the server answers to a last message."""
    return f"You said: {prompt}"


def vector(text: str) -> list[float]:
    """What the server answers as the embedding of a text."""
    return [byte / 255 for byte in hashlib.sha256(text.encode()).digest()[:VECTOR_SIZE]]


class State:
    """What all connections share."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.concurrency = self.most_at_once = self.over_limit = self.paused = 0
        self.pause_from = self.pause_until = 0.0
        self.first = self.last = b"null"

    def fault(self, body: bytes, attempt: int) -> str:
        """What goes wrong with this attempt; empty if nothing does."""
        drawn_from = b"%d %d " % (self.behaviour.seed, attempt) + body
        draw = int.from_bytes(hashlib.sha256(drawn_from).digest()[:4], "big") / 2**32
        for name in ("too_many", "errors", "hangs", "cuts", "unreadable", "odd"):
            draw -= getattr(self.behaviour, name)
            if draw < 0:
                return name
        return ""

    def stats(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("asked", "answered", "faults", "most_at_once")}
        counts |= {name: getattr(self, name) for name in ("over_limit", "paused")}
        return {
            **counts,
            "requests": self.asked.total(),
            "first": json.loads(self.first),
            "last": json.loads(self.last),
        }


class Connection(asyncio.Protocol):
    """One client, whose requests follow each other."""

    def __init__(self, state: State) -> None:
        self.state, self.behaviour = state, state.behaviour
        self.buffer = b""
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head, length = self.buffer[:end], 0
        at = head.lower().find(b"content-length:")
        if at >= 0:
            length = int(head[at + 15 :].split(b"\r", 1)[0])
        if len(self.buffer) >= end + 4 + length:
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1]
        key = self.behaviour.key
        if path == b"/stats":
            self.send(200, self.state.stats())
        elif key is not None and f"Bearer {key}".encode() not in head:
            self.send(401, {"error": {"message": f"Incorrect API key provided: {_bearer(head)}"}})
        elif path == b"/v1/models":
            self.send(200, {"object": "list", "data": [{"id": "echo", "object": "model"}]})
        elif path in (b"/v1/chat/completions", b"/v1/embeddings"):
            self.take_up(path, body)
        else:
            self.send(404, {"error": {"message": f"no such address: {path.decode()}"}})

    def take_up(self, path: bytes, body: bytes) -> None:
        """Count a request, and answer it when its time has come."""
        state, request = self.state, json.loads(body)
        prompt = request["messages"][-1]["content"] if "messages" in request else " ".join(request["input"])
        state.asked[prompt] += 1
        state.first, state.last = state.first if state.first != b"null" else body, body
        state.paused += state.pause_from + self.behaviour.grace < time.monotonic() < state.pause_until
        state.concurrency += 1
        state.most_at_once = max(state.most_at_once, state.concurrency)
        fault = state.fault(body, state.asked[prompt])
        if state.concurrency > self.behaviour.concurrency:
            state.over_limit += 1
            fault = "too_many"
        self.loop.call_later(self.behaviour.seconds, self.finish, path, request, prompt, fault)

    def finish(self, path: bytes, request: dict[str, Any], prompt: str, fault: str) -> None:
        state = self.state
        state.concurrency -= 1
        if fault:
            state.faults[fault] += 1
        if self.transport.is_closing() or fault == "hangs":
            return
        if fault == "too_many":
            self.ask_for_a_pause()
        elif fault == "errors":
            self.send(500, {"error": {"message": "something went wrong"}})
        elif self.behaviour.status != 200:
            self.send(self.behaviour.status, {"error": {"message": self.behaviour.says}})
        elif fault == "cuts":
            self.transport.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choices": [{"mess')
            self.transport.close()
        elif fault == "unreadable":
            self.send_body(200, _pick(UNREADABLE, prompt))
        else:
            state.answered[prompt] += 1
            text = _pick(ODD_TEXTS, prompt)[0] if fault else echo(prompt)
            made = self.completion(request, prompt, text) if path.endswith(b"completions") else _embeddings(request)
            self.send(200, made)

    def ask_for_a_pause(self) -> None:
        state, wanted = self.state, self.behaviour.retry_after
        if wanted is not None and wanted.replace(".", "", 1).isdigit():
            now = time.monotonic()
            state.pause_from = state.pause_from if now < state.pause_until else now
            state.pause_until = max(state.pause_until, now + float(wanted))
        header = f"Retry-After: {wanted}\r\n" if wanted is not None else ""
        self.send(429, {"error": {"message": "too many requests"}}, header)

    def completion(self, request: dict[str, Any], prompt: str, said: str) -> dict[str, Any]:
        text = said if self.behaviour.content else None
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if said != echo(prompt):
            call = {"id": said, "type": "function", "function": {"name": said, "arguments": said}}
            message |= {"reasoning_content": said, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": self.behaviour.finish_reason}
        made: dict[str, Any] = {"object": "chat.completion", "model": request["model"], "choices": [choice]}
        if self.behaviour.usage:
            made["usage"] = {"prompt_tokens": len(prompt.split()), "completion_tokens": len((text or "").split())}
        return made

    def send(self, status: int, payload: Any, headers: str = "") -> None:
        self.send_body(status, json.dumps(payload, separators=(",", ":")).encode(), headers)

    def send_body(self, status: int, body: bytes, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


def _pick(choices: Sequence[Any], prompt: str) -> Any:
    return choices[hashlib.sha256(prompt.encode()).digest()[0] % len(choices)]


def _embeddings(request: dict[str, Any]) -> dict[str, Any]:
    rows = [{"index": i, "embedding": vector(text)} for i, text in enumerate(request["input"])]
    return {"object": "list", "data": rows[::-1]}  # the index says which is which


def _bearer(head: bytes) -> str:
    return head.partition(b"Bearer ")[2].split(b"\r", 1)[0].decode()


async def _serve(behaviour: Behaviour) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    state = State(behaviour)
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    run(_serve(Behaviour(**json.loads(sys.argv[1]))))
