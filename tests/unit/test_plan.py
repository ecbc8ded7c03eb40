"""`squadron plan` shows what differs, what stages estimate and what is missing, and starts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from squadron.core import hub, registry
from squadron.core.cli import main
from squadron.core.config import Config, fingerprint, from_values, load_config
from squadron.core.folder import Folder
from squadron.core.plan import differing, plan_stages
from squadron.core.profile import Profile

CONFIGS = [(job, name) for job in registry.list_jobs() for name in registry.list_configs(job)]


@pytest.mark.parametrize(("job", "name"), CONFIGS)
def test_the_settings_that_differ_are_all_that_is_needed(job: str, name: str) -> None:
    kind = registry.load_job(job).config_type
    config = load_config(kind, registry.find_config(job, name))
    assert from_values(kind, differing(config), {}) == config
    assert differing(kind()) == {}


@pytest.mark.parametrize("job", registry.list_jobs())
def test_stages_estimate_what_a_job_takes(job: str, tmp_path: Path) -> None:
    found = registry.load_job(job)
    config: Config = load_config(found.config_type, registry.find_config(job, None))
    plan = plan_stages(found, config, Folder(tmp_path), Profile(name="auto"))
    assert plan.steps and plan.estimates
    rows = [row for estimate in plan.estimates for row in estimate(config, 2, Profile(name="auto"))]
    assert all(label and value for label, value in rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("workers", "answer"), [("", "fits"), ("--workers 1", "does not fit")])
def test_a_profile_of_eight_cards_is_planned_with_eight(
    workers: str, answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Babel-9B in full needs some 155 GB on one card, a fifth of it on each of eight."""
    assert main(["plan", "finetune", "babel-9b", "--profile", "8xh100", *workers.split()]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"training workers │ {'1' if workers else '8'};" in out
    assert f"on H100, 80 GB │ {answer} │" in out


def test_missing_files_and_keys_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQUADRON_TEST_KEY", raising=False)
    model = "{provider: openai, name: a, model: a, api_key_env: SQUADRON_TEST_KEY}"
    words = ["pool.path=/nope.jsonl", f"models=[{model}]", "reward={provider: column}", "pool.layout=responses"]
    assert main(["plan", "crowdselect", "responses", *words]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "/nope.jsonl, which pool.path names" in out
    assert "the environment variable SQUADRON_TEST_KEY, which models.0.api_key_env names" in out


def test_a_run_with_a_missing_file_is_refused_before_it_has_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "finetune", "data.path=no/such.jsonl", "--run", str(tmp_path / "r")]) == 2
    assert "data.path: no/such.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_all_settings_are_shown_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "flame"]) == 0
    short = capsys.readouterr().out
    assert main(["plan", "flame", "--full"]) == 0
    full = capsys.readouterr().out
    assert "fewer" not in short and "weight_decay: 1.0e-05" in full and "weight_decay" not in short


def test_a_plan_knows_what_an_earlier_run_was_told_by_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub cannot be reached, its stages are those of the run."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    Folder(tmp_path).write_json("commits.json", {"datasets/org/told@main": "a" * 40})
    found = registry.load_job("finetune")
    config = load_config(found.config_type, None, ["data.path=org/told"])
    before = fingerprint(config)
    plan_stages(found, config, Folder(tmp_path), Profile(name="auto"))
    assert fingerprint(config) != before
    hub.commits.clear()
    assert fingerprint(config) == before
