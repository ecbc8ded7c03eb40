"""Collection: every model's answer to every question, each asked for once, whatever goes wrong in between."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from squadron.core.config import Config
from squadron.core.errors import ConfigError, ResourceError
from squadron.core.folder import Folder
from squadron.core.profile import Profile, WorkerResources
from squadron.core.run import Run, Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.llm.batch.answer_cache import Entry, KeyedLog, spent_usd
from squadron.llm.batch.budget import Budget
from squadron.llm.batch.collect import QUESTION_TYPES, Answers, CollectConfig, collect, read_answers
from squadron.llm.batch.pools import Pool, Work, run_pools
from squadron.llm.batch.scoring import score
from squadron.llm.rewards.settings import JudgeReward
from squadron.llm.settings import OpenAiModel, Rule, ScriptedModel
from tests.drivers import start_quickly

sys.path.append(str(Path(__file__).parent))
from server import ODD_TEXTS, chat_server, echo

LIB = Path(__file__).resolve().parents[2] / "lib"
EVEN = ScriptedModel(name="even", rules=(Rule(pattern=r"number \d*[02468]$", reply="even"),))
ANY = ScriptedModel(name="any", otherwise="whatever")
RUBRIC = "{instruction}\n{response}\nscore: 7"


class Nothing(Config):
    pass


def stage_in(folder: Path, name: str = "collect") -> Stage:
    run = Run("test", Nothing(), Folder(folder), Profile(name="auto"), track=())
    stage = Stage(run, name, "", {}, run.folder / "stages" / f"{name}-0")
    stage.begin()
    return stage


def questions(folder: Path, count: int) -> ArrowRows:
    rows = [{"id": f"q{n}", "instruction": f"number {n}"} for n in range(count)]
    write_rows(Folder(folder), f"questions-{count}.arrow", rows, QUESTION_TYPES)
    return ArrowRows(Folder(folder), [f"questions-{count}.arrow"])


def responses(stage: Stage, answers: Answers) -> list[str | None]:
    return [row["response"] for row in read_answers(stage.run.folder, answers)]


def test_a_rerun_asks_for_what_is_missing_and_nothing_else(ray_cluster: object, tmp_path: Path) -> None:
    config = CollectConfig(samples=2)
    with chat_server(seconds=0.0) as server:
        echoes = OpenAiModel(name="echo", model="echo", base_url=server.base_url)
        first = collect(stage_in(tmp_path), questions(tmp_path, 20), [EVEN, echoes], config)
        assert [(one.answered, one.failed) for one in first] == [(20, 20), (40, 0)]
        stage = stage_in(tmp_path)
        more = collect(stage, questions(tmp_path, 25), [ANY, EVEN, echoes], config)
        stats = server.stats()
    assert set(stats["asked"].values()) == {2} and len(stats["asked"]) == 25  # two samples, each once
    counts = [(one.model, one.answered, one.failed) for one in more]
    assert counts == [("any", 50, 0), ("even", 26, 24), ("echo", 50, 0)]
    assert responses(stage, more[2]) == [echo(f"number {n // 2}") for n in range(50)]
    assert len(stage.failures()) == 24 and all(failure["retry"] for failure in stage.failures())
    (log,) = (tmp_path / "answers").glob("even-*")
    entries = [json.loads(line) for file in log.glob("*.jsonl") for line in file.read_text().splitlines() if line]
    asked = Counter(entry["key"] for entry in entries)
    answered = {entry["key"] for entry in entries if not entry["error"]}
    assert {asked[key] for key in answered} == {1}  # an answer is not asked for again, a failure is
    assert sorted(asked[key] for key in asked.keys() - answered) == [1] * 4 + [2] * 20


def test_the_same_question_twice_is_asked_once(ray_cluster: object, tmp_path: Path) -> None:
    rows = [{"id": str(n), "instruction": f"number {n % 2}"} for n in range(10)]
    write_rows(Folder(tmp_path), "q.arrow", rows, QUESTION_TYPES)
    (answers,) = collect(stage_in(tmp_path), ArrowRows(Folder(tmp_path), ["q.arrow"]), [ANY], CollectConfig())
    (file,) = (tmp_path / "answers").glob("any-*/*.jsonl")
    assert len(file.read_text().splitlines()) == 2 and answers.answered == 10


def test_the_cap_is_kept_over_runs_and_what_was_paid_for_stays(ray_cluster: object, tmp_path: Path) -> None:
    prices = {"prompt_usd_per_million": 0.0, "completion_usd_per_million": 1e6}
    asked = questions(tmp_path, 30)
    with chat_server(seconds=0.0) as server:
        model = OpenAiModel(name="dear", model="echo", base_url=server.base_url, max_concurrency=4, **prices)
        config = CollectConfig(sampling={"max_tokens": 8}, cap_usd=40.0)  # type: ignore[arg-type]
        for cap in (40.0, 60.0):
            with pytest.raises(ResourceError, match="requests are unanswered"):
                collect(stage_in(tmp_path), asked, [model], config.model_copy(update={"cap_usd": cap}))
            index = KeyedLog(Folder(next(iter((tmp_path / "answers").iterdir())))).index()
            assert 0 < index.cost_usd <= cap
        (answers,) = collect(stage_in(tmp_path), asked, [model], config.model_copy(update={"cap_usd": None}))
        assert set(server.stats()["asked"].values()) == {1}
    assert answers.answered == 30 and answers.cost_usd == pytest.approx(index.cost_usd, abs=200)


def test_what_an_endpoint_says_that_is_no_answer_is_paid_for_and_asked_again_once_a_start(
    ray_cluster: object, tmp_path: Path
) -> None:
    prices = {"prompt_usd_per_million": 1e3, "completion_usd_per_million": 1e3}  # 1 USD for 1,000 tokens
    config = CollectConfig(sampling={"max_tokens": 1000}, cap_usd=1e4)  # type: ignore[arg-type]
    asked, failed, spent = questions(tmp_path, 300), [300], [0.0]
    with chat_server(seconds=0, unreadable=0.1, odd=0.1, seed=3) as server:
        model = OpenAiModel(name="odd", model="echo", base_url=server.base_url, max_concurrency=32, **prices)
        for _ in range(2):
            stage = stage_in(tmp_path)
            (answers,) = collect(stage, asked, [model], config)
            assert answers.answered + answers.failed == 300 and len(stage.failures()) == answers.failed
            assert server.stats()["faults"]["unreadable"] == sum(failed[1:]) + answers.failed
            assert server.stats()["requests"] == sum(failed), "each row without an answer is asked once a start"
            spent.append(KeyedLog(Folder(next((tmp_path / "answers").iterdir()))).index().cost_usd)
            assert spent[-1] - spent[-2] > answers.failed * 1.0, "what is no answer costs as much as it can"
            failed.append(answers.failed)
        judge = JudgeReward(model=model.model_copy(update={"model": "judge"}), rubric=RUBRIC)
        scores = [score(stage_in(tmp_path, "judge"), asked, [answers], judge, cap_usd=1e4) for _ in range(2)]
    assert failed[1] > 10 > failed[2] and spent[2] + scores[-1].cost_usd <= spent_usd(Folder(tmp_path)) < 1e4
    said, odd = set(filter(None, responses(stage, answers))), {kept for _, kept in ODD_TEXTS}
    assert odd <= said and said - odd <= {echo(f"number {n}") for n in range(300)}
    assert [one.scored + one.failed for one in scores] == [answers.answered] * 2
    assert scores[0].failed > scores[1].failed and scores[1].scored > 250


def test_what_cannot_be_used_is_refused_before_anything_is_asked(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    asked = questions(tmp_path, 2)
    keyless = OpenAiModel(name="k", model="m", base_url="http://127.0.0.1:9/v1", api_key_env="NO_SUCH_KEY")
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        collect(stage_in(tmp_path), asked, [keyless], CollectConfig())
    with pytest.raises(ConfigError, match="more than one model is called any"):
        collect(stage_in(tmp_path), asked, [ANY, ANY], CollectConfig())


SCRIPT = """
import sys
sys.path[:0] = [{lib!r}, {root!r}, {here!r}]
from pathlib import Path
from squadron.llm.batch.collect import CollectConfig, collect
from squadron.llm.settings import OpenAiModel
from test_collect import questions, stage_in
folder = Path({folder!r})
model = OpenAiModel(name="echo", model="echo", base_url={url!r}, max_concurrency=8)
collect(stage_in(folder), questions(folder, {count}), [model], CollectConfig())
"""


def test_killed_at_half_no_recorded_answer_is_asked_for_again(ray_cluster: object, tmp_path: Path) -> None:
    count = 400
    with chat_server(seconds=0.15, concurrency=8) as server:
        places = {"here": str(Path(__file__).parent), "lib": str(LIB), "root": str(LIB.parent)}
        words = places | {"folder": str(tmp_path), "url": server.base_url, "count": count}
        (tmp_path / "script.py").write_text(SCRIPT.format(**words))
        process = start_quickly([str(tmp_path / "script.py")], os.environ, output=2)
        deadline = time.monotonic() + 240
        while sum(server.stats()["answered"].values()) < count // 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        before = server.settled()["asked"]
        (log,) = (tmp_path / "answers").iterdir()
        recorded = KeyedLog(Folder(log)).index().places
        model = OpenAiModel(name="echo", model="echo", base_url=server.base_url, max_concurrency=8)
        stage = stage_in(tmp_path)
        (answers,) = collect(stage, questions(tmp_path, count), [model], CollectConfig())
        after = server.stats()["asked"]
    assert count // 3 < len(recorded) < count
    again = sum(after.values()) - sum(before.values())
    assert again == count - len(recorded)
    assert answers.answered == count
    assert responses(stage, answers) == [echo(f"number {n}") for n in range(count)]


@dataclass(frozen=True)
class Deadly:
    """A member whose row 3 kills its worker, always or the first time."""

    marks: str
    always: bool
    name: str = "deadly"

    def open(self, budget: Budget) -> nullcontext[None]:
        return nullcontext()

    def keys(self, rows: Sequence[int]) -> list[str]:
        return [str(row) for row in rows]

    def answer(self, opened: None, rows: Sequence[int]) -> Iterator[Entry]:
        for row in rows:
            mark = Path(self.marks, str(row))
            if row == 3 and (self.always or not mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield {"key": str(row), "text": "x"}


@pytest.mark.parametrize("always", [False, True])
def test_a_worker_that_dies_loses_nothing_and_what_kills_it_is_given_up(
    ray_cluster: object, tmp_path: Path, always: bool
) -> None:
    member = Deadly(str(tmp_path), always)
    log = Folder(tmp_path / "log")
    work = Work(member, np.arange(6), log, part_size=6)
    outcome = run_pools(stage_in(tmp_path), [[Pool((work,), WorkerResources(), 1)]], unit="row")
    index = KeyedLog(log).index()
    assert set(index.places) == set("012345") and not outcome.stopped
    failed = {key for key, place in index.places.items() if not place.ok}
    assert failed == (set("345") if always else set())
    answered = [
        line for file in Path(log.path).glob("*.jsonl") for line in file.read_text().splitlines() if "text" in line
    ]
    assert len(answered) == (3 if always else 6)  # each once
