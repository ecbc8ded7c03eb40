"""Programs that talk to models: every question asked once, answers before anything goes on, and an exact replay."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from squadron.core.config import Config
from squadron.core.errors import ResourceError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.llm.batch.answer_cache import KeyedLog
from squadron.llm.batch.programs import Ask, Program, run_programs
from squadron.llm.chat import ChatRequest, Sampling, user
from squadron.llm.rewards.reward import Answered
from squadron.llm.rewards.settings import VerifierReward
from squadron.llm.settings import OpenAiModel, Rule, ScriptedModel
from tests.drivers import processes

sys.path.append(str(Path(__file__).parent))
from server import chat_server, echo

NEXT = ScriptedModel(name="next", rules=(Rule(pattern=r"after (\d)$", reply=r"\1\1"), Rule(pattern="fail", reply="x")))


class Nothing(Config):
    pass


runs: list[Run] = []


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    """Resting workers hold the cores of the cluster that all tests share."""
    yield
    while runs:
        runs.pop().close()


def stage_in(folder: Path) -> Stage:
    run = Run("test", Nothing(), Folder(folder), Profile(name="auto"), track=())
    runs.append(run)
    stage = Stage(run, "talk", "", {}, run.folder / "stages" / "talk-0")
    stage.begin()
    return stage


def entries(folder: Path) -> list[dict[str, Any]]:
    logs = (folder / "answers").glob("*/*.jsonl")
    return [json.loads(line) for log in logs for line in log.read_text().splitlines() if line]


def count_down(start: int) -> Program[list[str]]:
    """Asks so many times, each about the answer before."""
    said: list[str] = []
    for number in range(start, 0, -1):
        (reply,) = yield Ask("next", (ChatRequest("", user(f"{said} after {number}")),))
        said.append(reply.text)
    return said


def test_programs_get_their_own_answers_in_the_order_of_their_questions(ray_cluster: object, tmp_path: Path) -> None:
    def several(digits: str) -> Program[str]:
        replies = yield Ask("next", tuple(ChatRequest("", user(f"after {digit}")) for digit in digits))
        return " ".join(reply.text for reply in replies)

    programs = {name: partial(several, name) for name in ("123", "321", "77", "5")}
    results = run_programs(stage_in(tmp_path), programs, {"next": NEXT})
    assert results == {"123": "11 22 33", "321": "33 22 11", "77": "77 77", "5": "55"}
    assert len(entries(tmp_path)) == 5  # 1, 2, 3, 5, 7: equal questions are one


def test_a_replay_asks_nothing_and_starts_no_model(ray_cluster: object, tmp_path: Path) -> None:
    programs = {str(n): partial(count_down, n) for n in range(5)}
    first = run_programs(stage_in(tmp_path), programs, {"next": NEXT})
    asked = len(entries(tmp_path))
    nowhere = NEXT.model_copy(update={"name": "next"})
    again = run_programs(stage_in(tmp_path), programs, {"next": nowhere})
    assert again == first and len(entries(tmp_path)) == asked
    more = run_programs(stage_in(tmp_path), {**programs, "5": partial(count_down, 5)}, {"next": NEXT})
    assert {name: more[name] for name in first} == first and len(more["5"]) == 5
    assert max(Counter(entry["key"] for entry in entries(tmp_path)).values()) == 1


def test_a_failure_is_told_to_its_program_and_asked_again_by_the_next_run(ray_cluster: object, tmp_path: Path) -> None:
    def ask(text: str) -> Program[str]:
        (reply,) = yield Ask("next", (ChatRequest("", user(text)),))
        return reply.error or reply.text

    programs = {"bad": partial(ask, "nothing matches"), "good": partial(ask, "after 1")}
    for run in (1, 2):
        results = run_programs(stage_in(tmp_path), programs, {"next": NEXT})
        assert results["good"] == "11" and "no rule" in results["bad"]
        assert Counter(bool(entry["error"]) for entry in entries(tmp_path)) == {False: 1, True: run}


def test_chat_and_reward_models_answer_one_program(ray_cluster: object, tmp_path: Path) -> None:
    def graded(digit: int, wanted: str) -> Program[float | None]:
        (reply,) = yield Ask("next", (ChatRequest("", user(f"after {digit}")),))
        (score,) = yield Ask("grade", (Answered("", "?", reply.text, reference=wanted),))
        return score.value

    programs = {"right": partial(graded, 4, "44"), "wrong": partial(graded, 4, "x")}
    results = run_programs(stage_in(tmp_path), programs, {"next": NEXT, "grade": VerifierReward()})
    assert results == {"right": 1.0, "wrong": 0.0}
    assert run_programs(stage_in(tmp_path), programs, {"next": NEXT, "grade": VerifierReward()}) == results


def test_a_model_that_cannot_be_used_stops_the_run_with_its_reason(ray_cluster: object, tmp_path: Path) -> None:
    def ask() -> Program[str]:
        (reply,) = yield Ask("gone", (ChatRequest("", user("hello"), Sampling(max_tokens=8)),))
        return str(reply.text)

    gone = OpenAiModel(name="gone", model="m", base_url="http://127.0.0.1:9", max_attempts=1, timeout_s=2)
    with pytest.raises(ResourceError, match="gone stopped"):
        run_programs(stage_in(tmp_path), {"1": ask}, {"gone": gone})


def test_a_worker_killed_under_load_loses_nothing_that_it_had_recorded(ray_cluster: object, tmp_path: Path) -> None:
    def chain(name: str) -> Program[list[str]]:
        said = []
        for turn in range(3):
            (reply,) = yield Ask("echo", (ChatRequest("", user(f"{name} {turn}")),))
            said.append(reply.text)
        return said

    def kill_worker() -> None:
        until = time.monotonic() + 240
        while time.monotonic() < until and len(entries(tmp_path)) < 10:
            time.sleep(0.02)
        workers = processes("Host.call")
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        killed.extend(worker.pid for worker in workers)

    killed: list[int] = []
    with chat_server(seconds=0.05) as server:
        echoes = OpenAiModel(name="echo", model="echo", base_url=server.base_url, max_concurrency=4)
        killer = threading.Thread(target=kill_worker)
        killer.start()
        results = run_programs(
            stage_in(tmp_path), {str(n): partial(chain, str(n)) for n in range(40)}, {"echo": echoes}
        )
        killer.join()
        asked = server.stats()["asked"]
    assert killed
    assert results == {str(n): [echo(f"{n} {turn}") for turn in range(3)] for n in range(40)}
    assert max(Counter(entry["key"] for entry in entries(tmp_path)).values()) == 1
    assert sum(asked.values()) <= 120 + 4 * len(killed)  # what was under way, no more


def test_workers_rest_between_stages_and_make_room_for_other_work(ray_cluster: object, tmp_path: Path) -> None:
    def graded(model: str, wanted: str) -> Program[float | None]:
        (score,) = yield Ask(model, (Answered("", "?", "4", reference=wanted),))
        return score.value

    stage = stage_in(tmp_path)
    first = VerifierReward()
    second = VerifierReward(checker="final_answer")
    assert run_programs(stage, {"1": partial(graded, "first", "4")}, {"first": first}) == {"1": 1.0}
    (resting,) = stage.run.idle.pools
    pids = set(resting.pids)
    assert run_programs(stage, {"1": partial(graded, "second", "#### 5")}, {"second": second}) == {"1": 0.0}
    (again,) = stage.run.idle.pools
    assert again is resting and set(again.pids) == pids  # the same processes hold another model
    assert stage.claim_workers("other work", 8) == 2
    assert not stage.run.idle.pools and not any(psutil.pid_exists(pid) for pid in wait_for_end(pids))


def test_two_models_of_one_kind_leave_nobody_behind(ray_cluster: object, tmp_path: Path) -> None:
    """Both rest, both are found again, and both make room: a core that stayed reserved would stop what follows."""

    def graded() -> Program[list[float | None]]:
        (tasks,) = yield Ask("tasks", (Answered("", "?", "4", reference="4"),))
        (final,) = yield Ask("final", (Answered("", "?", "#### 4", reference="#### 4"),))
        return [tasks.value, final.value]

    stage = stage_in(tmp_path)
    models = {"tasks": VerifierReward(), "final": VerifierReward(checker="final_answer")}
    assert run_programs(stage, {"1": graded}, models) == {"1": [1.0, 1.0]}
    pids = {pid for pool in stage.run.idle.pools for pid in pool.pids}
    assert len(stage.run.idle.pools) == len(pids) == 2
    stage.run.idle.close()
    assert not any(psutil.pid_exists(pid) for pid in wait_for_end(pids))


def wait_for_end(pids: set[int]) -> set[int]:
    until = time.monotonic() + 120
    while time.monotonic() < until and any(psutil.pid_exists(pid) for pid in pids):
        time.sleep(0.1)
    return pids


def test_what_was_left_out_for_a_model_is_told_of_answers_on_record_too(ray_cluster: object, tmp_path: Path) -> None:
    """A run that was killed after its answers shows what one shows that was not."""
    programs = {"a": partial(count_down, 2)}
    first = run_programs(stage_in(tmp_path), programs, {"next": NEXT})
    (place,) = (tmp_path / "answers").iterdir()
    with KeyedLog(Folder(place)).writer("z.jsonl") as log:  # of two entries of a key, the later holds
        for entry in entries(tmp_path):
            log.write({name: value for name, value in entry.items() if name != "seal"} | {"note": "top_k"})
    stage = stage_in(tmp_path)
    assert run_programs(stage, programs, {"next": NEXT}) == first
    assert stage.folder.read_json("headlines.json") == {"headlines": [["left out for next", "top_k"]]}
