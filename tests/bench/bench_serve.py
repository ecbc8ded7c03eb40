"""A small chat model and an embedder behind HTTP, on this machine's CPUs.

- Tokens per second of 32 concurrent chats against one at a time (bar: 4 times), and against `transformers serve` with
  the same model, with and without its continuous batching (bar: 1.2 times the better).
- Embeddings per second over HTTP against `encode` in this process at the same batch size (bar: 0.8).
- Latency of accepted requests under twice the load that the server takes on, against that of a server just full
  (bar: twice), and that the rest is sent away with 429.
- Milliseconds until what cannot be answered is refused.
- 3,000 requests, among them streams, while a replica is killed and an update rolled out: none may be lost, and each has
  the answer of its seed.

A Llama of 6 layers, 256 wide, with random weights; answers of 100 tokens. In the comparison both
compute in as many threads as there are cores, elsewhere a replica in one. Medians of runs that take turns.

python tests/bench/bench_serve.py [chats] [embeddings] [overload] [refusals] [losses]
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import ray

from squadron.core.profile import WorkerResources
from squadron.llm.embed import PackagedEmbedder, open_embedder
from squadron.serve.chat import chat_service
from squadron.serve.embedding import embedding_service
from squadron.serve.service import Service
from squadron.serve.serving import APPLICATION, application, start, stop
from squadron.serve.spec import ServeSpec
from squadron.train.models.builders import FromConfig
from squadron.train.text.tokenizer import train_tokenizer

CHATS, TOKENS, RUNS, TEXTS, LOSSES = 32, 100, 3, 512, 3000
failed: list[str] = []


def make_model(folder: Path, hidden: int, layers: int) -> str:
    """Random weights; no answer ends before its limit."""
    import torch

    folder.mkdir()
    texts = [path.read_text() for path in sorted(Path(__file__).resolve().parents[2].glob("lib/squadron/*/*.py"))[:80]]
    vocabulary = train_tokenizer(texts, 2000, folder)
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "eos_token_id": 1}
    size: dict[str, Any] = {"hidden_size": hidden, "layers": layers, "heads": 8, "kv_heads": 4}
    size |= {"intermediate_size": 3 * hidden, "context": 1024}
    FromConfig(vocabulary=vocabulary, special_tokens=special, **size)().save_pretrained(folder)
    return str(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def say(label: str, value: str, bar: str = "", holds: bool = True) -> None:
    """Print a figure and its bar, and remember one that is missed."""
    print(f"  {label:<66} {value:>12}  {bar}{'' if holds else '  MISSED'}", flush=True)
    if not holds:
        failed.append(label)


def serve(services: list[Service], **settings: Any) -> str:
    spec = ServeSpec(port=free_port(), timeout_s=300, **settings)
    start(services, spec)
    return f"http://127.0.0.1:{spec.port}"


def ask(model: str, number: int, tokens: int = TOKENS, **more: Any) -> dict[str, Any]:
    return {
        "model": model, "messages": [{"role": "user", "content": f"hello {number}"}], "max_tokens": tokens,
        "temperature": 0, **more,
    }  # fmt: skip


async def rate(url: str, model: str, concurrent: int, count: int) -> float:
    """Tokens per second of `count` chats."""
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=concurrent)) as client:
        gate, started = asyncio.Semaphore(concurrent), time.perf_counter()

        async def one(number: int) -> int:
            async with gate:
                reply = await client.post(f"{url}/v1/chat/completions", json=ask(model, number))
            assert reply.status_code == 200, reply.text
            used = reply.json().get("usage") or {}
            return int(used.get("completion_tokens") or TOKENS)

        tokens = sum(await asyncio.gather(*map(one, range(count))))
        return tokens / (time.perf_counter() - started)


def chats(model: str) -> None:
    """32 at a time, one at a time, and transformers' own server."""
    # Without a number of blocks its cache takes all of the memory.
    paged = ["--continuous-batching", "--cb-block-size", "32", "--cb-num-blocks", "256"]
    peers = {"transformers serve": [], "transformers serve --continuous-batching": paged}
    servers = {}
    for name, words in peers.items():
        port = free_port()
        command = [os.path.join(os.path.dirname(sys.executable), "transformers"), "serve", model, "--port", str(port)]
        process = subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        servers[name] = (process, f"http://127.0.0.1:{port}")
    try:
        rates: dict[str, list[float]] = defaultdict(list)
        for _, peer in servers.values():
            _wait(peer)
        url = serve([chat_service("tiny", model, WorkerResources(cpus=os.cpu_count() or 1))], queue=200)
        for run in range(RUNS + 1):  # the first warms up
            found = {
                "one at a time": asyncio.run(rate(url, "tiny", 1, 4)),
                f"{CHATS} at a time": asyncio.run(rate(url, "tiny", CHATS, 2 * CHATS)),
            }
            for name, (_, peer) in servers.items():
                try:
                    found[name] = asyncio.run(rate(peer, model, CHATS, CHATS))
                except (AssertionError, httpx.HTTPError) as error:
                    print(f"  {name}: {str(error)[:300] or type(error).__name__}")
                    found[name] = 0.0
            for name, value in found.items():
                if run:
                    rates[name].append(value)
    finally:
        for process, _ in servers.values():
            process.kill()
        stop()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in medians.items():
        say(f"{name}, tokens/s", f"{value:,.0f}")
    ours = medians[f"{CHATS} at a time"]
    say(
        "against one at a time",
        f"{ours / medians['one at a time']:.1f} times",
        "bar 4",
        ours >= 4 * medians["one at a time"],
    )
    best = max(medians[name] for name in peers)
    if best:
        say("against the better of transformers' servers", f"{ours / best:.1f} times", "bar 1.2", ours >= 1.2 * best)


