"""The CrowdSelect job as its user meets it: one command, a report, a restart after a kill, and words for bad input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squadron.core.cli import main
from squadron.core.folder import Folder
from squadron.data.rows import ArrowRows
from tests.drivers import run_and_kill
from tests.finished import chat_with, missing_metrics

sys.path.append(str(Path(__file__).resolve().parents[1] / "llm"))
from server import chat_server, echo


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trained models are kept between runs: here, not in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SQUADRON_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def run(folder: Path, *words: str) -> int:
    return main(["run", "crowdselect", "smoke", *words, "--run", str(folder)])


def output(folder: Path, stage: str) -> Any:
    (done,) = folder.glob(f"stages/{stage}-*/done.json")
    return json.loads(done.read_text())["output"]


def choice(folder: Path, arm: str) -> list[Any]:
    (file,) = (one["file"] for one in output(folder, "select")["choices"] if one["arm"] == arm and one["seed"] == 0)
    return [dict(row) for row in ArrowRows(Folder(folder), [file])]


@pytest.fixture(scope="module")
def finished(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run, which other runs are compared with."""
    folder = tmp_path_factory.mktemp("crowdselect") / "run"
    assert run(folder) == 0
    return folder


def test_sweeps_find_what_they_compare(finished: Path) -> None:
    assert not missing_metrics(finished)


def test_what_it_has_trained_is_served(finished: Path) -> None:
    answer = chat_with(finished, "What is 6 times 7?")
    assert answer.usage.prompt_tokens > 5 and answer.choices[0].finish_reason in ("stop", "length")


def test_the_report_shows_what_a_user_asks_for(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    panels = ("Mean score by model and cluster", "Stability", "Map of the instructions", "Picked first", "Passed over")
    for shown in (
        *panels,
        "Students by what they were trained on",
        "CrowdSelect − random",
        "What each way of choosing",
    ):
        assert shown in page, shown


def test_a_choice_holds_the_best_response_of_each_instruction(finished: Path) -> None:
    picked = choice(finished, "crowdselect")
    assert len(picked) == len({row["id"] for row in picked}) == 32
    assert {row["model"] for row in picked} <= {"first-1", "first-2", "last-1", "last-2"}
    everything = {row["id"]: row for row in choice(finished, "everything")}
    assert len(everything) == output(finished, "read_pool")["count"]
    assert all(everything[row["id"]] == row for row in picked)
    assert {row["id"] for row in choice(finished, "random")} != {row["id"] for row in picked}


def test_a_driver_killed_mid_collection_asks_for_the_rest_and_chooses(ray_cluster: object, tmp_path: Path) -> None:
    """The crowd of this run waits for a server, so that the kill falls into the collection."""
    folder = tmp_path / "run"
    with chat_server(seconds=0.2, concurrency=8) as server:
        model = {"provider": "openai", "model": "echo", "base_url": server.base_url, "max_concurrency": 4}
        crowd = [{**model, "name": f"m-{size}", "family": "m", "size_b": size, "system": str(size)} for size in (1, 2)]
        words = [f"models={json.dumps(crowd)}", "world.pool=60", "world.unanswerable=0", "students.seeds=0"]
        words += ["selection.arms=[crowdselect, length]", "selection.count=8", "selection.weights=[1, 1, 0]"]
        words.append("students.arms=[]")
        rules = [{"pattern": "argest|aximum|greatest", "reply": "7"}, {"pattern": "orst|smallest", "reply": "2"}]
        judge = {"provider": "scripted", "name": "judge", "rules": rules, "otherwise": "5"}
        words.append(f"reward={json.dumps({'provider': 'judge', 'model': judge, 'low': 0, 'high': 9})}")
        run_and_kill(folder, ["crowdselect", "smoke", *words], lambda: sum(server.stats()["answered"].values()) >= 50)
        before = server.settled()["requests"]
        assert run(folder, *words) == 0
        assert server.stats()["requests"] - before < 120 - 40
        assert output(folder, "collect_answers")["answers"][0]["answered"] == 60
    picked = choice(folder, "crowdselect")
    assert len(picked) == 8 and all(row["response"] == echo(row["instruction"]) for row in picked)


def scripted(name: str, **more: Any) -> dict[str, Any]:
    return {"provider": "scripted", "name": name, "otherwise": "1", **more}


BAD: dict[str, tuple[list[str], str]] = {
    "a model that cannot be reached": (
        ['models=[{provider: openai, name: away, model: m, base_url: "http://127.0.0.1:9/v1"}]'],
        "away cannot be reached",
    ),
    "a missing key": (
        ["models=[{provider: openai, name: k, model: m, api_key_env: NO_SUCH_KEY}]"],
        "NO_SUCH_KEY is not set",
    ),
    "no model there": (["models=[{provider: hf, name: gone, path: ./gone}]"], "gone is not there"),
    "two of one name": ([f"models={json.dumps([scripted('a'), scripted('a')])}"], "more than one model is called a"),
    "weights of the wrong length": (["selection.weights=[1, 1]"], "selection.weights"),
    "a misspelt setting": (["selection.weight=[1, 1, 2]"], "did you mean weights"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_in_words(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, expected = BAD[name]
    assert run(tmp_path / "run", *words) != 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert expected in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["selection.clusters=500"], "clusters"),
        (["selection.count=500"], "500 instructions are to be picked"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused_and_what_was_collected_stays(
    finished: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(finished, *words) != 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert expected in said and "Traceback" not in said
    assert said.count("finished before, kept") == 5
