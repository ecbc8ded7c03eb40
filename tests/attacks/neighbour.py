"""The neighbour: a client with a key that asks each service once a second, in a process of its own, so that nothing
that an attacker computes is counted as the server's time.

    python tests/attacks/neighbour.py '{"host": …, "port": …, "requests": {"chat": "…"}}'

`requests` are whole HTTP requests as text. Each answer is a line of JSON: service, outcome, seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVERY_S, PATIENCE_S = 1.0, 30.0


@dataclass
class Neighbour:
    """What the neighbour has seen: by service, the seconds of its answers, and outcomes other than 200."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def take(self, line: dict[str, Any]) -> None:
        self.seconds.setdefault(line["service"], []).append(line["seconds"])
        if line["outcome"] != "200":
            self.failed.append((line["service"], line["outcome"]))


@contextmanager
def neighbour(host: str, port: int, requests: Mapping[str, bytes]) -> Iterator[Neighbour]:
    """A neighbour for as long as the block runs; requests under way at its end are waited for."""
    told = {name: sent.decode() for name, sent in requests.items()}
    words = [sys.executable, __file__, json.dumps({"host": host, "port": port, "requests": told})]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    seen = Neighbour()
    with process:
        assert process.stdin is not None and process.stdout is not None
        listening = threading.Thread(target=_listen, args=(process.stdout, seen))
        listening.start()
        yield seen
        process.stdin.close()
        listening.join()


def _listen(lines: Iterable[str], seen: Neighbour) -> None:
    for line in lines:
        seen.take(json.loads(line))


async def _ask(host: str, port: int, requests: Mapping[str, str]) -> None:
    from tests.attacks.wire import Place, exchange

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    begun = loop.time()

    async def one(service: str, sent: bytes) -> None:
        reply = await exchange(Place(host, port), [sent], timeout_s=PATIENCE_S)
        print(json.dumps({"service": service, "outcome": reply.outcome, "seconds": reply.seconds}), flush=True)

    under_way: set[asyncio.Task[None]] = set()
    turn = 0
    while not ended.is_set():
        for number, (service, text) in enumerate(requests.items()):
            due = begun + EVERY_S * (turn + number / len(requests))
            await asyncio.sleep(max(0.0, due - loop.time()))
            if ended.is_set():
                break
            task = asyncio.create_task(one(service, text.encode()))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        turn += 1
    await asyncio.gather(*under_way)


if __name__ == "__main__":
    asyncio.run(_ask(**json.loads(sys.argv[1])))