def _wait(url: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    raise AssertionError(f"{url} did not start")


def embeddings(model: str) -> None:
    """Vectors of all-MiniLM-L6-v2, 64 texts at a time."""
    texts = [
        f"The {number}th text is about {'this and that, ' * (number % 9)}and nothing else." for number in range(TEXTS)
    ]
    batches = [texts[begin : begin + 64] for begin in range(0, TEXTS, 64)]
    url = serve([embedding_service("embedder", PackagedEmbedder())], queue=200)
    import torch

    torch.set_num_threads(1)  # as the replica has
    with open_embedder(PackagedEmbedder(batch_size=64)) as embedder, httpx.Client(timeout=300) as client:

        def here() -> None:
            for batch in batches:
                embedder.embed(batch)

        def over_http() -> None:
            for batch in batches:
                body = {"model": "embedder", "input": batch, "encoding_format": "base64"}
                assert client.post(f"{url}/v1/embeddings", json=body).status_code == 200

        rates: dict[Callable[[], None], list[float]] = {here: [], over_http: []}
        for run in range(RUNS + 1):
            for work, seen in rates.items():
                started = time.perf_counter()
                work()
                if run:
                    seen.append(TEXTS / (time.perf_counter() - started))
    stop()
    inside, outside = (statistics.median(seen) for seen in rates.values())
    say("embeddings/s in process", f"{inside:,.0f}")
    say("embeddings/s over HTTP", f"{outside:,.0f}")
    say("over HTTP against in process", f"{outside / inside:.2f}", "bar 0.8", outside >= 0.8 * inside)


def overload(model: str) -> None:
    """A server that works on 8 chats and lets 4 wait, asked by 8 and by 24 clients at a time."""
    url = serve([chat_service("tiny", model)], max_parallel=8, queue=4)

    async def latencies(clients: int, each: int) -> tuple[list[float], int, bool]:
        taken: list[float] = []
        refused, told = 0, True
        async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=clients)) as client:

            async def go_on(number: int) -> None:
                nonlocal refused, told
                for _ in range(each):
                    started = time.perf_counter()
                    reply = await client.post(f"{url}/v1/chat/completions", json=ask("tiny", number, 50))
                    if reply.status_code == 200:
                        taken.append(time.perf_counter() - started)
                    else:
                        refused, told = (
                            refused + 1,
                            told and reply.status_code == 429 and "retry-after" in reply.headers,
                        )
                        await asyncio.sleep(0.2)

            await asyncio.gather(*map(go_on, range(clients)))
        return taken, refused, told

    asyncio.run(latencies(4, 1))
    alone, _, _ = asyncio.run(latencies(1, 6))
    full, _, _ = asyncio.run(latencies(8, 6))
    over, refused, told = asyncio.run(latencies(24, 12))
    stop()
    say("seconds, one client: median", f"{statistics.median(alone):.2f}")
    say("seconds, 8 clients: median", f"{statistics.median(full):.2f}")
    say("seconds of those accepted, 24 clients: median", f"{statistics.median(over):.2f}")
    ratio = statistics.median(over) / statistics.median(full)
    say("against 8 clients", f"{ratio:.2f} times", "bar 2", ratio <= 2)
    say("against one client", f"{statistics.median(over) / statistics.median(alone):.2f} times")
    say(f"refused of {refused + len(over)}, each with 429 and Retry-After", str(refused), "", refused > 0 and told)


