"""Requests per second to a language model's server that answers in 50 ms, 64 at a time. Bar: 85% of its 1280/s.

The client alone, and the whole of a collection: Ray, an actor, every answer written to disk as it comes. The rate of a
collection is taken at the server, from the first answer to the last; the time of the whole call is shown beside it.

python tests/bench/bench_llm.py
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.llm.backends.openai_client import OpenAiChat
from squadron.llm.batch.collect import QUESTION_TYPES, CollectConfig, collect
from squadron.llm.chat import ChatRequest, user
from squadron.llm.settings import OpenAiModel

sys.path.append(str(Path(__file__).resolve().parents[1] / "llm"))
from server import chat_server

SECONDS, AT_ONCE, REQUESTS, RUNS, COLLECTED = 0.05, 64, 5000, 3, 30_000
LIMIT = AT_ONCE / SECONDS
BAR = 0.85 * LIMIT


def rate(model: OpenAiChat, run: int, requests: int) -> float:
    """Answers per second, of which none may fail."""
    started = time.perf_counter()
    asked = (ChatRequest(str(i), user(f"{run}: what is {i} times 7? " + "word " * 50)) for i in range(requests))
    answered = sum(reply.ok for reply in model.chat(asked))
    assert answered == requests, f"{requests - answered} of {requests} requests failed"
    return requests / (time.perf_counter() - started)


def collection_rate(folder: Path, address: str, questions: int) -> tuple[float, float]:
    """Answers per second of a collection while it runs, and over the whole call."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    run = Run("bench", CollectConfig(), Folder(folder), Profile(name="auto"), track=())
    stage = Stage(run, "collect", "", {}, run.folder / "stages" / "collect-0")
    stage.begin()
    stage.claim_cluster()
    rows = ({"id": str(n), "instruction": f"what is {n} times 7? " + "word " * 50} for n in range(questions))
    write_rows(run.folder, "questions.arrow", rows, QUESTION_TYPES)
    model = OpenAiModel(name="local", model="echo", base_url=address, max_concurrency=AT_ONCE)
    seen: list[tuple[float, int]] = []
    watching = threading.Event()

    def watch() -> None:
        log = folder / "answers"
        while not watching.wait(0.1):
            written = sum(file.stat().st_size for file in log.rglob("*.jsonl"))
            seen.append((time.perf_counter(), written))

    thread = threading.Thread(target=watch)
    thread.start()
    started = time.perf_counter()
    (answers,) = collect(stage, ArrowRows(run.folder, ["questions.arrow"]), [model], CollectConfig())
    whole = time.perf_counter() - started
    watching.set()
    thread.join()
    assert answers.answered == questions, f"{answers.failed} of {questions} requests failed"
    total = seen[-1][1]
    begun = next(moment for moment, written in seen if written > 0)
    ended = next(moment for moment, written in seen if written >= total)
    return questions / (ended - begun), questions / whole


if __name__ == "__main__":
    with chat_server(seconds=SECONDS, concurrency=AT_ONCE) as server:
        settings = OpenAiModel(name="local", model="echo", base_url=server.base_url, max_concurrency=AT_ONCE)
        with OpenAiChat(settings) as model:
            rate(model, 0, 500)
            rates = [rate(model, run, REQUESTS) for run in range(1, RUNS + 1)]
        client = statistics.median(rates)
        with tempfile.TemporaryDirectory() as scratch:
            collected, whole = collection_rate(Path(scratch), server.base_url, COLLECTED)
        assert server.stats()["over_limit"] == 0, "more requests at once than allowed"
    print(f"client alone: {client:.0f} requests/s of {LIMIT:.0f}/s  ({client / LIMIT:.0%}; bar {BAR:.0f}/s)")
    print(f"collection:   {collected:.0f} requests/s of {LIMIT:.0f}/s  ({collected / LIMIT:.0%}; bar {BAR:.0f}/s)")
    print(f"collection with its start, {COLLECTED:,} questions: {whole:.0f} requests/s")
    sys.exit(min(client, collected) < BAR)
