"""The web application in front of services: what it lets through, and what it says to the rest."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import ConfigError, InputError
from squadron.serve.admission import Busy
from squadron.serve.auth_limits import Allowance, digest, read_key
from squadron.serve.gateway import make_app
from squadron.serve.service import Context, Event, Route, Service, distinct, paths
from squadron.serve.serving import keys
from squadron.serve.spec import KEYS, KeyLimits, ServeSpec


class Sum(Config):
    numbers: tuple[float, ...] = Field(min_length=1)
    stream: bool = False


class Total(Config):
    total: float


class Adder:
    def add(self, request: Sum) -> Total:
        if min(request.numbers) < 0:
            raise InputError("a number is negative", fix="leave it out")
        return Total(total=sum(request.numbers))


SERVICES = (Service("adding", Adder, (Route("/v1/sum", "add", Sum, Total, "adds", stream="count"),)),)


class Here:
    """What stands for Ray Serve here: the service in this process, with trouble for certain numbers."""

    async def ask(self, service: str, method: str, request: Any, client: str) -> Any:
        if request.numbers[0] == 429:
            raise Busy
        if request.numbers[0] == 504:
            await asyncio.sleep(60)
        if request.numbers[0] == 500:
            raise RuntimeError("a secret of the server's")
        return getattr(Adder(), method)(request)

    async def stream(self, service: str, method: str, request: Any, context: Context) -> AsyncIterator[list[Event]]:
        assert method == "count"
        for place, number in enumerate(request.numbers):
            if number == 429:
                raise Busy
            if number < 0:
                raise InputError("a number is negative")
            if number == 500:
                raise RuntimeError("a secret of the server's")
            yield [Event(1, json.dumps({"number": number}), prompt_tokens=0, completion_tokens=place + 1)]

    async def ready(self) -> list[str]:
        return []


def send(
    content: bytes | str, *, keys: tuple[str, ...] = (), path: str = "/v1/sum", method: str = "POST", **headers: str
) -> httpx.Response:
    spec = ServeSpec(timeout_s=0.2 if "504" in str(content) else 60, max_body_mb=0.01)
    return send_to(make_app(SERVICES, Here(), spec, [read_key(key) for key in keys]), content, path, method, headers)


def send_to(
    app: Any,
    content: bytes | str,
    path: str = "/v1/sum",
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            sent = {"Content-Type": "application/json", **(headers or {})}
            return await client.request(method, path, content=content, headers=sent)

    return asyncio.run(exchange())


def message(answer: httpx.Response) -> str:
    (only,) = answer.json()
    assert only == "error" and set(answer.json()["error"]) == {"message", "type", "param", "code"}
    text: str = answer.json()["error"]["message"]
    assert "Traceback" not in answer.text
    return text


def test_a_request_is_answered() -> None:
    answer = send('{"numbers": [1, 2.5]}')
    assert answer.status_code == 200 and answer.json() == {"total": 3.5}
    assert send("", path="/health", method="GET").json() == {"status": "ok", "services": ["adding"]}


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        ('{"numbers": [1', 400, "not JSON"),
        ("", 400, "required"),
        ('{"numbers": []}', 400, "numbers: "),
        ('{"numbers": [1, "two"]}', 400, "numbers.1: "),
        ('{"numbers": [1], "number": 2}', 400, "number: Extra inputs"),
        ('{"numbers": [-1]}', 400, "a number is negative; leave it out"),
        ('{"numbers": [429]}', 429, "too many requests wait"),
        ('{"numbers": [504]}', 504, "no answer within 0.2 s"),
        ("[" * 5000, 400, "nested more than 100 deep"),
        ('{"numbers": ' + "[" * 200 + "]" * 200 + "}", 400, "nested more than 100 deep"),
        ("1" * 11_000, 413, "larger than 0.01 MB"),
        (b"\xff\xfe\x00", 400, "not JSON in UTF-8"),
        ('{"numbers": [1]}'.encode("utf-16"), 400, "not JSON in UTF-8"),
        ('{"numbers": [NaN]}', 400, "no NaN"),
        ('{"numbers": [-Infinity]}', 400, "no -Infinity"),
        ('{"numbers": [1, 1e999]}', 400, "numbers.1: the number is larger"),
        ('{"numbers": [' + "1" * 5000 + "]}", 400, "not JSON that can be read"),
        ('{"numbers": [1], "numbers": [2]}', 400, "the key 'numbers' stands twice"),
        (r'{"numbers": ["\ud800"]}', 400, "numbers.0: half a surrogate pair"),
        (r'{"numbers": [1], "a": [{"\udfff": 1}]}', 400, "half a surrogate pair"),
        ("[1]", 400, "the request"),
        ('"numbers"', 400, "the request"),
        ("null", 400, "the request"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(content: bytes | str, status: int, said: str) -> None:
    answer = send(content)
    assert answer.status_code == status and said in message(answer)
    assert answer.json()["error"]["type"] == ("invalid_request_error" if status in (400, 413) else ANY)
    assert answer.headers.get("Retry-After") == ("1" if status == 429 else None)


@pytest.mark.parametrize(
    ("content", "param", "code"),
    [
        ('{"numbers": [1, "two"]}', "numbers.1", "invalid_value"),
        ('{"numbers": [1], "number": 2}', "number", "unknown_parameter"),
        ('{"stream": true}', "numbers", "missing_required_parameter"),
        ('{"numbers": 1}', "numbers", "invalid_type"),
        ('{"numbers"', None, "invalid_json"),
        (r'{"numbers": ["\ud800"]}', "numbers.0", "invalid_value"),
    ],
)
def test_a_refusal_names_the_parameter_and_has_a_code(content: str, param: str | None, code: str) -> None:
    error = send(content).json()["error"]
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize("model", ["none", "%ED%A0%80", "%FF", "%00", "a/b", "%F0%9F%98%80", "x" * 5000])
def test_a_model_that_is_not_there_has_any_name(model: str) -> None:
    answer = send("", path=f"/v1/models/{model}", method="GET")
    assert answer.status_code == 404 and "no model called" in message(answer)
    assert answer.json()["error"]["code"] == "model_not_found"


def test_a_body_that_does_not_say_how_long_it_is_is_cut_off_too() -> None:
    async def endless() -> Any:
        for _ in range(100):
            yield b"1" * 1000

    assert send(endless()).status_code == 413  # type: ignore[arg-type]


def test_another_kind_of_content_is_asked_for_as_json() -> None:
    answer = send('{"numbers": [1]}', **{"Content-Type": "text/plain"})
    assert answer.status_code == 400 and "Content-Type: application/json" in message(answer)


def test_paths_and_methods_that_are_not_there_are_refused_in_the_same_form() -> None:
    assert send("{}", path="/v1/nothing").status_code == 404
    refused = send("", method="GET")
    assert refused.status_code == 405 and message(refused) == "send POST here" and refused.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer first", 200),
        ("bearer second", 200),
        ("Bearer third", 401),
        ("Bearer ", 401),
        ("first", 401),
        ("Basic first", 401),
        ("", 401),
        ("Bearer first,second", 401),
    ],
)
def test_a_key_is_asked_for_before_anything_is_read(header: str, status: int) -> None:
    answer = send('{"numbers": [1]}', keys=("first", "second"), Authorization=header)
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer" and "key" in message(answer)
        assert send("1" * 11_000, keys=("first",), Authorization=header).status_code == 401
    assert send("", path="/health", method="GET", keys=("first",)).status_code == 200


def test_a_mistake_of_ours_is_logged_under_a_code_and_says_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "squadron.serve"):
        answer = send('{"numbers": [500]}')
    assert answer.status_code == 500 and "secret" not in answer.text
    code = answer.json()["error"]["code"]
    (record,) = [one for one in caplog.records if one.name == "squadron.serve"]
    assert json.loads(record.getMessage())["code"] == code and record.exc_info is not None


def test_the_document_tells_of_every_answer() -> None:
    document = send("", path="/openapi.json", method="GET").json()
    operation = document["paths"]["/v1/sum"]["post"]
    assert set(operation["responses"]) == {"200", "400", "401", "403", "408", "413", "415", "429", "500", "504"}
    assert operation["security"] == [{"HTTPBearer": []}]
    errors = {
        answer["content"]["application/json"]["schema"]["$ref"]
        for status, answer in operation["responses"].items()
        if status != "200"
    }
    assert errors == {"#/components/schemas/ErrorAnswer"}


def test_a_stream_is_server_sent_events_and_what_is_wrong_before_it_begins_an_ordinary_error() -> None:
    answer = send('{"numbers": [1, 2], "stream": true}')
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == 'data: {"number": 1.0}\n\ndata: {"number": 2.0}\n\ndata: [DONE]\n\n'
    assert send('{"numbers": [-1], "stream": true}').status_code == 400
    assert send('{"numbers": [429], "stream": true}').headers["Retry-After"] == "1"
    broken = send('{"numbers": [1, 500], "stream": true}')
    assert broken.status_code == 200 and "secret" not in broken.text and "[DONE]" not in broken.text
    last = json.loads(broken.text.strip().splitlines()[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error" and last["error"]["code"]


def test_a_key_that_has_used_its_share_waits_and_others_do_not() -> None:
    spec = ServeSpec(requests_per_minute=2)
    app = make_app(SERVICES, Here(), spec, [read_key("first"), read_key("second")])
    first, second = {"Authorization": "Bearer first"}, {"Authorization": "Bearer second"}
    statuses = [send_to(app, '{"numbers": [1]}', headers=first).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = send_to(app, '{"numbers": [1]}', headers=first)
    assert 1 <= int(refused.headers["Retry-After"]) <= 30 and "share" in message(refused)
    assert send_to(app, '{"numbers": [1]}', headers=second).status_code == 200
    assert send_to(app, "", "/health", "GET").status_code == 200


def test_a_key_may_have_limits_of_its_own() -> None:
    spec = ServeSpec(
        requests_per_minute=2, max_body_mb=0.01, keys={"small": KeyLimits(max_body_mb=1e-4, requests_per_minute=9)}
    )
    app = make_app(SERVICES, Here(), spec, [read_key("small:first"), read_key("second")])
    first, second = {"Authorization": "Bearer first"}, {"Authorization": "Bearer second"}
    large = '{"numbers": [' + "1, " * 60 + "1]}"
    assert [send_to(app, large, headers=one).status_code for one in (first, second)] == [413, 200]
    assert "larger than 0.0001 MB" in message(send_to(app, large, headers=first))
    for headers, statuses in ((first, [200] * 5), (second, [200, 429, 429, 429, 429])):
        assert [send_to(app, '{"numbers": [1]}', headers=headers).status_code for _ in range(5)] == statuses
    assert send_to(app, "{}", headers={"Authorization": "Bearer small:first"}).status_code == 401


def test_keys_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, "alice:one, two,three:==")
    found = keys(ServeSpec(keys={"alice": KeyLimits(max_tokens=3)}))
    assert [key.name for key in found] == ["alice", digest("two").hex()[:8], "three"]
    assert [key.digest for key in found] == [digest(key) for key in ("one", "two", "==")]
    with pytest.raises(ConfigError, match="no key called bob"):
        keys(ServeSpec(keys={"bob": KeyLimits()}))


def test_tokens_are_counted_to_the_key_that_used_them() -> None:
    app = make_app(SERVICES, Here(), ServeSpec(tokens_per_minute=2), [])
    body = '{"numbers": [1, 2, 3], "stream": true}'
    assert [send_to(app, body).status_code for _ in range(2)] == [200, 429]


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 50)), max_size=30), st.floats(1, 100))
def test_nobody_uses_more_than_a_minute_s_worth_at_once_and_the_rate_in_the_long_run(
    uses: list[tuple[float, float]], rate: float
) -> None:
    now = 0.0
    allowance = Allowance(lambda key: rate, clock=lambda: now)
    used = 0.0
    for pause, amount in uses:
        now += pause
        if allowance.wait_s("key", amount) == 0:
            allowance.use("key", amount)
            used += amount
    largest = max([amount for _, amount in uses], default=0)
    assert used <= rate + rate * now / 60 + largest + 1e-6
    assert allowance.wait_s("another") == 0


def test_requests_are_counted_and_logged_without_what_they_said(caplog: pytest.LogCaptureFixture) -> None:
    for log_prompts in (False, True):
        caplog.clear()
        app = make_app(SERVICES, Here(), ServeSpec(log_prompts=log_prompts), [read_key("first")])
        with caplog.at_level(logging.INFO, "squadron.serve.requests"):
            send_to(app, '{"numbers": [12345]}', headers={"Authorization": "Bearer first"})
            send_to(app, '{"numbers": [12345]}', headers={"Authorization": "Bearer wrong"})
        lines = [json.loads(one.getMessage()) for one in caplog.records if one.name == "squadron.serve.requests"]
        assert [line["status"] for line in lines] == [200, 401] and lines[0]["path"] == "/v1/sum"
        assert ("12345" in caplog.text) == log_prompts and "first" not in caplog.text
        metrics = send_to(app, "", "/metrics", "GET", {"Authorization": "Bearer first"}).text
        assert 'squadron_requests_total{path="/v1/sum",status="200"} 1.0' in metrics
        assert 'squadron_requests_total{path="/v1/sum",status="401"} 1.0' in metrics
    assert send_to(app, "", "/metrics", "GET").status_code == 401


def test_several_runs_behind_one_address() -> None:
    first, second = distinct([*SERVICES, *SERVICES])
    assert (first.name, second.name) == ("adding", "adding-2")
    assert list(paths([first, second])) == ["/v1/sum", "/adding/v1/sum", "/adding-2/v1/sum"]
    app = make_app([first, second], Here(), ServeSpec(), [])
    for path in paths([first, second]):
        assert send_to(app, '{"numbers": [1]}', path).json() == {"total": 1}


def test_the_page_holds_all_that_it_needs() -> None:
    page = send("", path="/", method="GET")
    assert page.status_code == 200 and "/v1/sum" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "http://" not in page.text.replace("http://www.w3.org", "") and "https://" not in page.text
