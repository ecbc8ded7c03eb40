"""A chat model on Ray Serve: what befalls replicas befalls no request."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
import yaml

from squadron.core.cli import main
from squadron.core.errors import ConfigError, InputError, ResourceError
from squadron.core.profile import WorkerResources
from squadron.serve.chat import chat_service
from squadron.serve.deploy import build
from squadron.serve.serving import APPLICATION, application, start, stop, vllm_for
from squadron.serve.spec import ServeSpec
from tests.drivers import free_port, free_ports
from tests.finished import store_flame_run
from tests.llm.tiny import store_tiny_chat

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.slow]
REQUESTS = 240


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return store_tiny_chat(tmp_path_factory.mktemp("models") / "chat", [f"say {number} words" for number in range(40)])


def service(path: str, rows: int) -> Any:
    return chat_service("tiny", path, WorkerResources(cpus=0.5), max_rows=rows)


@pytest.fixture
def spec(path: str, ray_cluster: object) -> Iterator[ServeSpec]:
    spec = ServeSpec(port=free_port(), replicas=2, queue=200, timeout_s=120)
    spec = start([service(path, 16)], spec)
    yield spec
    stop()


def test_a_killed_replica_and_a_rolling_update_lose_no_request(spec: ServeSpec, path: str) -> None:
    """Every request is answered once, with the one answer that its seed has, streamed or whole."""
    answers: dict[int, set[str]] = defaultdict(set)
    done: list[int] = []

    async def ask(client: httpx.AsyncClient, gate: asyncio.Semaphore, number: int) -> None:
        kind, streams = number % 5, number % 2 == 0
        asked = {
            "model": "tiny", "messages": [{"role": "user", "content": f"say {kind} words"}], "seed": kind,
            "max_tokens": 30, "stream": streams,
        }  # fmt: skip
        async with gate:
            reply = await client.post(f"http://127.0.0.1:{spec.port}/v1/chat/completions", json=asked)
        assert reply.status_code == 200, reply.text
        answers[kind].add(_streamed(reply.text) if streams else reply.json()["choices"][0]["message"]["content"])
        done.append(number)

    async def after(count: int) -> None:
        while len(done) < count:
            await asyncio.sleep(0.02)

    async def trouble() -> None:
        await after(REQUESTS // 8)
        _kill_one()
        await after(REQUESTS // 2)
        update = application([service(path, 17)], spec, [])
        await asyncio.to_thread(lambda: ray.serve.run(update, name=APPLICATION))

    async def everything() -> None:
        gate = asyncio.Semaphore(16)
        async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=16)) as client:
            await asyncio.gather(trouble(), *(ask(client, gate, number) for number in range(REQUESTS)))

    asyncio.run(everything())
    assert sorted(done) == list(range(REQUESTS))
    assert {kind: len(texts) for kind, texts in answers.items()} == dict.fromkeys(range(5), 1)
    ready = httpx.get(f"http://127.0.0.1:{spec.port}/ready")
    assert ready.status_code == 200 and ready.json() == {"ready": True, "waiting_for": []}


def _streamed(text: str) -> str:
    assert text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert len({chunk["id"] for chunk in chunks}) == 1
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def _kill_one() -> None:
    found = [one for one in ray.util.list_named_actors(all_namespaces=True) if "#tiny#" in one["name"]]
    ray.kill(ray.get_actor(found[0]["name"], namespace=found[0]["namespace"]), no_restart=False)


def gone() -> Any:
    raise InputError("the weights are gone", fix="run the job again")


@pytest.mark.usefixtures("ray_cluster")
def test_what_a_replica_cannot_load_is_said_in_its_words(path: str) -> None:
    broken = replace(service(path, 4), build=gone)
    with pytest.raises(ResourceError, match="tiny cannot be served: the weights are gone"):
        start([broken], ServeSpec(port=free_port()))
    assert APPLICATION not in ray.serve.status().applications


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_serves_where_it_is_and_is_asked_for_in_vain_elsewhere(path: str) -> None:
    for engine in ("auto", "own"):
        assert vllm_for(service(path, 4), ServeSpec(engine=engine)) is None
    with pytest.raises(ConfigError, match="vLLM is not installed"):
        start([service(path, 4)], ServeSpec(port=free_port(), engine="vllm"))
    assert APPLICATION not in ray.serve.status().applications


def test_a_file_for_serve_deploy_describes_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve.schema import ServeDeploySchema

    run, file = store_flame_run(tmp_path / "run", 16), tmp_path / "server.yaml"
    port, inner = free_ports(2)
    settings = [f"port={port}", f"inner_port={inner}", "autoscaling.max_replicas=2", "--deploy-file", str(file)]
    assert main(["serve", str(run), str(run), *settings]) == 0
    config = yaml.safe_load(file.read_text())
    schema = ServeDeploySchema.model_validate(config)
    assert (schema.http_options.host, schema.http_options.port) == ("127.0.0.1", inner)
    assert schema.applications[0].import_path == "squadron.serve.deploy:build"
    arguments = schema.applications[0].args
    with pytest.raises(ConfigError, match="anybody who reaches"):
        build({**arguments, "settings": {"host": "0.0.0.0"}})
    monkeypatch.setenv("SQUADRON_API_KEYS", "a-key")
    ray.serve.start(http_options=config["http_options"])
    try:
        ray.serve.run(build(arguments), name=APPLICATION)
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/health").json()["services"] == ["flame", "flame-watch", "flame-2", "flame-watch-2"]
        assert httpx.post(f"{url}/flame-2/v1/act", json={}).status_code == 401
        refused = httpx.post(f"{url}/flame-2/v1/act", json={}, headers={"Authorization": "Bearer a-key"})
        assert refused.status_code == 400 and "robots" in refused.json()["error"]["message"]
        deployments = ray.serve.status().applications[APPLICATION].deployments
        assert set(deployments) == {"gateway", "flame", "flame-watch", "flame-2", "flame-watch-2"}
    finally:
        stop()
