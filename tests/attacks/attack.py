"""What an attack is, and who carries it out."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.attacks.wire import Place, Reply, as_json, exchange, request

PATIENCE_S = 16.0
"""After so long a connection that is neither answered nor closed counts as held."""
ATTACKER, LIMITED, NEIGHBOUR = "the-attackers-key", "the-limited-key", "the-neighbours-key"
CHAT, COMPLETE, EMBED, PLAN, ACT, WATCH = (
    f"/v1/{name}" for name in ("chat/completions", "completions", "embeddings", "plan", "act", "watch")
)
MODEL, EMBEDDER = "tiny", "embedder"


@dataclass
class Attacker:
    """Sends what attacks send, and counts what became of it. `share` is how much of an attack's volume it sends."""

    place: Place
    keyed: bool = True
    share: float = 1.0
    seen: Counter[str] = field(default_factory=Counter)
    leaks: list[bytes] = field(default_factory=list)

    async def raw(self, *parts: bytes, pause_s: float = 0.0, timeout_s: float = PATIENCE_S) -> Reply:
        """Send these bytes on a connection of their own."""
        reply = await exchange(self.place, parts, pause_s, timeout_s)
        self.seen[reply.outcome] += 1
        if b"Traceback" in reply.body or b'File "/' in reply.body:
            self.leaks.append(reply.body[:300])
        return reply

    async def send(
        self, method: str, path: str, body: Any = b"", key: str | None = ATTACKER,
        headers: Mapping[str, str] | None = None, timeout_s: float = PATIENCE_S,
    ) -> Reply:  # fmt: skip
        """Send one request."""
        given = {"Content-Type": "application/json", **self.authorization(key), **(headers or {})}
        return await self.raw(request(method, path, given, as_json(body)), timeout_s=timeout_s)

    def authorization(self, key: str | None = ATTACKER) -> dict[str, str]:
        """The header that presents a key, where the server has keys."""
        return {"Authorization": f"Bearer {key}"} if key is not None and self.keyed else {}

    def times(self, most: int) -> range:
        """How often this attacker does what the whole attack does so many times."""
        return range(math.ceil(most * self.share))

    async def together(self, work: Iterable[Awaitable[Any]]) -> None:
        """Do all of this at once."""
        await asyncio.gather(*work)


Act = Callable[[Attacker], Awaitable[None]]


@dataclass(frozen=True)
class Attack:
    """`act` sends what the attack sends. `expects` are the outcomes that are allowed: statuses, and `closed`."""

    name: str
    act: Act
    expects: frozenset[str]


_BUSY = frozenset({"408", "429", "503", "504"})
"""What a server may tell anybody while it has too much to do."""


def attack(name: str, act: Act, expects: str) -> Attack:
    """An attack by its name, with the outcomes that are allowed, between blanks."""
    return Attack(name, act, frozenset(expects.split()) | _BUSY)


def post(path: str, *bodies: Any, times: int = 1, key: str | None = ATTACKER, **headers: str) -> Act:
    """Each of these bodies, so many times, all at once."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def act(attacker: Attacker) -> None:
        sent = [as_json(body) for body in bodies]
        await attacker.together(
            attacker.send("POST", path, body, key, named) for body in sent for _ in attacker.times(times)
        )

    return act


def ask(method: str, path: str, times: int = 1, key: str | None = None, **headers: str) -> Act:
    """A request without a body, so many times, all at once."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    async def act(attacker: Attacker) -> None:
        await attacker.together(attacker.send(method, path, b"", key, named) for _ in attacker.times(times))

    return act


def raw(*parts: bytes, times: int = 1, pause_s: float = 0.0, timeout_s: float = PATIENCE_S) -> Act:
    """These bytes, on so many connections at once."""

    async def act(attacker: Attacker) -> None:
        await attacker.together(
            attacker.raw(*parts, pause_s=pause_s, timeout_s=timeout_s) for _ in attacker.times(times)
        )

    return act


def drop(path: str, body: Any, times: int, after_s: float, key: str | None = ATTACKER) -> Act:
    """Send a request so many times, and hang up before it is answered."""

    async def act(attacker: Attacker) -> None:
        sent = as_json(body)
        await attacker.together(
            attacker.send("POST", path, sent, key, timeout_s=after_s * (1 + number % 4))
            for number in attacker.times(times)
        )

    return act


def chat(content: Any = "say 3 words", **more: Any) -> dict[str, Any]:
    """A chat, with these fields."""
    asked = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 8, "temperature": 0}
    return asked | more


def completion(prompt: Any = "say 3 words", **more: Any) -> dict[str, Any]:
    """A completion, with these fields."""
    return {"model": MODEL, "prompt": prompt, "max_tokens": 8, "temperature": 0} | more


def embedding(given: Any = "a text", model: str = EMBEDDER, **more: Any) -> dict[str, Any]:
    """Texts to embed, with these fields."""
    return {"model": model, "input": given} | more
