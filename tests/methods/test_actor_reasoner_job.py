"""The actor_reasoner job: what comes out, what survives, what is refused; and driving by the clock."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from squadron.core.cli import main
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.profile import WorkerResources
from squadron.llm.embed import PackagedEmbedder
from squadron.llm.settings import OpenAiModel, Rule, ScriptedModel
from squadron.methods.actor_reasoner.benchmark import FULL, Texts, World
from squadron.methods.actor_reasoner.config import ActorReasonerConfig, LiveConfig, ReasonerConfig
from squadron.methods.actor_reasoner.endpoint import ActRequest, ThinkRequest, services
from squadron.methods.actor_reasoner.episodes import run_episodes
from squadron.methods.actor_reasoner.live import Clock, LiveReasoner, Mailbox
from squadron.methods.actor_reasoner.memory import Memory
from squadron.methods.actor_reasoner.policy import PairPolicy
from squadron.methods.actor_reasoner.prompts import PROMPT, Thought, memory_words
from squadron.methods.actor_reasoner.records import ReasonerModel
from squadron.serve.rollout_video import WatchRequest
from tests.drivers import run_and_kill
from tests.finished import missing_metrics

sys.path.append(str(Path(__file__).resolve().parents[1] / "llm"))
from server import chat_server

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ANSWER = "Style: AGGRESSIVE\nIntention: ACCELERATE\nDecision: SLOWER\nDisplay: you go first"


def run(folder: Path, *words: str) -> int:
    return main(["run", "actor_reasoner", "smoke", *words, "--run", str(folder)])


def output(folder: Path, stage: str) -> dict[str, Any]:
    (done,) = folder.glob(f"stages/{stage}-*/done.json")
    found: dict[str, Any] = json.loads(done.read_text())["output"]
    return found


def memory_file(folder: Path) -> Path:
    return folder / output(folder, "build_memory")["file"]


@pytest.fixture(scope="module")
def finished(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    assert run(folder) == 0
    return folder


def test_sweeps_find_what_they_compare(finished: Path) -> None:
    assert not missing_metrics(finished)


def test_the_report_shows_who_drives_how(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for shown in (
        "Who drives how: merge",
        "Actor and Reasoner against the others: merge",
        "Reasoner alone, the world waits",
        "rule (IDM)",
        "What memories are worth: merge",
        "Memories: merge",
        "By the clock: merge",
        "to the conflict over time",
        "control ticks missed",
    ):
        assert shown in page, shown
    assert list(finished.glob("stages/compare-*/episode-1.*"))
    driven = {one["method"]: one for one in output(finished, "compare")["driven"]}
    assert {one["episodes"] for one in driven.values()} == {8} and 0 <= driven["rule (IDM)"]["collided"] < 1


def test_what_a_run_remembers_and_thinks_is_served(finished: Path) -> None:
    """A car that asks over HTTP, with the thought that it was given, decides as the Actor on board does."""
    offered = {service.name: service for service in services(Folder(finished)).services}
    actor, reasoner = offered["actor"].build(), offered["reasoner"].build()
    near = {"own_m": 14.0, "own_speed": 7.5, "other_m": 13.0, "other_speed": 8.0}
    far = {"own_m": 14.0, "own_speed": 7.5, "other_m": 80.0, "other_speed": 4.0}
    (crossing, alone) = reasoner.think(ThinkRequest.model_validate({"cars": [near, far]})).cars
    assert (crossing.decision, crossing.style, crossing.unreadable) == ("SLOWER", "aggressive", False)
    assert (alone.decision, alone.style, alone.display) == ("FASTER", "conservative", "I go first")
    cars = [near | {"thought": crossing.model_dump()}, far | {"thought": alone.model_dump()}, near]
    answer = actor.act(ActRequest.model_validate({"scene": "merge", "cars": cars}))
    assert [car.action for car in answer.cars[:2]] == ["SLOWER", "FASTER"]
    assert [car.acceleration for car in answer.cars[:2]] == [-4.0, 2.0]
    assert actor.act(ActRequest.model_validate({"cars": cars})) == answer
    with pytest.raises(InputError, match="nothing is remembered of roundabout"):
        actor.act(ActRequest.model_validate({"scene": "roundabout", "cars": [near]}))
    films = [reasoner.watch(WatchRequest(episode=episode)) for episode in (0, 1)]
    assert [one.caption.partition(".")[0] for one in films] == ["merge", "merge"]
    for one in films:
        with Image.open(io.BytesIO(base64.b64decode(one.film))) as film:
            assert film.n_frames > 10 and film.get_format_mimetype() == one.media_type
    for wrong in ({"own_m": float("nan")}, {"said": "x" * 201}, {"other_speed": -1.0}, {"speed": 3}):
        with pytest.raises(ValidationError):
            ActRequest.model_validate({"cars": [near | wrong]})


def test_runs_without_memories_cannot_be_served(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    next((tmp_path / "run").glob("stages/build_memory-*/memory.safetensors")).unlink()
    with pytest.raises(InputError, match="the memories of merge are gone"):
        services(Folder(tmp_path / "run"))
    next((tmp_path / "run").glob("stages/build_memory-*/done.json")).unlink()
    with pytest.raises(InputError, match="build_memory has not finished"):
        services(Folder(tmp_path / "run"))


def test_a_driver_killed_while_it_compares_ends_with_the_same_results_on_other_workers(
    finished: Path, ray_cluster: object, tmp_path: Path
) -> None:
    folder = tmp_path / "run"

    def compares() -> bool:
        return bool(list(folder.glob("stages/compare-*/rows/*.parquet")))

    run_and_kill(folder, ["actor_reasoner", "smoke", "live.cars=0"], compares)
    parts = {path: path.stat().st_mtime_ns for path in folder.glob("stages/*/rows/*.parquet")}
    assert run(folder, "live.cars=0", "--workers", "1") == 0
    assert all(path.stat().st_mtime_ns == known for path, known in parts.items()), "what was driven stays driven"
    for stage in ("build_memory", "compare"):
        assert output(folder, stage) == output(finished, stage)


def test_a_small_model_is_taught_and_an_earlier_memory_is_added_to(
    finished: Path, ray_cluster: object, tmp_path: Path
) -> None:
    folder, earlier = tmp_path / "run", memory_file(finished)
    lessons = "{episodes: 6, hidden_size: 16, layers: 1, heads: 2, training: {epochs: 1}}"
    words = ["reasoner.model=null", f"lessons={lessons}", f"memory.path={earlier}", "memory.episodes=2", "live.cars=0"]
    words += ["evaluation.episodes=2", "evaluation.memory_sizes=[]", "evaluation.filmed=0"]
    records = sorted(map(str, (REAL_DATA / "driving").glob("*.xml.gz")))
    words += [f"recorded={json.dumps(records)}"] if records else []
    assert run(folder, *words) == 0
    page = (folder / "report.html").read_text()
    assert not records or "Among recorded cars" in page
    assert "What the Reasoner knows" in page and "style of the driver, right" in page
    before, after = Memory.load(earlier), Memory.load(memory_file(folder))
    assert len(after) >= len(before) > 0


BAD: dict[str, tuple[list[str], str]] = {
    "a model that is not there": (
        ["reasoner.model={provider: openai, name: away, model: m, base_url: 'http://127.0.0.1:9/v1'}"],
        "away cannot be reached",
    ),
    "a template without the situation": (["reasoner.template=What now?"], "needs {situation}"),
    "a template that cannot be filled in": (["reasoner.template={situation} {weather}"], "cannot be filled in"),
    "two roads for three cars": (["traffic.others=2"], "traffic.others must be 1"),
    "a scene twice": (["scenes=[merge, merge]"], "a scene is named twice"),
    "an unknown scene": (["scenes=[bridge]"], "intersection"),
    "a recording that is none": (["recorded=[pyproject.toml]"], "CommonRoad"),
    "no memory file": (["memory.path=gone.safetensors"], "there is no memory file"),
    "a misspelt setting": (["memory.capcity=3"], "did you mean capacity"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_in_words(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, expected = BAD[name]
    assert run(tmp_path / "run", *words) != 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert expected in said and "Traceback" not in said


def test_a_model_of_prose_leaves_nothing_to_remember_and_that_is_said(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prose = {"provider": "scripted", "name": "poet", "otherwise": "Roads diverge in a yellow wood."}
    words = [f"reasoner.model={json.dumps(prose)}", "memory.episodes=2", "live.cars=0"]
    assert run(tmp_path / "run", *words) != 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "the Actor has nothing to remember" in said and "no line of the answer says style" in said
    assert "Traceback" not in said


# By the clock


def world(model: Any, ticks: int) -> World:
    settings = ActorReasonerConfig.model_validate(
        {"scenes": ["merge"], "traffic": {"ticks": ticks}, "reasoner": ReasonerConfig(model=model)}
    )
    return World(Folder("."), settings.world("merge"), ReasonerModel(model=model, path=None, template=PROMPT))


def remembering(texts: Texts) -> Memory:
    words = memory_words(Thought(0, 0, 2, "you go first"), "")
    memory = Memory(9, texts([words]).shape[1])
    memory.write(0, np.zeros(5), texts([words])[0], 2, words)
    return memory


def drive_by_the_clock(model: Any, ticks: int, config: LiveConfig, at: Any) -> tuple[Clock, Mailbox]:
    """Two cars; `at(tick, mailbox)` is called before each tick."""
    place, texts = world(model, ticks), Texts(PackagedEmbedder())
    memory, clock = remembering(texts), Clock(0.1)
    mailbox = Mailbox(lambda: LiveReasoner(place, config.slowed_s), texts, config, WorkerResources(cpus=1))

    def pace(tick: int) -> None:
        at(tick, mailbox)
        clock(tick)

    with mailbox:
        run_episodes(
            place.start(range(2)), place.config.drivers, PairPolicy("merge", FULL, mailbox, memory, texts), pace
        )
    return clock, mailbox


def test_control_never_waits_for_a_reasoner_that_is_slow_and_dies(ray_cluster: object) -> None:
    model = ScriptedModel(name="m", rules=(Rule(pattern=".", reply=ANSWER),))
    killed: list[int] = []

    def at(tick: int, mailbox: Mailbox) -> None:
        if mailbox.account.thoughts and not killed:  # it is at its next thought already
            killed.extend(mailbox.pids)
            for pid in mailbox.pids:
                os.kill(pid, signal.SIGKILL)

    clock, mailbox = drive_by_the_clock(model, 150, LiveConfig(slowed_s=1.5), at)
    account = mailbox.account
    assert killed and account.lost == 1 and "died" in account.causes[0]
    assert account.thoughts > 0 and account.unread == 0 and min(account.ages_s) >= 1.5
    assert account.forgotten > account.thoughts, "of many situations only the newest were taken up"
    assert max(clock.work_s) < 1.5, "no tick waited for a thought"


def test_an_endpoint_that_goes_away_mid_episode_leaves_the_actor_driving(ray_cluster: object) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(chat_server(seconds=0.05))
        model = OpenAiModel(name="m", model="echo", base_url=server.base_url, timeout_s=2, max_attempts=1)
        before: list[int] = []
        ending = threading.Thread(target=stack.close)  # it takes a while, which is not the control loop's affair

        def at(tick: int, mailbox: Mailbox) -> None:
            if mailbox.account.thoughts and not before:
                before.append(tick)
                ending.start()

        clock, mailbox = drive_by_the_clock(model, 90, LiveConfig(timeout_s=10), at)
        assert before
        ending.join()
    account = mailbox.account
    assert account.thoughts > 0 and account.unread == account.thoughts, "prose is no thought"
    assert len(clock.work_s) > before[0] + 10 and max(clock.work_s) < 2.0, "no tick waited for the server"
