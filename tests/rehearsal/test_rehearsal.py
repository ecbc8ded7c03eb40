"""A rehearsal changes sizes and names, never which code runs; and every preset that ships can be rehearsed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from squadron.core import registry
from squadron.core.cli import main
from squadron.core.config import load_config
from squadron.core.folder import Folder
from squadron.core.inputs import InputPath, walk_settings
from squadron.core.manifest import FORMAT
from squadron.core.plan import plan_stages
from squadron.core.profile import find_profile
from squadron.core.rehearsal import ModelKind, Replies, rehearse
from squadron.rehearse.small_models import make_twin
from squadron.train.models.families import FAMILIES, make_family_model

PRESETS = [(job, name) for job in registry.list_jobs() for name in registry.list_configs(job) if name != "smoke"]
ALONE = ("base_url", "api_key_env", "continuation")
"""Besides numbers and places, what a rehearsal may change: which server is asked; how it continues is then stated."""


class Names:
    """Stand-ins by name alone."""

    replies: Replies = ()

    def model(self, path: str, kind: ModelKind, labels: Sequence[str] = ()) -> InputPath:
        return InputPath(f"small/{kind}")

    def rows(self, path: str, split: str, records: Callable[[], Iterable[Mapping[str, Any]]]) -> InputPath:
        return InputPath("small/rows")

    def text(self, path: str, make: Callable[[], str]) -> InputPath:
        return InputPath("small/text")

    def endpoint(self, model: str, base_url: str) -> str:
        return "http://127.0.0.1:1/v1"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """No hub, as on any machine of CI, and a folder to work in."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.parametrize(("job", "preset"), PRESETS)
def test_sizes_and_names_change_and_nothing_else(job: str, preset: str) -> None:
    config = load_config(registry.load_job(job).config_type, registry.find_config(job, preset))
    before, after = dict(walk_settings(config)), dict(walk_settings(rehearse(config, Names())))
    changed = {key for key in after if key not in before or before[key] != after[key]}
    changed = {key for key in changed if ".rehearsed" not in key and not key.endswith(ALONE)}
    for key in changed:
        old, new = before.get(key), after[key]
        assert isinstance(new, InputPath | int | float), f"{key}: {old} → {new}"
        assert not isinstance(new, bool) and (isinstance(new, InputPath) or old is None or new <= old), key


@pytest.mark.parametrize(("job", "preset"), PRESETS)
def test_every_preset_plays_to_its_end(
    job: str, preset: str, ray_cluster: object, offline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All its stages run on stand-ins, and the folder and the report say that it was a rehearsal."""
    assert main(["rehearse", job, preset]) == 0, capsys.readouterr()
    folder = offline / "runs" / f"rehearsal-{job}-{preset}"
    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["rehearsal"] is True
    assert "Rehearsal of" in (folder / "report.html").read_text()
    recipe = registry.load_job(job)
    played = load_config(recipe.config_type, folder / "config.yaml")
    steps = plan_stages(recipe, played, Folder(folder), find_profile("auto")).steps
    assert {state for _, _, state in steps} == {"finished"}, steps


def test_a_users_own_model_and_rows_are_rehearsed_in_small(ray_cluster: object, offline: Path) -> None:
    """The tokenizer and the template are the user's, to the byte; the rows are the first of the user's file."""
    make_family_model(offline / "mine", "gemma2", hidden_size=96, layers=4)
    template = (offline / "mine" / "chat_template.jinja").read_bytes()
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(200)]
    (offline / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["data.path=mine.jsonl", "model.path=mine", "--run", "rehearsal"]
    assert main(["rehearse", "finetune", "qwen2.5-7b", *words]) == 0
    (twin,) = Path("rehearsal/stand_ins/models").iterdir()
    settings = json.loads((twin / "config.json").read_text())
    assert settings["model_type"] == "gemma2" and settings["num_hidden_layers"] == 2
    assert (twin / "tokenizer.json").read_bytes() == (offline / "mine" / "tokenizer.json").read_bytes()
    assert (twin / "chat_template.jinja").read_bytes() == template
    (data,) = Path("rehearsal/stand_ins/data").iterdir()
    assert [json.loads(line) for line in data.read_text().splitlines()] == rows[:64]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_any_family_has_a_small_twin(tmp_path: Path, family: str) -> None:
    """Of the same class and kinds of layers, which reads what its tokenizer writes."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    sizes = {"hidden_size": 128, "heads": 8, "kv_heads": 2, "layers": 4}
    make_twin(make_family_model(tmp_path / "model", family, kind="encoder", **sizes), "encoder", tmp_path / "twin")  # type: ignore[arg-type]
    model, twin = (AutoModel.from_pretrained(tmp_path / name) for name in ("model", "twin"))
    assert type(twin) is type(model) and twin.num_parameters() < model.num_parameters()
    kinds = [set(getattr(one.config, "layer_types", None) or ()) for one in (model, twin)]
    assert kinds[0] == kinds[1]
    ids = AutoTokenizer.from_pretrained(tmp_path / "twin")("12 and 7 are 19").input_ids
    assert torch.isfinite(twin(torch.tensor([ids])).last_hidden_state).all()


def test_a_rehearsal_takes_no_folder_of_a_real_run(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = offline / "run"
    run.mkdir()
    Folder(run).write_json("run.json", {"job": "finetune", "format": FORMAT})
    assert main(["rehearse", "finetune", "qwen2.5-7b", "--run", str(run)]) == 2
    assert "no rehearsal" in capsys.readouterr().err
    assert list(run.iterdir()) == [run / "run.json"]


def test_an_empty_file_of_the_user_is_named(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (offline / "mine.jsonl").touch()
    assert main(["rehearse", "finetune", "qwen2.5-7b", "data.path=mine.jsonl"]) == 2
    assert "where: mine.jsonl" in capsys.readouterr().err


def test_bad_rows_of_the_user_are_found(offline: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (offline / "mine.jsonl").write_text('{"prompt": "a"}\n')
    assert main(["rehearse", "finetune", "qwen2.5-7b", "data.path=mine.jsonl"]) == 2
    assert "completion" in capsys.readouterr().err
