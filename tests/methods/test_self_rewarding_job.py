"""The self-rewarding job as its user meets it: one command, a report, the same preferences after a kill, and words for
what cannot go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from squadron.core.cli import main
from tests.drivers import run_and_kill
from tests.finished import chat_with, missing_metrics

SOLVED = {"problem": "What is 2+2?", "solution": "Step 1: 2+2=4, so \\boxed{4}."}
CONTEST = {
    "question": "What is 2+2?",
    "steps": [],
    "first": "Step 1: 4.",
    "second": "Step 1: 5.",
    "judgement": "4. [[A]]",
    "better": "A",
}


def run(folder: Path, *words: str) -> int:
    return main(["run", "self_rewarding", "smoke", *words, "--workers", "1", "--run", str(folder)])


def stages(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"stages/{name}-*"), key=lambda path: (path / "started.json").stat().st_mtime)


def output(stage: Path) -> Any:
    return json.loads((stage / "done.json").read_text())["output"]


def preferences(folder: Path) -> bytes:
    (stage,) = stages(folder, "prefer_steps")
    return (stage / "preferences.jsonl").read_bytes()


@pytest.fixture(scope="module")
def finished(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run, which other runs are compared with."""
    folder = tmp_path_factory.mktemp("self_rewarding") / "run"
    assert run(folder) == 0
    return folder


def test_sweeps_find_what_they_compare(finished: Path) -> None:
    assert not missing_metrics(finished)


def test_what_it_has_trained_is_served(finished: Path) -> None:
    answer = chat_with(finished, "What is 6 times 7?")
    assert answer.usage.prompt_tokens > 5 and answer.choices[0].finish_reason in ("stop", "length")


def test_the_report_shows_rounds_trees_and_what_was_judged(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    shown = ("Solved by round", "Judging by round", "A search", "M1 judges", "Training loss of M2", "M2 − M1")
    for panel in (*shown, "model time spent judging", "taken back after a tie", "What the first model learns from"):
        assert panel in page, panel


def test_every_model_is_measured_on_the_same_problems_and_contests(finished: Path) -> None:
    results = [output(stage) for stage in stages(finished, "evaluate")]
    assert [result["model"] for result in results] == ["M0", "M1", "M2"]
    assert {len(result["benchmarks"][0]["right"]) for result in results} == {10}
    assert {len(result["judge"]["right"]) for result in results} == {10}


def test_a_second_run_does_nothing_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(finished) == 0
    assert capsys.readouterr().out.count("finished before, kept") == 10


def test_a_driver_killed_while_it_searches_ends_with_the_same_preferences(finished: Path, tmp_path: Path) -> None:
    """The killed run begins where training has ended: with the models of the finished one."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("prefer_steps", "optimize", "compare"):
        for stage in stages(folder, name):
            shutil.rmtree(stage)
    shutil.rmtree(stages(folder, "evaluate")[-1])
    (log,) = (folder / "answers").glob("M1-*")
    before = {file: file.read_bytes() for file in log.iterdir()}
    for file, recorded in before.items():  # half of what M1 and its judge were asked is not on record
        lines = recorded.splitlines(keepends=True)
        file.write_bytes(b"".join(lines[: len(lines) // 2]) + b'{"key": "cut sh')
    run_and_kill(folder, ["self_rewarding", "smoke", "--workers", "1"], lambda: len(list(log.iterdir())) > len(before))
    assert not (folder / "stages" / stages(folder, "prefer_steps")[0].name / "done.json").exists()
    assert run(folder) == 0
    assert preferences(folder) == preferences(finished)


def test_a_judge_that_always_names_the_first_ends_the_round_with_the_reason(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    judge = json.dumps({"provider": "scripted", "name": "first", "otherwise": "[[A]]"})
    assert run(folder, f"rounds.judge={judge}") != 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "the judge named the same side in both orders" in said
    assert "M1 has no preference between any two steps" in said and "Traceback" not in said


def files(folder: Path, **rows: list[dict[str, Any]]) -> dict[str, str]:
    for name, content in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    return {name: str(folder / f"{name}.jsonl") for name in rows}


def own(paths: dict[str, str], base: str) -> list[str]:
    return [
        f"base={base}",
        f"problems={json.dumps({'path': paths['problems']})}",
        f"instruction.path={paths['solutions']}",
        f"judging.path={paths['contests']}",
        f"evaluation.benchmarks={json.dumps([{'name': 'own', 'path': paths['test']}])}",
    ]


GOOD: dict[str, list[dict[str, Any]]] = {
    "problems": [{"problem": f"What is {n}+2?"} for n in range(8)],
    "solutions": [SOLVED] * 4,
    "contests": [{**CONTEST, "question": f"What is {n}+2?"} for n in range(8)],
    "test": [{"question": "What is 2+3?", "answer": "5"}],
}
BAD: dict[str, tuple[dict[str, list[dict[str, Any]]], str]] = {
    "no answer": ({"test": [{"question": "What is 2+3?"}]}, "answer"),
    "an answer that cannot be found": (
        {"test": [{"question": "What?", "answer": "I would rather not say it"}]},
        "answer",
    ),
    "no problems": ({"problems": []}, "no problems here"),
    "no question": ({"problems": [{"text": "?"}]}, "question"),
    "a verdict that is another": ({"contests": [{**CONTEST, "better": "B"}]}, "does not end with the verdict"),
    "no solution": ({"solutions": [{"problem": "?"}]}, "solution"),
    "too few contests": ({"contests": [CONTEST]}, "too few"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_cannot_be_used_are_refused_in_words(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, expected = BAD[name]
    assert run(tmp_path / "run", *own(files(tmp_path, **(GOOD | changed)), "models/none")) != 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert expected in said and "Traceback" not in said


def test_ones_own_model_and_files_run_the_whole_programme(finished: Path, tmp_path: Path) -> None:
    base = finished / output(stages(finished, "prepare_base")[0])["path"]
    words = own(files(tmp_path, **GOOD), str(base))
    assert run(tmp_path / "run", *words, "rounds.proposing.temperature=1.5") == 0
    results = [output(stage) for stage in stages(tmp_path / "run", "evaluate")]
    assert [result["model"] for result in results] == ["M0", "M1", "M2"]


def test_a_model_that_builds_data_is_looked_for_before_any_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    splitter = {"provider": "openai", "name": "o", "model": "o", "api_key_env": "NO_SUCH_KEY"}
    words = own(files(tmp_path, **GOOD), "./gone")
    assert run(tmp_path / "run", *words, f"instruction.splitter={json.dumps(splitter)}") != 0
    assert "NO_SUCH_KEY is not set" in " ".join("".join(capsys.readouterr()).split())


def test_a_base_model_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "run", *own(files(tmp_path, **GOOD), "./gone")) != 0
    assert "the base model cannot be loaded" in " ".join("".join(capsys.readouterr()).split())
