"""The server's page in a real browser: a chat that streams, a plan that moves, a robot's action, and errors told."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn
from pydantic import BaseModel

from squadron.core.folder import Folder
from squadron.llm.settings import HfModel
from squadron.methods.coordination import endpoint as coordination
from squadron.methods.coordination.config import CoordinationConfig, ModelConfig
from squadron.methods.coordination.training import Build, save_planner
from squadron.methods.flame import endpoint as flame
from squadron.serve.auth_limits import read_key
from squadron.serve.chat import ChatServer, chat_service
from squadron.serve.gateway import make_app
from squadron.serve.service import Context, Event
from squadron.serve.spec import ServeSpec
from tests.browser import CHROMIUM, run_in_page
from tests.finished import store_flame_run
from tests.llm.tiny import store_tiny_chat

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium")

WAIT = """
const until = async test => { for (let i = 0; i < 400 && !test(); i++) await new Promise(go => setTimeout(go, 50));
  if (!test()) throw new Error("waited in vain for " + test); };
await until(() => document.querySelectorAll("section").length > 3);
const sections = () => [...document.querySelectorAll("section")];
const section = path => sections().find(one => one.querySelector("h2").textContent.endsWith(path));
"""


class Here:
    """What stands for Ray Serve: what is served, in this process."""

    def __init__(self, loaded: dict[str, Any]) -> None:
        self.loaded = loaded

    async def ask(self, service: str, method: str, request: BaseModel, client: str) -> Any:
        answer = getattr(self.loaded[service], method)(request)
        return await answer if hasattr(answer, "__await__") else answer

    def stream(self, service: str, method: str, request: BaseModel, context: Context) -> AsyncIterator[list[Event]]:
        parts: AsyncIterator[list[Event]] = getattr(self.loaded[service], method)(request, context)
        return parts

    async def ready(self) -> list[str]:
        return []


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("page")
    path = store_tiny_chat(place / "chat", [f"say {number} words" for number in range(20)])
    chat = ChatServer(HfModel(name="tiny", path=path), max_rows=8)
    config = ModelConfig(hidden=8, layers=1, heads=2, latent=2)
    save_planner(Folder(place / "planner"), config, Build(config, 0)().state_dict())
    settings = CoordinationConfig()
    load = coordination.Load({"average_delay": Folder(place / "planner")}, settings.limits, settings.sampling)
    act, plan = (
        flame.services(store_flame_run(place / "flame", 16)),
        coordination.Route(
            "/v1/plan", "plan", coordination.PlanRequest, coordination.PlanAnswer, "plan", example=coordination.EXAMPLE
        ),
    )
    services = [
        chat_service("tiny", path),
        coordination.Service("coordination", load, (plan,)),
        *act.services,
    ]
    loaded = {"tiny": chat, "coordination": load()} | {one.name: one.build() for one in act.services}
    app = make_app(services, Here(loaded), ServeSpec(), [read_key("a-key")])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
    chat.close()


def test_the_page_lets_one_try_what_is_served(url: str) -> None:
    without_key = """
      const chat = section("/v1/chat/completions");
      chat.querySelector("input.ask").value = "say 3 words";
      chat.querySelector("button").click();
      await until(() => chat.querySelector(".answer")?.textContent);
      return chat.querySelector(".answer").textContent;
    """
    with_key = """
      document.getElementById("key").value = "a-key";
      const chat = section("/v1/chat/completions");
      chat.querySelector("input.ask").value = "say 3 words";
      chat.querySelector("button").click();
      await until(() => chat.querySelector(".answer[data-done]"));
      return chat.querySelector(".answer[data-done]").textContent;
    """
    plan = """
      const plan = section("/v1/plan");
      plan.querySelector("button").click();
      await until(() => plan.querySelector("canvas"));
      const drawn = () => plan.querySelector("canvas").toDataURL();
      const before = drawn();
      await until(() => plan.querySelector("canvas[data-done]"));
      return [plan.querySelector("pre").textContent.slice(0, 3), before !== drawn()];
    """
    act = """
      const act = section("/v1/act");
      act.querySelector("button").click();
      await until(() => act.querySelectorAll("meter").length);
      return [act.querySelectorAll("meter").length, act.querySelector("img").complete];
    """
    watch = """
      const watch = section("/v1/watch");
      watch.querySelector("button").click();
      await until(() => watch.querySelector("img.film")?.naturalWidth);
      return [watch.querySelector("img.film").naturalWidth, watch.textContent.includes("home 410")];
    """
    wrong = """
      const act = section("/v1/act");
      act.querySelector("textarea").value = '{"robots": []}';
      act.querySelector("button").click();
      await until(() => act.querySelector("pre").textContent.startsWith("400"));
      return act.querySelector("pre").textContent;
    """
    stats = """
      await until(() => document.querySelectorAll("#stats tr").length > 3);
      return document.getElementById("stats").textContent + document.getElementById("state").textContent;
    """
    refused, said, planned, acted, watched, told, counted = run_in_page(
        url, [WAIT + script for script in (without_key, with_key, plan, act, watch, wrong, stats)]
    )
    assert "no key" in refused
    assert said
    assert planned == ["200", True]
    assert acted == [8, True]
    assert watched == [64, True]
    assert "robots" in told
    assert "/v1/plan" in counted and "Every service answers" in counted
