"""What the self-rewarding job does besides what all jobs do (`tests/contract`)."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from squadron.core.config import load_config
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.registry import find_config
from squadron.core.run import Run
from squadron.methods.self_rewarding.config import ProposalsConfig, SelfRewardingConfig
from squadron.methods.self_rewarding.records import Preferences, Sources
from squadron.methods.self_rewarding.stages import prefer_solutions
from squadron.train.models.artifact import ModelArtifact
from tests.contract.record import copy_run, output, stages, write_files
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


def test_a_round_of_the_baseline_ends_the_same_from_half_of_its_answers(finished: Path, tmp_path: Path) -> None:
    """What was lost is asked again, and nothing else."""
    folder = copy_run(finished, tmp_path / "run")
    config = load_config(SelfRewardingConfig, find_config("self_rewarding", "srlm"))
    model, sources = (output(stages(folder, name)[0]) for name in ("fine_tune", "read_problems"))
    inputs = ModelArtifact.model_validate(model), Sources.model_validate(sources), 2, config.prompts
    run = Run("self_rewarding", config, Folder(folder), Profile(name="auto"), track=())

    def logs() -> list[Path]:
        return sorted(path for name in ("M1", "judge") for path in folder.glob(f"answers/{name}-*/*.jsonl"))

    def answered() -> Counter[str]:
        entries = (json.loads(line) for log in logs() for line in log.read_text().splitlines() if line.endswith("}"))
        return Counter(entry["key"] for entry in entries)

    def prefer() -> tuple[Preferences, bytes]:
        found = run.stage(prefer_solutions, *inputs, config.rounds.only(ProposalsConfig), config.generation, 0)
        return found, (folder / found.path).read_bytes()

    shutil.rmtree(folder / "answers")
    with contextlib.closing(run):
        first, asked = prefer(), answered()
        assert first[0].whole and 0 < first[0].count <= first[0].problems == 12
        shutil.rmtree((folder / first[0].path).parent)
        for log in logs():
            lines = log.read_bytes().splitlines(keepends=True)
            log.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:9])
        assert 0 < answered().total() < asked.total()
        assert prefer() == first
    assert answered() == asked and max(asked.values()) == 1


def test_ones_own_model_and_files_run_the_whole_programme(finished: Path, tmp_path: Path) -> None:
    base = finished / output(stages(finished, "prepare_base")[0])["path"]
    words = [*CONTRACT.words, *write_files(tmp_path, FILES, OWN), f"base={base}", "rounds.proposing.temperature=1.5"]
    assert run_smoke("self_rewarding", tmp_path / "run", *words) == 0
    assert models(tmp_path / "run") == ["M0", "M1", "M2"]
