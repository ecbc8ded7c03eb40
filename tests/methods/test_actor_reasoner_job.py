"""What the actor_reasoner job does besides what all jobs do (`tests/contract`)."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.methods.actor_reasoner.endpoint import ActRequest, ThinkRequest, services
from squadron.methods.actor_reasoner.memory import Memory
from squadron.serve.rollout_video import WatchRequest
from tests.conftest import REAL_DATA
from tests.contract.record import copy_run, output, stages
from tests.finished import one_line, run_smoke


def memory_file(folder: Path) -> Path:
    return folder / output(stages(folder, "build_memory")[0])["path"]


@pytest.fixture(scope="module")
def finished(smoke_run: Callable[[str], Path]) -> Path:
    return smoke_run("actor_reasoner")


def test_every_method_drives_the_episodes_and_some_are_filmed(finished: Path) -> None:
    (compare,) = stages(finished, "compare")
    assert list(compare.glob("episode-1.*"))
    driven = {one["method"]: one for one in output(compare)["driven"]}
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
    folder = copy_run(finished, tmp_path / "run")
    memory_file(folder).unlink()
    with pytest.raises(InputError, match=r"memory\.safetensors is gone"):
        services(Folder(folder))
    next(folder.glob("stages/build_memory-*/done.json")).unlink()
    with pytest.raises(InputError, match="build_memory has not finished"):
        services(Folder(folder))


def test_a_small_model_is_taught_and_an_earlier_memory_is_added_to(finished: Path, tmp_path: Path) -> None:
    folder, earlier = tmp_path / "run", memory_file(finished)
    lessons = "{episodes: 6, hidden_size: 16, layers: 1, heads: 2, training: {epochs: 1}}"
    words = ["reasoner.model=null", f"lessons={lessons}", f"memory.path={earlier}", "memory.episodes=2", "live.cars=0"]
    words += ["evaluation.episodes=2", "evaluation.memory_sizes=[]", "evaluation.filmed=0"]
    records = sorted(map(str, (REAL_DATA / "driving").glob("*.xml.gz")))
    words += [f"recorded={json.dumps(records)}"] if records else []
    assert run_smoke("actor_reasoner", folder, *words) == 0
    page = (folder / "report.html").read_text()
    assert not records or "Among recorded cars" in page
    assert "What the Reasoner knows" in page and "style of the driver, right" in page
    before, after = Memory.load(earlier), Memory.load(memory_file(folder))
    assert len(after) >= len(before) > 0


def test_a_model_of_prose_leaves_nothing_to_remember_and_that_is_said(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prose = "reasoner.model={provider: scripted, name: poet, otherwise: Roads diverge in a yellow wood.}"
    assert run_smoke("actor_reasoner", tmp_path / "run", prose, "memory.episodes=2", "live.cars=0") == 2
    said = one_line(capsys)
    assert "the Actor has nothing to remember" in said and "no line of the answer says style" in said
