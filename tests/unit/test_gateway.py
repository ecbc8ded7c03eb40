"""The web application in front of services: what it lets through, and what it says to the rest."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from pydantic import Field

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.serve.gateway import Busy, digest, make_app
from squadron.serve.service import Route, Service
from squadron.serve.spec import ServeSpec


class Sum(Config):
    numbers: tuple[float, ...] = Field(min_length=1)


class Total(Config):
    total: float


class Adder:
    def add(self, request: Sum) -> Total:
        if min(request.numbers) < 0:
            raise InputError("a number is negative", fix="leave it out")
        return Total(total=sum(request.numbers))


SERVICES = (Service("adding", Adder, (Route("/v1/sum", "add", Sum, Total, "adds"),)),)


async def ask(service: str, method: str, request: Any) -> Any:
    """What stands for Ray Serve here: the service in this process, with trouble for certain numbers."""
    assert service == "adding"
    if request.numbers[0] == 429:
        raise Busy
    if request.numbers[0] == 504:
        await asyncio.sleep(60)
    if request.numbers[0] == 500:
        raise RuntimeError("a secret of the server's")
    return getattr(Adder(), method)(request)


def send(
    content: bytes | str, *, keys: tuple[str, ...] = (), path: str = "/v1/sum", method: str = "POST", **headers: str
) -> httpx.Response:
    spec = ServeSpec(timeout_s=0.2, max_body_mb=0.01)
    app = make_app(SERVICES, ask, spec, [digest(key) for key in keys])

    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            sent = {"Content-Type": "application/json", **headers}
            return await client.request(method, path, content=content, headers=sent)

    return asyncio.run(exchange())


def message(answer: httpx.Response) -> str:
    (only,) = answer.json()
    assert only == "error" and set(answer.json()["error"]) == {"message", "type", "code"}
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
        ("", 422, "required"),
        ('{"numbers": []}', 422, "numbers: "),
        ('{"numbers": [1, "two"]}', 422, "numbers.1: "),
        ('{"numbers": [1], "number": 2}', 422, "number: Extra inputs"),
        ('{"numbers": [-1]}', 422, "a number is negative; leave it out"),
        ('{"numbers": [429]}', 429, "too many requests wait"),
        ('{"numbers": [504]}', 504, "no answer within 0.2 s"),
        ("[" * 5000, 400, "error parsing the body"),
        ("1" * 11_000, 413, "larger than 0.01 MB"),
        (b"\xff\xfe\x00", 400, ""),
    ],
)
def test_what_is_wrong_with_a_request_is_said(content: bytes | str, status: int, said: str) -> None:
    answer = send(content)
    assert answer.status_code == status and said in message(answer)
    assert answer.headers.get("Retry-After") == ("1" if status == 429 else None)


def test_a_body_that_does_not_say_how_long_it_is_is_cut_off_too() -> None:
    async def endless() -> Any:
        for _ in range(100):
            yield b"1" * 1000

    assert send(endless()).status_code == 413  # type: ignore[arg-type]


def test_another_kind_of_content_is_asked_for_as_json() -> None:
    answer = send('{"numbers": [1]}', **{"Content-Type": "text/plain"})
    assert answer.status_code == 422 and "Content-Type: application/json" in message(answer)


def test_paths_and_methods_that_are_not_there_are_refused_in_the_same_form() -> None:
    assert send("{}", path="/v1/nothing").status_code == 404
    refused = send("", method="GET")
    assert (
        refused.status_code == 405 and message(refused) == "Method Not Allowed" and refused.headers["Allow"] == "POST"
    )


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
    assert set(operation["responses"]) == {"200", "400", "401", "413", "422", "429", "500", "504"}
    assert operation["security"] == [{"HTTPBearer": []}]
    errors = {
        answer["content"]["application/json"]["schema"]["$ref"]
        for status, answer in operation["responses"].items()
        if status != "200"
    }
    assert errors == {"#/components/schemas/ErrorAnswer"}
