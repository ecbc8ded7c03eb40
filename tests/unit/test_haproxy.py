"""HAProxy before the gateway, both as they are served, without Ray: what it ends, and whom that leaves undisturbed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from squadron.core.config import Config
from squadron.core.errors import ConfigError, ResourceError
from squadron.serve.auth_limits import read_key
from squadron.serve.edge import EdgeProxy, EdgeSettings, resolve_proxy
from squadron.serve.gateway import make_app
from squadron.serve.haproxy import HAProxy, find_haproxy
from squadron.serve.service import Context, Event, Route, Service
from squadron.serve.spec import Edge, ServeSpec
from tests.drivers import free_ports, processes

pytestmark = pytest.mark.skipif(find_haproxy() is None, reason="no HAProxy on this machine")
LIMIT_S = 0.5
EDGE = Edge(
    header_timeout_s=LIMIT_S, stalled_timeout_s=LIMIT_S, body_timeout_s=LIMIT_S, idle_timeout_s=LIMIT_S,
    wrong_keys_per_minute=5, requests_without_key_per_minute=40,
)  # fmt: skip
CLIENT = httpx.Client(timeout=10, limits=httpx.Limits(max_keepalive_connections=0))


class Ask(Config):
    wait_s: float = 0
    text: str = ""
    stream: bool = False


class Told(Config):
    text: str


class Waiter:
    """Answers after a while, streams without end, and knows who has gone."""

    def __init__(self) -> None:
        self.gone = threading.Event()

    async def ask(self, service: str, method: str, request: Any, client: str) -> Any:
        await asyncio.sleep(request.wait_s)
        return Told(text=request.text)

    async def stream(self, service: str, method: str, request: Any, context: Context) -> AsyncIterator[list[Event]]:
        try:
            while True:
                yield [Event(1, "x" * 100_000)]
                await asyncio.sleep(0.001)
        finally:
            self.gone.set()

    async def ready(self) -> list[str]:
        return []


@contextmanager
def served(keys: Sequence[str] = ("good",), limits: Edge = EDGE, **settings: Any) -> Iterator[tuple[int, Waiter]]:
    """The port of HAProxy before a gateway."""
    port, inner = free_ports(2)
    spec, waiter = ServeSpec(port=port, edge=limits, **settings), Waiter()
    services = [Service("waiting", Waiter, (Route("/v1/wait", "ask", Ask, Told, "waits", stream="stream"),))]
    app = make_app(services, waiter, spec, [read_key(key) for key in keys])
    server = uvicorn.Server(uvicorn.Config(app, port=inner, log_level="error"))
    thread, proxy = threading.Thread(target=server.run, daemon=True), HAProxy()
    thread.start()
    with ExitStack() as last:
        last.callback(thread.join)
        last.callback(setattr, server, "should_exit", True)
        last.callback(proxy.close)
        proxy.run(spec, inner, keyed=bool(keys))
        while not server.started:
            time.sleep(0.01)
        yield port, waiter


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served() as (port, _):
        yield port


def exchange(port: int, *parts: bytes, timeout_s: float = 10.0) -> tuple[bytes, float]:
    """What comes back for these bytes until the connection ends, and after how many seconds it does."""
    started, got = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:  # ended amid what we send: what it said before may still be there
            pass
        try:
            while part := connection.recv(65536):
                got += part
        except ConnectionError:
            pass
    return got, time.monotonic() - started


def ask(port: int, key: str | None = "good", path: str = "/v1/wait", **sent: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return CLIENT.post(f"http://127.0.0.1:{port}{path}", json=sent, headers=headers)


HEAD = b"POST /v1/wait HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\nContent-Type: application/json\r\n"
ENDED = b"Connection: close\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
HIDDEN = b"GET /stats HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n"
REFUSED = {
    "headers of 64 MB": ((HEAD, b"X: ", *(b"a" * 2**20,) * 64, b"\r\n\r\n"), 400),
    "10,000 headers": ((HEAD, b"X: 1\r\n" * 10_000, b"\r\n"), 400),
    "a URL of 1 MB": ((b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: a\r\n\r\n",), 400),
    "a length twice": ((HEAD + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + HIDDEN,), 400),
    "a length and a sign": ((HEAD + b"Content-Length: +2\r\n\r\n{}",), 400),
    "a space before the colon": ((HEAD + b"Content-Length : 2\r\n\r\n{}",), 400),
    "an unknown coding": ((HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,), 400),
    "two codings": ((CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,), 400),
    "a chunk of no length": ((CHUNKED + b"\r\nxyz\r\n{}\r\n0\r\n\r\n",), 400),
    "a trailer of 1 MB": ((CHUNKED + b"\r\n2\r\n{}\r\n0\r\nX: " + b"a" * 2**20 + b"\r\n\r\n",), 400),
    "a chunk's extension of 1 MB": ((CHUNKED + b"\r\n2;" + b"a" * 2**20 + b"\r\n{}\r\n0\r\n\r\n",), 408),
    "a zero in a header": ((HEAD + b"X: a\0b\r\n\r\n",), 400),
    "garbage": ((b"\x00\x01\x02\r\n\r\n",), 400),
    "a TLS hello": ((bytes.fromhex("1603010200010001fc0303") + b"a" * 500,), 400),
    "HTTP/2": ((b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",), 400),
    "HTTP/0.9": ((b"GET /health\r\n\r\n",), 400),
    "a method for proxies": ((b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",), 405),
    "Ray Serve's own paths": ((b"GET /%2d/routes HTTP/1.1\r\nHost: a\r\n" + ENDED,), 404),
    "an upgrade": ((HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n{}",), 400),
    "100 MB": ((HEAD + b"Content-Length: 104857600\r\n\r\n", *(b"a" * 2**20,) * 100), 413),
    "100 MB in chunks": ((CHUNKED + b"\r\n", *(b"100000\r\n" + b"a" * 2**20 + b"\r\n",) * 100), 413),
    "a packed body": ((HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n" + ENDED + b"{}",), 415),
    "headers that never end": ((HEAD,), 408),
    "a connection that says nothing": ((b"",), 408),
    "a body that never comes": ((HEAD + b"Content-Length: 2\r\n\r\n",), 408),
    "a body that stalls": ((HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 100_000,), 400),
    "a wrong key, and no body": ((HEAD.replace(b"good", b"bad") + b"Content-Length: 2000000\r\n\r\n",), 401),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_below_http_is_refused_and_ended_in_time(port: int, name: str) -> None:
    assert ask(port, text="before").json() == {"text": "before"}
    parts, status = REFUSED[name]
    got, seconds = exchange(port, *parts)
    assert got.startswith(f"HTTP/1.1 {status} ".encode()) and b"HTTP/1.1 2" not in got
    assert seconds < 2 * LIMIT_S + 1 and ask(port, text="after").json() == {"text": "after"}


@pytest.mark.parametrize(
    "request_",
    [
        HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 2\nConnection: close\n\n{}",
        HEAD + b"X: a\r\n  b\r\nContent-Length: 2\r\n" + ENDED + b"{}",
        CHUNKED + ENDED + b"1\r\n{\r\n" + b"1\r\n \r\n" * 10_000 + b"1\r\n}\r\n0\r\n\r\n",
        CHUNKED + b"Content-Length: 2\r\n" + ENDED + b"2\r\n{}\r\n0\r\n\r\n" + HIDDEN,
    ],
    ids=["bare line feeds", "folded headers", "chunks of one byte", "a length and chunks"],
)
def test_what_may_be_read_in_two_ways_reaches_the_server_in_one(port: int, request_: bytes) -> None:
    assert ask(port).status_code == 200
    got, _ = exchange(port, request_)
    assert got.startswith(b"HTTP/1.1 200 ") and got.count(b"HTTP/1.1 ") == 1


def test_who_waits_sends_and_reads_nothing_keeps_nobody_else_waiting(port: int) -> None:
    def times(count: int) -> list[float]:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer good"}) as client:
            taken = []
            for _ in range(count):
                started = time.monotonic()
                assert client.post("/v1/wait", json={}).status_code == 200
                taken.append(time.monotonic() - started)
                time.sleep(0.05)
        return sorted(taken)

    quiet = times(10)
    held: list[socket.socket] = []
    slow = (b"", HEAD, HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 20_000)
    for begun in slow * 100:
        held.append(socket.create_connection(("127.0.0.1", port)))
        held[-1].sendall(begun)
    busy = times(10)
    deadline = time.monotonic() + 3 * LIMIT_S
    for connection in held:
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        assert connection.recv(65536)[:13] in (b"HTTP/1.1 408 ", b"HTTP/1.1 400 ")
        connection.close()
    assert busy[5] < 3 * max(quiet[5], 0.01)


def test_who_reads_nothing_of_a_stream_and_who_leaves_end_its_work() -> None:
    with served() as (port, waiter):
        for leaves in (False, True):
            waiter.gone.clear()
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(HEAD + b'Content-Length: 16\r\n\r\n{"stream": true}')
                time.sleep(0.3)
                assert not waiter.gone.is_set()
                if not leaves:
                    assert waiter.gone.wait(10 * LIMIT_S)
            assert waiter.gone.wait(2 * LIMIT_S)


def test_a_client_that_leaves_while_it_waits_leaves_the_server_as_well() -> None:
    port, inner = free_ports(2)
    with socket.create_server(("127.0.0.1", inner)) as server:
        proxy = HAProxy()
        proxy.run(ServeSpec(port=port), inner, keyed=True)
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            upstream, _ = server.accept()
            upstream.settimeout(5)
            assert upstream.recv(65536).startswith(b"GET / HTTP/1.1\r\n")
        with upstream, pytest.raises(ConnectionResetError):
            upstream.recv(65536)
        proxy.close()


def test_answers_that_take_longer_than_clients_may_stall_arrive() -> None:
    with served() as (port, _):
        assert ask(port, wait_s=2.5 * LIMIT_S, text="late").json() == {"text": "late"}


def test_an_address_that_guesses_keys_is_turned_away_and_keys_that_it_had_are_not() -> None:
    with served(keys=("good", "other")) as (port, _):
        assert ask(port, "good").status_code == 200
        statuses = [ask(port, f"guess-{number}").status_code for number in range(10)]
        assert statuses == [401] * 6 + [429] * 4
        turned_away = ask(port, "other")
        assert turned_away.status_code == 429 and turned_away.headers["Retry-After"] == "60"
        assert turned_away.json()["error"]["type"] == "rate_limit_error"
        assert [ask(port, "good").status_code for _ in range(60)] == [200] * 60


def test_requests_without_a_key_are_counted_by_address() -> None:
    trusted = EDGE.model_copy(update={"trusted_proxies": ("127.0.0.0/8",)})
    for limits, others in ((EDGE, 429), (trusted, 200)):
        with served(limits=limits) as (port, _):
            url, first = f"http://127.0.0.1:{port}/health", {"X-Forwarded-For": "10.0.0.1"}
            statuses = [CLIENT.get(url, headers=first).status_code for _ in range(50)]
            assert statuses == [200] * 40 + [429] * 10
            assert CLIENT.get(url, headers={"X-Forwarded-For": "10.0.0.1, 10.0.0.2"}).status_code == others


def test_a_server_without_keys_turns_nobody_away() -> None:
    with served(keys=()) as (port, _):
        assert {CLIENT.get(f"http://127.0.0.1:{port}/health").status_code for _ in range(100)} == {200}


def test_connections_of_one_address_are_bounded() -> None:
    with served(limits=EDGE.model_copy(update={"connections_per_address": 20})) as (port, _):
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        with contextlib.suppress(ConnectionResetError):  # before it was made, or soon after
            assert exchange(port, HEAD + b"\r\n")[0] == b""
        for connection in held:
            connection.close()
        time.sleep(0.1)
        assert ask(port).status_code == 200


def test_headers_that_steer_ray_serve_do_not_reach_it_and_names_of_requests_only_where_they_are_sound() -> None:
    got: list[bytes] = []

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            got.append(data.lower())
            self.transport.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 8\r\n\r\na secret")

    async def exchange_all() -> list[httpx.Response]:
        port, inner = free_ports(2)
        proxy = HAProxy()
        await asyncio.to_thread(proxy.run, ServeSpec(port=port), inner, keyed=True)
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", inner)
        steering = {
            "X-Request-Timeout-Seconds": "0", "X-Request-Disconnect-Disabled": "?1", "X_Session-Id": "1",
            "Serve-Multiplexed-Model-Id": "1", "X-Squadron-Key": "1", "X-Forwarded-For": "1.2.3.4",
        }  # fmt: skip
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            names = ("a-1.b:2_c", "a" * 129, "a b", "a\t\x01", "é")
            answers = [await client.get("/", headers={**steering, "X-Request-Id": name.encode()}) for name in names]
        server.close()
        await asyncio.to_thread(proxy.close)
        return answers

    answers = asyncio.run(exchange_all())
    assert {answer.status_code for answer in answers if b"a secret" in answer.content} <= {400}
    assert [answer.status_code for answer in answers if answer.status_code != 400] == [503] * len(got)
    assert len(got) >= 4 and all(name not in one for one in got for name in (b"timeout", b"disc", b"sess", b"serve-"))
    assert not any(word in one for one in got for word in (b"squadron", b"forwarded"))
    assert [b"x-request-id" in one for one in got] == [True] + [False] * (len(got) - 1)


def test_new_settings_take_over_without_a_lost_request() -> None:
    with served(limits=Edge()) as (port, _):
        proxy, inner = HAProxy(), free_ports(1)[0]
        spec = ServeSpec(port=inner)
        proxy.run(spec, port, keyed=False)
        ended, statuses = threading.Event(), list[int]()

        def go_on() -> None:
            while not ended.is_set():
                statuses.append(CLIENT.get(f"http://127.0.0.1:{inner}/health").status_code)

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(go_on)
            for connections in (100, 200, 300):
                limits = Edge(connections=connections)
                proxy.run(spec.model_copy(update={"edge": limits}), port, keyed=False)
            ended.set()
            asking.result()
        assert len(statuses) > 10 and set(statuses) == {200}
        proxy.close()
        assert not proxy.running()


def test_an_edge_starts_what_was_killed_and_heeds_the_newest_settings() -> None:
    first, second, inner = free_ports(3)
    old = EdgeSettings(ServeSpec(port=first, inner_port=inner), keyed=True)
    new = EdgeSettings(ServeSpec(port=second, inner_port=inner), keyed=True)
    kept = EdgeProxy(missed_after_s=3600)
    for settings in (old, new, old):
        kept.keep(settings)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first))
    for process in processes("squadron-haproxy"):
        process.kill()
        process.wait()
    kept.keep(old)
    socket.create_connection(("127.0.0.1", second)).close()
    kept.close()
    assert not processes("squadron-haproxy")


def test_an_edge_that_nobody_keeps_ends() -> None:
    port, inner = free_ports(2)
    left = threading.Event()
    kept = EdgeProxy(missed_after_s=1, leave=left.set)
    kept.keep(EdgeSettings(ServeSpec(port=port, inner_port=inner), keyed=True))
    assert left.wait(60)
    assert not processes("squadron-haproxy")


def test_without_haproxy_only_this_machine_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_proxy(ServeSpec(host="0.0.0.0")).proxy == "haproxy"
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/none")
    assert resolve_proxy(ServeSpec()).proxy == "none"
    assert resolve_proxy(ServeSpec(host="0.0.0.0", proxy="none")).proxy == "none"
    for spec in (ServeSpec(host="0.0.0.0"), ServeSpec(proxy="haproxy")):
        with pytest.raises(ConfigError, match="no HAProxy"):
            resolve_proxy(spec)


def test_haproxy_that_cannot_start_says_why() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        proxy = HAProxy()
        with pytest.raises(ResourceError, match="HAProxy does not start"):
            proxy.run(ServeSpec(port=taken.getsockname()[1]), free_ports(1)[0], keyed=True)
        proxy.close()
