"""A page in headless Chromium, driven by its DevTools protocol."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "about:blank",
)  # fmt: skip


def run_in_page(url: str, scripts: list[str], timeout_s: float = 180) -> list[Any]:
    """Open a page, and give what each script, the body of an asynchronous function, returns there; an error that the
    page did not catch is raised here."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:  # its last writes may come late
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={home}"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return asyncio.run(asyncio.wait_for(_drive(_port(Path(home), timeout_s), url, scripts), timeout_s))
        finally:
            browser.kill()
            browser.wait()


def _port(home: Path, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        file = home / "DevToolsActivePort"
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise AssertionError("the browser did not start")


async def _drive(port: int, url: str, scripts: list[str]) -> list[Any]:
    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://127.0.0.1:{port}/json/new?{url}") as answer:
            target = (await answer.json(content_type=None))["webSocketDebuggerUrl"]
        async with session.ws_connect(target, max_msg_size=2**26) as socket:
            await _call(socket, 1, "Runtime.enable", {})
            while not await _is_there(socket, url):
                await asyncio.sleep(0.05)
            values = []
            for number, script in enumerate(scripts, start=3):
                expression = f"(async () => {{ {script} }})()"
                asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
                result = await _call(socket, number, "Runtime.evaluate", asked)
                assert "exceptionDetails" not in result, json.dumps(result["exceptionDetails"])[:2000]
                values.append(result["result"].get("value"))
            return values


async def _is_there(socket: Any, url: str) -> bool:
    """Whether the browser has left its empty page for this one; what ran there would end with it."""
    expression = f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'"
    try:
        result = await _call(socket, 2, "Runtime.evaluate", {"expression": expression})
    except AssertionError:  # it is between the two
        return False
    return bool(result["result"].get("value"))


async def _call(socket: Any, number: int, method: str, parameters: dict[str, Any]) -> Any:
    await socket.send_str(json.dumps({"id": number, "method": method, "params": parameters}))
    while True:
        message = json.loads((await socket.receive()).data)
        assert message.get("method") != "Runtime.exceptionThrown", json.dumps(message)[:2000]
        if message.get("id") == number:
            assert "error" not in message, message["error"]
            return message["result"]
