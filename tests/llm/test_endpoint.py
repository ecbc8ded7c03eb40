"""What a model behind an address promises: every answer once, its limits kept, no more spent than allowed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squadron.core.errors import ConfigError, ResourceError
from squadron.llm.backends.openai_client import OpenAiChat, OpenAiEmbeddings
from squadron.llm.backends.rate_limits import LONGEST_PAUSE_S, TokenBucket, backoff, retry_after
from squadron.llm.batch.budget import LocalBudget, SpendCapReached
from squadron.llm.batch.model_client import chat_entry
from squadron.llm.chat import ChatRequest, ModelUnavailable, Sampling, user
from squadron.llm.settings import OpenAiModel

sys.path.append(str(Path(__file__).parent))
from server import UNREADABLE, Server, chat_server, echo, vector

VARIABLE, KEY = "SQUADRON_TEST_KEY", "sk-never-to-be-seen"
PRICES = {"prompt_usd_per_million": 1000.0, "completion_usd_per_million": 1000.0}


def settings(address: str, **changes: Any) -> OpenAiModel:
    return OpenAiModel(**{"name": "local", "model": "echo", "base_url": address, "max_concurrency": 8, **changes})


def questions(number: int, **sampling: Any) -> list[ChatRequest]:
    return [ChatRequest(f"k{i}", user(f"question {i}"), Sampling(**sampling)) for i in range(number)]


@pytest.fixture(scope="module")
def quick() -> Iterator[Server]:
    """A server that answers at once and never fails."""
    with chat_server(seconds=0.01) as server:
        yield server


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    """A server that takes longer than any test."""
    with chat_server(seconds=60) as server:
        yield server


def test_a_fifth_of_the_attempts_fails_and_every_answer_comes_once_within_the_limits() -> None:
    faults = {"too_many": 0.05, "errors": 0.05, "hangs": 0.05, "cuts": 0.05}
    asked = questions(400)
    with chat_server(seconds=0.02, concurrency=32, seed=2, **faults) as server:
        with OpenAiChat(settings(server.base_url, max_concurrency=32, timeout_s=4)) as model:
            replies = list(model.chat(asked))
        stats = server.stats()
    assert all(reply.ok for reply in replies), [reply.error for reply in replies if not reply.ok]
    assert {reply.key: reply.text for reply in replies} == {f"k{i}": echo(f"question {i}") for i in range(400)}
    assert len(replies) == 400 and set(stats["answered"].values()) == {1}
    assert set(stats["faults"]) == set(faults), "every kind of failure was met"
    assert sum(reply.attempts for reply in replies) == stats["requests"] == 400 + sum(stats["faults"].values())
    assert stats["most_at_once"] <= 32 and stats["over_limit"] == 0


def test_nothing_is_sent_while_a_server_wants_a_pause() -> None:
    with chat_server(seconds=0.01, too_many=0.1, retry_after="0.6", grace=0.3) as server:
        with OpenAiChat(settings(server.base_url)) as model:
            replies = list(model.chat(questions(40)))
        stats = server.stats()
    assert all(reply.ok for reply in replies) and stats["faults"]["too_many"] > 0 and stats["paused"] == 0


def test_what_is_sent() -> None:
    with chat_server(seconds=0) as server, OpenAiChat(settings(server.base_url, system="Be brief.")) as model:
        list(model.chat(questions(1, max_tokens=7)))
        list(model.chat([ChatRequest("k", user("next"), Sampling(seed=0, top_p=0.5, temperature=0.7, stop=("\n",)))]))
        first, last = server.stats()["first"], server.stats()["last"]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "question 0"}]
    assert first == {"model": "echo", "messages": messages, "max_tokens": 7, "temperature": 0.0}
    assert {name: last[name] for name in ("seed", "top_p", "temperature", "stop")} == {
        "seed": 0,
        "top_p": 0.5,
        "temperature": 0.7,
        "stop": ["\n"],
    }


def test_what_is_counted_and_paid(quick: Server) -> None:
    with OpenAiChat(settings(quick.base_url, **PRICES)) as model:
        reply = next(model.chat(questions(1)))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.finish_reason) == (2, 4, "stop")
    assert reply.cost_usd == pytest.approx(6e-3) and reply.attempts == 1 and reply.seconds >= 0.01


def test_tokens_that_a_server_does_not_count_are_estimated() -> None:
    told = {"usage": False, "finish_reason": "length"}
    with chat_server(seconds=0, **told) as server, OpenAiChat(settings(server.base_url)) as model:
        reply = next(model.chat(questions(1)))
    assert (reply.prompt_tokens, reply.completion_tokens, reply.finish_reason) == (3, 5, "length")


def test_an_answer_without_text_is_an_error_that_was_paid() -> None:
    told = {"content": False, "finish_reason": "tool_calls"}
    with chat_server(seconds=0, **told) as server, OpenAiChat(settings(server.base_url, **PRICES)) as model:
        reply = next(model.chat(questions(1)))
    assert "no text" in reply.error and "tool_calls" in reply.error
    assert reply.finish_reason == "error" and reply.cost_usd > 0 and reply.attempts == 1


class Play:
    """Serves one raw HTTP answer, whatever is asked, and counts."""

    def __init__(self, answer: bytes) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.answer, self.asked = answer, 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                while b"}" not in connection.recv(1 << 16):
                    pass
                self.asked += 1
                connection.sendall(self.answer)

    def __enter__(self) -> Play:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def http(body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (headers, len(body), body)


def counted(usage: str, content: str = '"hi"') -> bytes:
    return http(f'{{"choices": [{{"message": {{"content": {content}}}}}], "usage": {usage}}}'.encode())


@pytest.mark.parametrize("body", [*UNREADABLE, b"x" * 100_000], ids=lambda body: body[:20].decode(errors="replace"))
def test_what_is_no_answer_is_a_failure_that_may_have_been_paid(body: bytes) -> None:
    budget = LocalBudget(1.0)
    with Play(http(body)) as server, OpenAiChat(settings(server.address, **PRICES), budget) as model:
        (reply,) = model.chat(questions(1, max_tokens=8))
        assert server.asked == 1
    assert "not the JSON of an answer" in reply.error and reply.finish_reason == "error" and len(reply.error) < 400
    assert reply.cost_usd == pytest.approx(budget.spent_usd) == pytest.approx((10 + 16 + 8) * 1e-3)
    assert budget.reserved_usd == pytest.approx(0)
    chat_entry(reply)["error"].encode()


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [("null", (3, 1)), ("5", (3, 1)), ("[]", (3, 1)), ('{"prompt_tokens": "7", "completion_tokens": null}', (3, 1)),
     ('{"prompt_tokens": -7, "completion_tokens": NaN}', (3, 1)), ('{"prompt_tokens": true}', (3, 1)),
     ('{"prompt_tokens": 7.0, "completion_tokens": 1e400, "cost": -5}', (7, 1)),
     ('{"prompt_tokens": 7, "completion_tokens": 9, "completion_tokens_details": [3]}', (7, 9)),
     ('{"completion_tokens": %s}' % ("9" * 400), (3, 1))],
)  # fmt: skip
def test_tokens_that_a_server_counts_wrongly_are_estimated(usage: str, tokens: tuple[int, int]) -> None:
    with Play(counted(usage)) as server, OpenAiChat(settings(server.address, **PRICES)) as model:
        (reply,) = model.chat(questions(1))
    assert reply.text == "hi" and (reply.prompt_tokens, reply.completion_tokens) == tokens
    assert reply.cost_usd == pytest.approx(sum(tokens) * 1e-3)


def test_what_is_no_answer_costs_what_the_server_counts() -> None:
    usage = '{"prompt_tokens": 3, "completion_tokens": 2}'
    with Play(counted(usage, "5")) as server, OpenAiChat(settings(server.address, **PRICES)) as model:
        (reply,) = model.chat(questions(1))
    assert "not the JSON" in reply.error and reply.cost_usd == pytest.approx(5e-3)


def test_an_answer_in_parts_is_its_text() -> None:
    parts = '[{"type": "thinking", "thinking": []}, {"type": "text", "text": "4"}, {"type": "text", "text": "2"}]'
    with Play(counted("{}", parts)) as server, OpenAiChat(settings(server.address)) as model:
        (reply,) = model.chat(questions(1))
    assert reply.ok and reply.text == "42"


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n-5\r\n}",
     b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", http(b"no gzip", b"Content-Encoding: gzip\r\n")],
)  # fmt: skip
def test_what_is_cut_off_is_asked_again_and_each_time_paid_as_far_as_the_cap_goes(answer: bytes) -> None:
    for cap, attempts, spent in ((1.0, 2, 2), (0.05, 1, 1)):
        budget, worst = LocalBudget(cap), (10 + 16 + 8) * 1e-3
        with Play(answer) as server, OpenAiChat(settings(server.address, max_attempts=2, **PRICES), budget) as model:
            (reply,) = model.chat(questions(1, max_tokens=8))
            assert server.asked == reply.attempts == attempts
        assert "cut off" in reply.error and (cap == 1.0 or "the cap leaves nothing" in reply.error)
        assert reply.cost_usd == pytest.approx(budget.spent_usd) == pytest.approx(spent * worst)
        assert budget.reserved_usd == pytest.approx(0)


def test_a_refused_key_is_named_by_its_variable_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    with chat_server(seconds=0, key="another") as server:
        with OpenAiChat(settings(server.base_url, api_key_env=VARIABLE)) as model:
            with pytest.raises(ModelUnavailable) as caught:
                list(model.chat(questions(20)))
            assert VARIABLE in str(caught.value) and "Incorrect API key provided: ***" in str(caught.value)
            assert KEY not in f"{caught.value!r} {caught.value} {model!r}"
        monkeypatch.setenv(VARIABLE, "another")
        with OpenAiChat(settings(server.base_url, api_key_env=VARIABLE)) as model:
            assert all(reply.ok for reply in model.chat(questions(3)))


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=VARIABLE):
        OpenAiChat(settings("http://127.0.0.1:1/v1", api_key_env=VARIABLE))


def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{reserved.getsockname()[1]}/v1"
        with OpenAiChat(settings(address, max_attempts=2)) as model, pytest.raises(ModelUnavailable) as caught:
            list(model.chat(questions(20)))
    assert address in str(caught.value) and "base_url" in str(caught.value)


def test_a_server_that_goes_away_fails_requests_and_then_the_model() -> None:
    with chat_server(seconds=0) as server:
        model = OpenAiChat(settings(server.base_url, max_attempts=1, max_concurrency=1))
        assert next(model.chat(questions(1))).ok
    failures = []
    with model, pytest.raises(ModelUnavailable):
        for reply in model.chat(questions(20)):
            failures.append(reply)
    assert 2 <= len(failures) <= 3 and not any(reply.ok for reply in failures)


def test_a_bad_request_fails_at_once_and_alone() -> None:
    with chat_server(seconds=0, status=400, says="the context is too long\n" * 100) as server:
        with OpenAiChat(settings(server.base_url)) as model:
            replies = list(model.chat(questions(20)))
        assert set(server.stats()["asked"].values()) == {1}
    assert {reply.attempts for reply in replies} == {1} and len(replies) == 20
    assert all("status 400: the context is too long" in reply.error for reply in replies)
    assert max(len(reply.error) for reply in replies) < 350


def test_no_such_model() -> None:
    with (
        chat_server(seconds=0, status=404, says="The model `echo` does not exist") as server,
        OpenAiChat(settings(server.base_url)) as model,
        pytest.raises(ModelUnavailable, match="does not exist"),
    ):
        list(model.chat(questions(20)))


def test_a_web_page_is_no_model_and_costs_nothing() -> None:
    budget = LocalBudget(1.0)
    page = http(b"<html><body>Please log in</body></html>", b"Content-Type: text/html; charset=utf-8\r\n")
    with (
        Play(page) as server,
        OpenAiChat(settings(server.address, **PRICES), budget) as model,
        pytest.raises(ModelUnavailable, match="Please log in") as caught,
    ):
        list(model.chat(questions(20)))
    assert server.address in str(caught.value) and "base_url" in str(caught.value) and budget.spent_usd == 0


def test_the_attempts_run_out() -> None:
    with chat_server(seconds=0, errors=1.0) as server, OpenAiChat(settings(server.base_url, max_attempts=2)) as model:
        replies = list(model.chat(questions(5)))
    assert {reply.attempts for reply in replies} == {2} and {reply.finish_reason for reply in replies} == {"error"}
    assert all("status 500: something went wrong" in reply.error for reply in replies)


def test_the_rate_is_kept(quick: Server) -> None:
    started = time.monotonic()
    with OpenAiChat(settings(quick.base_url, requests_per_minute=600)) as model:
        assert len(list(model.chat(questions(20)))) == 20
    assert 1.0 <= time.monotonic() - started < 60, "ten at once, the others at ten a second"


def test_a_bucket_spreads_tokens_and_takes_corrections() -> None:
    started = time.monotonic()
    bucket = TokenBucket(6000)
    assert bucket.take(100) == 0
    waits = [bucket.take(50)]
    bucket.give_back(40)
    waits.append(bucket.take(50))
    passed = time.monotonic() - started  # the bucket fills meanwhile
    for wait, expected in zip(waits, (0.5, 0.6), strict=True):
        assert max(0, expected - passed) - 1e-6 <= wait <= expected + 1e-6
    assert TokenBucket(None).take(1e12) == 0


class Watched(LocalBudget):
    """Remembers the most that was ever spent and set aside."""

    most = 0.0

    def reserve(self, usd: float) -> bool:
        free = super().reserve(usd)
        self.most = max(self.most, self.spent_usd + self.reserved_usd)
        return free


def test_the_cap_is_never_exceeded_and_all_that_was_paid_is_given_out(quick: Server) -> None:
    budget, replies = Watched(cap_usd=1.0), []
    model = OpenAiChat(settings(quick.base_url, **PRICES), budget)
    with model, pytest.raises(SpendCapReached, match="max_tokens"):
        for reply in model.chat(questions(1000, max_tokens=100)):
            replies.append(reply)
    worst = (len("question 999") + 16 + 100) * 1e-3
    assert 0.9 < budget.most <= 1.0
    assert 1.0 - worst <= budget.spent_usd == pytest.approx(sum(reply.cost_usd for reply in replies))
    assert budget.reserved_usd == pytest.approx(0) and len(replies) > 100


def test_nothing_is_set_aside_where_nothing_is_paid(quick: Server) -> None:
    with OpenAiChat(settings(quick.base_url), LocalBudget(cap_usd=0.0)) as model:
        assert all(reply.ok for reply in model.chat(questions(3)))


def test_a_million_requests_are_read_as_answers_are_given_out(quick: Server) -> None:
    read, budget = count(), LocalBudget()
    with OpenAiChat(settings(quick.base_url, **PRICES), budget) as model:
        replies = model.chat(ChatRequest(str(next(read)), user(f"lazily {i}")) for i in range(1_000_000))
        for given, _ in enumerate(islice(replies, 40)):
            ahead = int(repr(read)[6:-1]) - given
            assert ahead <= 2 * 8
        replies.close()  # type: ignore[attr-defined]
        assert budget.reserved_usd == pytest.approx(0)
        assert next(model.chat(questions(1))).ok, "the model can be asked again"


def test_closing_early_cancels_what_is_under_way(slow: Server) -> None:
    threads, started = threading.active_count(), time.monotonic()
    with chat_server(seconds=0) as server, OpenAiChat(settings(server.base_url, max_concurrency=2)) as model:
        replies = model.chat(questions(10))
        next(replies)
    with pytest.raises(RuntimeError, match="closed"):
        list(replies)
    with OpenAiChat(settings(slow.base_url)) as model, pytest.raises(ZeroDivisionError):
        list(model.chat(request if i < 8 else 1 / 0 for i, request in enumerate(questions(10))))  # type: ignore[misc]
    assert threading.active_count() == threads and time.monotonic() - started < 50


def test_conversations_asked_in_turn_share_the_limit() -> None:
    with (
        chat_server(seconds=0.02, concurrency=4) as server,
        OpenAiChat(settings(server.base_url, max_concurrency=4)) as model,
    ):
        pairs = list(zip(model.chat(questions(30)), model.chat(questions(30)), strict=True))
        assert len(pairs) == 30 and server.stats()["most_at_once"] == 4


def test_an_interrupt_ends_the_waiting(slow: Server) -> None:
    # A shell that starts the tests in the background has them ignore interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    asked, started = slow.stats()["requests"], time.monotonic()

    def interrupt() -> None:
        while slow.stats()["requests"] == asked:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt), OpenAiChat(settings(slow.base_url)) as model:
            list(model.chat(questions(10)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 50


def test_answers_come_in_while_the_caller_is_busy(quick: Server) -> None:
    with OpenAiChat(settings(quick.base_url, timeout_s=3)) as model:
        replies = model.chat(questions(20))
        next(replies)
        time.sleep(3.5)
        assert {reply.attempts for reply in replies} == {1}


def test_embeddings_keep_the_order_of_their_texts() -> None:
    texts = [f"text {i}" for i in range(50)]
    with chat_server(seconds=0.01, cuts=0.2, errors=0.1) as server:
        with OpenAiEmbeddings("echo", server.base_url, batch_size=3) as model:
            vectors = model.embed(texts)
            assert model.embed([]).shape == (0, 0)
        assert set(server.stats()["faults"]) == {"cuts", "errors"}
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.array([vector(text) for text in texts], np.float32))


def test_texts_that_a_server_refuses() -> None:
    with (
        chat_server(seconds=0, status=400, says="too long") as server,
        OpenAiEmbeddings("echo", server.base_url) as model,
        pytest.raises(ResourceError, match="too long"),
    ):
        model.embed(["text"])


def test_how_long_a_server_asks_to_wait() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    soon = format_datetime(datetime(2030, 1, 1, 0, 0, 7, tzinfo=UTC), usegmt=True)
    assert retry_after({"Retry-After": soon}, now) == 7
    assert retry_after({"Retry-After": soon}, now + 60) == 0
    told = format_datetime(datetime(2030, 1, 1, tzinfo=UTC), usegmt=True)
    assert retry_after({"Retry-After": soon, "Date": told}) == 7, "by the server's clock, whatever ours says"
    assert retry_after({"Retry-After": "1.5"}) == 1.5
    assert retry_after({"Retry-After": "9", "retry-after-ms": "250"}) == 0.25
    assert retry_after({"Retry-After": "86400"}) == LONGEST_PAUSE_S
    assert retry_after({"Retry-After": "-3"}) == 0
    assert [retry_after({"Retry-After": text}) for text in ("nan", "inf", "soon", "")] == [None] * 4
    assert retry_after({}) is None


def test_waits_after_failures_grow_differ_and_repeat() -> None:
    assert backoff("a", 3) == backoff("a", 3) != backoff("b", 3)
    waits = [[backoff(str(key), attempt) for key in range(200)] for attempt in (1, 2, 3, 50)]
    assert [max(wait) for wait in waits] == pytest.approx([0.5, 1, 2, 60], rel=0.05)
