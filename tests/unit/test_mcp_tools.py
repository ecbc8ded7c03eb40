"""One tool in place of many: it finds the tools of real servers, follows their changes, and shows no secret."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.types import Tool

from squadron.core.config import load_config
from squadron.core.errors import ConfigError
from squadron.serve.tools.config import ToolsConfig, filled_in
from squadron.serve.tools.index import FoundTool, ToolIndex, tool_text
from squadron.serve.tools.server import Gateway, tools_server

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = {"command": sys.executable, "args": ["-P", str(ROOT / "tests" / "mcp_upstream.py")]}
KEY = "a-key-that-nobody-is-to-see"


def read(folder: Path, servers: dict[str, Any], **settings: Any) -> ToolsConfig:
    file = folder / "tools.json"
    file.write_text(json.dumps({"mcpServers": servers, **settings}))
    return load_config(ToolsConfig, file)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(60):
        while not await holds():
            await anyio.sleep(0.05)


async def found(client: Client, query: str, k: int = 3) -> tuple[list[str], dict[str, str]]:
    answer = await client.call_tool("search_tools", {"query": query, "k": k})
    assert answer.structured_content is not None, answer
    tools = answer.structured_content["tools"]
    assert all(tool["input_schema"]["type"] == "object" for tool in tools)
    return [f"{tool['server']}/{tool['name']}" for tool in tools], answer.structured_content["unavailable"]


async def called(client: Client, server: str, name: str, **arguments: Any) -> tuple[str, bool]:
    answer = await client.call_tool("call_tool", {"server": server, "name": name, "arguments": arguments})
    return answer.content[0].text, bool(answer.is_error)  # type: ignore[union-attr]


def test_an_agent_finds_and_calls_tools_of_a_server_over_pipes(tmp_path: Path) -> None:
    """The command, as an agent starts it, before a server that it starts itself."""
    read(tmp_path, {"up": {**UPSTREAM, "env": {"UPSTREAM_KEY": "${MY_KEY}"}}}, mode="bm25")
    command = ["-m", "squadron.core.cli", "tools", str(tmp_path / "tools.json")]
    env = {"PYTHONPATH": str(ROOT / "lib"), "MY_KEY": KEY}

    async def talk() -> None:
        async with Client(StdioServerParameters(command=sys.executable, args=command, env=env)) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"search_tools", "call_tool"}
            assert await found(client, "weather in a city", k=1) == (["up/get_weather"], {})
            assert await called(client, "up", "get_weather", city="Rome") == ("sunny in Rome", False)
            assert await called(client, "up", "show_key") == (KEY, False)  # it was handed on
            assert await found(client, "convert money") == ([], {})
            assert await called(client, "up", "learn") == ("learnt", False)

            async def knows() -> bool:
                return (await found(client, "convert money", k=1))[0] == ["up/convert_currency"]

            await until(knows)
            assert await called(client, "up", "convert_currency", amount=2) == ("4", False)
            for server, name in (("up", "get_wether"), ("down", "get_weather")):
                text, wrong = await called(client, server, name)
                assert wrong and f"{server} lists no tool {name}" in text

    anyio.run(talk)


def test_a_server_of_2025_is_followed_and_one_that_refuses_does_not_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    old = {"command": sys.executable, "args": ["-P", str(ROOT / "tests" / "mcp_upstream_2025.py")]}
    leaky = {"command": old["command"], "args": [*old["args"], "leak"], "env": {"UPSTREAM_KEY": "${MY_KEY}"}}
    config = read(tmp_path, {"old": old, "leaky": leaky}, mode="bm25")

    async def talk() -> None:
        with ToolIndex(config) as index:
            async with Gateway(config, index) as gateway, Client(tools_server(gateway), mode="legacy") as client:
                names, unavailable = await found(client, "learn")
                assert names == ["old/learn"] and set(unavailable) == {"leaky"}
                assert "no initialize with" in unavailable["leaky"] and KEY not in unavailable["leaky"]
                assert await called(client, "old", "learn") == ("learnt", False)

                async def knows() -> bool:
                    return (await found(client, "convert money"))[0] == ["old/convert"]

                await until(knows)
                text, wrong = await called(client, "leaky", "learn")
                assert wrong and "leaky lists no tool learn" in text

    anyio.run(talk)


def test_servers_by_address_and_those_that_are_not_there(tmp_path: Path) -> None:
    """A server that comes later is found then; one that cannot start is told by name, without secrets."""
    from tests.drivers import free_port

    port = free_port()
    servers = {
        "web": {"url": f"http://127.0.0.1:{port}/mcp"},
        "gone": {"command": str(tmp_path / "no-such-program")},
        "off": {**UPSTREAM, "disabled": True},
    }
    config = read(tmp_path, servers, mode="bm25", calls=False, start_timeout_s=20)

    async def talk() -> None:
        with ToolIndex(config) as index:
            async with Gateway(config, index) as gateway, Client(tools_server(gateway)) as client:
                assert [tool.name for tool in (await client.list_tools()).tools] == ["search_tools"]
                names, unavailable = await found(client, "weather")
                assert names == [] and set(unavailable) == {"web", "gone"} and "no-such-program" in unavailable["gone"]

                async def knows() -> bool:
                    names, unavailable = await found(client, "weather")
                    return names == ["web/get_weather"] and set(unavailable) == {"gone"}

                process = await anyio.open_process([UPSTREAM["command"], *UPSTREAM["args"], str(port)])
                try:
                    await until(knows)
                finally:
                    process.kill()
                    await process.aclose()
                for wrong in ({"query": " "}, {"query": "weather", "k": 0}):
                    assert (await client.call_tool("search_tools", wrong)).is_error

    anyio.run(talk)


def tool(name: str, description: str, **properties: str) -> Tool:
    schema = {"type": "object", "properties": {key: {"description": text} for key, text in properties.items()}}
    return Tool(name=name, description=description, input_schema=schema)


def test_only_texts_that_are_new_are_embedded(tmp_path: Path) -> None:
    config = read(tmp_path, {"up": UPSTREAM})
    weather, flight = tool("get_weather", "Forecast for a town"), tool("bookFlight", "Buy plane tickets")
    with ToolIndex(config) as index:
        assert index.search("anything", 3) == []
        assert index.update({"a": [weather, flight], "b": [weather]}).added == 3
        assert [(one.server, one.name) for one in index.search("will it rain", 2)] == [
            ("a", "get_weather"), ("b", "get_weather"),
        ]  # fmt: skip
        assert index.search("travel by air", 1)[0].name == "bookFlight"
        same = index.update({"a": [weather, flight], "b": [weather]})
        assert (same.added, same.changed, same.removed, same.embedded) == (0, 0, 0, 0)
        other = tool("get_weather", "Forecast for a town", day="which day, by its date")
        done = index.update({"a": [other, flight], "b": []})
        assert (done.added, done.changed, done.removed, done.embedded) == (0, 1, 1, 1)
        assert index.search("will it rain", 1)[0].input_schema == other.input_schema
        assert index.update({}).removed == 2 and index.search("will it rain", 1) == []
        assert index.update({"a": [flight]}).added == 1 and len(index.search("travel by air", 5)) == 1


def test_a_tool_is_found_by_the_words_of_its_name_and_its_parameters() -> None:
    schema = {"properties": {"id": {"description": "whose"}}}
    found = FoundTool(server="s", name="get_userName", description="", input_schema=schema)
    assert tool_text(found) == "get_userName (get user Name): \nid: whose"
    assert tool_text(FoundTool(server="s", name="x", description="d", input_schema={"properties": [1]})) == "x (x): d"


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"command": "npx", "env": {"API_KEY": KEY}}, "API_KEY is a secret"),
        ({"url": "https://a/mcp", "headers": {"Authorization": f"Bearer {KEY}"}}, "Authorization is a secret"),
        ({"command": "npx", "args": ["--api-key", KEY]}, "secret in it"),
        ({"url": f"https://a/mcp?api_key={KEY}"}, "secret in it"),
        ({"command": "npx", "url": "https://a/mcp"}, "a command or a url"),
        ({}, "a command or a url"),
        ({"command": "npx", "headers": {"A": "b"}}, "has no headers"),
        ({"command": "npx", "type": "http"}, "type http does not fit"),
        ({"comand": "npx"}, "command"),
    ],
)
def test_wrong_servers_are_refused_and_their_secrets_not_shown(
    tmp_path: Path, server: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, {"one": server})
    assert words in str(refused.value) and KEY not in str(refused.value)


def test_secrets_come_from_the_environment_and_are_masked_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from squadron.core.masking import mask_text

    headers = {"Authorization": "Bearer ${TICKETS}", "X-Plain": "1"}
    config = read(tmp_path, {"one": {"url": "https://a/mcp", "headers": headers}})
    value = "an-opaque-word-of-the-tickets"
    monkeypatch.setenv("TICKETS", value)
    assert filled_in(config.servers["one"].headers, "here") == {"Authorization": f"Bearer {value}", "X-Plain": "1"}
    assert value not in mask_text(f"HTTP 401 for {value}")
    monkeypatch.delenv("TICKETS")
    with pytest.raises(ConfigError, match="TICKETS is not set"):
        filled_in(headers, "here")
    assert os.environ.get("TICKETS") is None
