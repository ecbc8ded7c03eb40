"""Requests per second to a language model's server that answers in 50 ms, 64 at a time. Bar: 85% of its 1280/s.

python tests/bench/bench_llm.py
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from squadron.llm.chat import ChatRequest, user
from squadron.llm.endpoint import OpenAiChat
from squadron.llm.settings import OpenAiModel

sys.path.append(str(Path(__file__).resolve().parents[1] / "llm"))
from server import chat_server

SECONDS, AT_ONCE, REQUESTS, RUNS = 0.05, 64, 5000, 3
LIMIT = AT_ONCE / SECONDS
BAR = 0.85 * LIMIT


def rate(model: OpenAiChat, run: int, requests: int) -> float:
    """Answers per second, of which none may fail."""
    started = time.perf_counter()
    asked = (ChatRequest(str(i), user(f"{run}: what is {i} times 7? " + "word " * 50)) for i in range(requests))
    answered = sum(reply.ok for reply in model.chat(asked))
    assert answered == requests, f"{requests - answered} of {requests} requests failed"
    return requests / (time.perf_counter() - started)


if __name__ == "__main__":
    with chat_server(seconds=SECONDS, at_once=AT_ONCE) as server:
        settings = OpenAiModel(name="local", model="echo", base_url=server.base_url, max_concurrency=AT_ONCE)
        with OpenAiChat(settings) as model:
            rate(model, 0, 500)
            rates = [rate(model, run, REQUESTS) for run in range(1, RUNS + 1)]
        assert server.stats()["over_limit"] == 0, "more requests at once than allowed"
    seen = statistics.median(rates)
    print(f"{seen:.0f} requests/s of {LIMIT:.0f}/s  ({seen / LIMIT:.0%}; bar {BAR:.0f}/s)")
    sys.exit(seen < BAR)
