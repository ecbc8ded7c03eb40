"""What the self-rewarding job does besides what all jobs do (`tests/contract`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from squadron.core.cli import main
from tests.contract.record import contents, copy_run, output, stages, write_files
from tests.contract.self_rewarding import CONTRACT, FILES, OWN
from tests.finished import one_line, run_smoke


@pytest.fixture(scope="module")
def finished(smoke_run: Callable[[str], Path]) -> Path:
    return smoke_run("self_rewarding")


def models(folder: Path) -> list[str]:
    return [output(stage)["model"] for stage in stages(folder, "evaluate")]


def test_every_model_is_measured_on_the_same_problems_and_contests(finished: Path) -> None:
    results = [output(stage) for stage in stages(finished, "evaluate")]
    assert models(finished) == ["M0", "M1", "M2"]
    assert {len(result["benchmarks"][0]["right"]) for result in results} == {10}
    assert {len(result["judge"]["right"]) for result in results} == {10}


def test_a_judge_that_always_names_the_first_ends_the_round_with_the_reason(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_run(finished, tmp_path / "run")
    judge = json.dumps({"provider": "scripted", "name": "first", "otherwise": "[[A]]"})
    assert run_smoke("self_rewarding", folder, *CONTRACT.words, f"rounds.judge={judge}") == 2
    said = one_line(capsys)
    assert "the judge named the same side in both orders" in said
    assert "M1 has no preference between any two steps" in said


def test_the_baseline_ends_as_one_that_nobody_disturbed(ray_cluster: object, tmp_path: Path) -> None:
    """Half of what was answered in its round is lost, and asked again."""
    whole = tmp_path / "whole"
    words = ["run", "self_rewarding", "srlm", *CONTRACT.words, "--run"]
    assert main([*words, str(whole)]) == 0
    assert models(whole) == ["M0", "M1", "M2"] and not stages(whole, "prefer_steps")
    text = (whole / "report.html").read_text()
    assert all(
        shown in text for shown in ("The scoring of this round", "Solutions and their scores", "Solved by round")
    )
    again = copy_run(whole, tmp_path / "again")
    for path in [*again.glob("stages/prefer_solutions-*"), *again.glob("stages/optimize-*")]:
        shutil.rmtree(path)
    for log in [*again.glob("answers/M1-*/*.jsonl"), *again.glob("answers/judge-*/*.jsonl")]:
        lines = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:9])
    assert main([*words, str(again)]) == 0
    same = contents("stages/prefer_solutions-*/preferences.jsonl")
    assert same(again) == same(whole) != {}
    assert [output(stage) for stage in stages(again, "evaluate")] == [
        output(stage) for stage in stages(whole, "evaluate")
    ]


def test_ones_own_model_and_files_run_the_whole_programme(finished: Path, tmp_path: Path) -> None:
    base = finished / output(stages(finished, "prepare_base")[0])["path"]
    words = [*CONTRACT.words, *write_files(tmp_path, FILES, OWN), f"base={base}", "rounds.proposing.temperature=1.5"]
    assert run_smoke("self_rewarding", tmp_path / "run", *words) == 0
    assert models(tmp_path / "run") == ["M0", "M1", "M2"]
