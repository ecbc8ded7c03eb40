"""The command line answers at once, imports nothing heavy, and starts nothing that it need not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from squadron.core import registry
from squadron.core.cli import main

LIB = Path(__file__).resolve().parents[2] / "lib"
HEAVY = ("torch", "ray", "flwr", "mujoco", "matplotlib", "wandb", "pandas", "transformers")


@pytest.mark.parametrize("words", ["--help", "ls", "plan flame", "plan self_rewarding", "plan crowdselect"])
def test_commands_that_only_tell_import_nothing_heavy(words: str, tmp_path: Path) -> None:
    code = (
        "import sys, squadron.core.cli as cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(LIB)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_job_ships_a_demo_and_a_smoke_setting_that_load() -> None:
    from squadron.core.config import load_config

    assert registry.list_jobs()
    for name in registry.list_jobs():
        job = registry.load_job(name)
        assert {"demo", "smoke"} <= set(registry.list_configs(name))
        for config in registry.list_configs(name):
            load_config(job.config_type, registry.find_config(name, config))


def test_settings_may_stand_before_and_after_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "flame", "paper", "homes.clients=70", "--workers", "2", "strategy.name=krum", "homes.seed=3"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "clients: 70" in out and "name: krum" in out and "seed: 3" in out
    with pytest.raises(SystemExit):
        main([*words, "--wrong"])
    assert "unrecognized arguments: --wrong" in capsys.readouterr().err


def test_plan_tells_settings_stages_and_resources(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "flame", "paper", "strategy.name=krum", "--run", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    for shown in ("name: krum", "collect_demos", "to do", "2.43 M parameters", "Nothing is missing"):
        assert shown in out
    assert not (tmp_path / "run").exists()


OWN_JOB = """
from squadron.core.cli import run_job
from squadron.core.config import Config
from squadron.core.job import job
from squadron.core.run import Run, Stage


class Sum(Config):
    of: tuple[int, ...] = (1, 2)


class Total(Config):
    value: int


def add(stage: Stage, config: Sum) -> Total:
    \"\"\"Add them.\"\"\"
    stage.headline("total", str(sum(config.of)))
    return Total(value=sum(config.of))


@job(Sum)
def summing(run: Run, config: Sum) -> None:
    \"\"\"Adds numbers.\"\"\"
    run.stage(add, config)


if __name__ == "__main__":
    run_job(summing)
"""


def test_a_file_of_ones_own_is_a_command(tmp_path: Path) -> None:
    (tmp_path / "summing.py").write_text(OWN_JOB)
    words = [sys.executable, "summing.py", "of=[3,4]", "--run", "mine"]
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(LIB)}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "total" in done.stdout and "7" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "mine" / "report.html").is_file()


def test_report_of_what_is_no_run_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err


def test_an_unknown_job_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "flam"]) == 2
    assert "did you mean flame?" in capsys.readouterr().err


def test_a_run_that_cannot_be_read_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in {
        "a": '{"job": "flame", "format": 2}',
        "b": "[]",
        "c": '{"job": "flame"',
        "d": '{"job": "x"}',
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    assert main(["ls", "--runs", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "flame" in out and "no description of a run" in out and "not valid JSON" in out and "another version" in out