def refusals(model: str) -> None:
    """Milliseconds until a refusal."""
    os.environ["SQUADRON_API_KEYS"] = "a-key"
    url = serve([chat_service("tiny", model)], max_body_mb=2)
    del os.environ["SQUADRON_API_KEYS"]
    key = {"Authorization": "Bearer a-key", "Content-Type": "application/json"}
    long = json.dumps(ask("tiny", 0) | {"messages": [{"role": "user", "content": "word " * 200_000}]})
    cases: dict[str, tuple[int, dict[str, str], str]] = {
        "no key": (401, {}, "{}"),
        "a wrong key": (401, {"Authorization": "Bearer another"}, "{}"),
        "a body of 3 MB": (413, key, "x" * 3 * 2**20),
        "malformed JSON": (400, key, '{"model": '),
        "a temperature of 1000": (400, key, json.dumps(ask("tiny", 0, temperature=1000))),
        "a prompt of 1 MB": (400, key, long),
    }
    with httpx.Client(timeout=60) as client:
        for name, (status, headers, body) in cases.items():
            taken = []
            for _ in range(10):
                started = time.perf_counter()
                reply = client.post(f"{url}/v1/chat/completions", content=body, headers=headers)
                taken.append(1000 * (time.perf_counter() - started))
                assert reply.status_code == status and "Traceback" not in reply.text, (name, reply.status_code)
            say(f"{name}: {status}", f"{statistics.median(taken):.0f} ms")
    stop()


def losses(model: str) -> None:
    """3,000 requests, a killed replica, a rolling update."""
    spec = ServeSpec(port=free_port(), replicas=2, queue=300, timeout_s=300)
    small = make_model(Path(model).parent / "small", 64, 2)

    def service(rows: int) -> Service:
        return chat_service("tiny", small, WorkerResources(cpus=0.5), max_rows=rows)

    spec = start([service(16)], spec)
    answers: dict[int, set[str]] = defaultdict(set)
    done: list[int] = []

    async def one(client: httpx.AsyncClient, gate: asyncio.Semaphore, number: int) -> None:
        kind, streams = number % 7, number % 4 == 0
        async with gate:
            body = ask("tiny", kind, 20, seed=kind, stream=streams) | {"temperature": 1}
            reply = await client.post(f"http://127.0.0.1:{spec.port}/v1/chat/completions", json=body)
        assert reply.status_code == 200, reply.text
        if streams:
            assert reply.text.endswith("data: [DONE]\n\n"), reply.text[-300:]
            chunks = [json.loads(line[6:]) for line in reply.text.splitlines() if line.startswith("data: {")]
            text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        else:
            text = reply.json()["choices"][0]["message"]["content"]
        answers[kind].add(text)
        done.append(number)

    async def trouble() -> None:
        while len(done) < LOSSES // 6:
            await asyncio.sleep(0.05)
        found = [known for known in ray.util.list_named_actors(all_namespaces=True) if "#tiny#" in known["name"]]
        ray.kill(ray.get_actor(found[0]["name"], namespace=found[0]["namespace"]), no_restart=False)
        while len(done) < LOSSES // 2:
            await asyncio.sleep(0.05)
        update = application([service(17)], spec, [])
        await asyncio.to_thread(lambda: ray.serve.run(update, name=APPLICATION))

    async def everything() -> list[Any]:
        async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=32)) as client:
            gate = asyncio.Semaphore(32)
            work = (one(client, gate, number) for number in range(LOSSES))
            return await asyncio.gather(trouble(), *work, return_exceptions=True)

    errors = [error for error in asyncio.run(everything()) if isinstance(error, BaseException)]
    stop()
    say(f"answered of {LOSSES:,}", f"{len(set(done)):,}", "bar all", not errors and len(set(done)) == LOSSES)
    say("answered twice", str(len(done) - len(set(done))), "bar none", len(done) == len(set(done)))
    say("different answers to one seed", str(sum(len(texts) - 1 for texts in answers.values())), "bar none",
        all(len(texts) == 1 for texts in answers.values()))  # fmt: skip


def main() -> None:
    parts = {part.__name__: part for part in (chats, embeddings, overload, refusals, losses)}
    if len(sys.argv) != 2:  # each in a process and on a cluster of its own
        names = sys.argv[1:] or parts
        sys.exit(max([subprocess.run([sys.executable, __file__, name]).returncode for name in names]))
    print(sys.argv[1], flush=True)
    with tempfile.TemporaryDirectory() as place:
        parts[sys.argv[1]](make_model(Path(place) / "model", 256, 6))
    sys.exit(f"missed: {'; '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
