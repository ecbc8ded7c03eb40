"""Models that jobs start from: found, made, handed on; and what is said where one cannot be used."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from squadron.core.artifacts import Artifact
from squadron.core.config import Config, fingerprint
from squadron.core.errors import ConfigError, InputError, SquadronError
from squadron.core.folder import Folder
from squadron.core.profile import Profile
from squadron.core.run import Run, Stage
from squadron.data.rows import store_lines, store_rows
from squadron.llm.backends.hf import HfChat
from squadron.llm.chat import ModelUnavailable
from squadron.llm.embed import SentenceTransformersEmbedder, open_embedder
from squadron.llm.providers import check_models
from squadron.llm.rewards.local import load_head
from squadron.llm.rewards.settings import LocalReward
from squadron.llm.settings import HfModel
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.base import find_model, load_config
from squadron.train.models.builders import Architecture, FromConfig, Pretrained
from squadron.train.models.cache import cached_models
from squadron.train.models.random_init import make_small_model
from squadron.train.spec import TrainSpec
from squadron.train.tuning import encode_rows

TEXTS = ["what is six times seven? it is forty two.", "user", "assistant"] * 4
TINY = FromConfig(300, hidden_size=32, layers=1, heads=2, kv_heads=None, intermediate_size=64, context=64)
Spoil = Callable[[Path], object]
Load = Callable[[str], object]


def make_stage(folder: Path | str, name: str = "make") -> Stage:
    run = Run("job", Config(), Folder(folder), Profile(name="auto"), track=())
    return Stage(run, name, "", {}, run.folder / "stages" / name)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its tokenizer and a chat template."""
    stage = make_stage(tmp_path_factory.mktemp("models"))
    return Path(make_small_model(stage, "tiny", TEXTS, TINY, seed=0).locate(stage.run.folder))


def without(*names: str) -> Spoil:
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


def own_code(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}')
    (folder / "own.py").write_text("raise SystemExit('run')")


FINDERS: dict[str, Load] = {
    "find_model": lambda path: find_model(path, "m", chats=True),
    "chat": lambda path: HfChat(HfModel(name="m", path=path)),
}
LOADERS: dict[str, Load] = {
    "train": lambda path: Pretrained(path)(),
    "chat": FINDERS["chat"],
    "reward": lambda path: load_head("sequence", LocalReward(path=path)),
    "embed": lambda path: open_embedder(SentenceTransformersEmbedder(path=path)),
}
NO_TOKENIZER = without("tokenizer.json", "tokenizer_config.json")
UNUSABLE: dict[str, tuple[Spoil, dict[str, Load], str]] = {
    "no such folder": (shutil.rmtree, LOADERS | FINDERS, "cannot be loaded: there is no such folder"),
    "no settings": (without("config.json"), LOADERS | FINDERS, "cannot be loaded: it has no config.json"),
    "code of its own": (own_code, LOADERS | FINDERS, "brings code of its own, which is never run here"),
    "weights cut off": (cut, LOADERS, "cannot be loaded: "),
    "no tokenizer": (NO_TOKENIZER, FINDERS, "cannot be loaded: "),
    "no chat template": (without("chat_template.jinja"), FINDERS, "m has no chat template"),
}
CASES = [(name, loader) for name, (_, loaders, _) in UNUSABLE.items() for loader in loaders]


@pytest.mark.parametrize(("name", "loader"), CASES)
def test_whatever_cannot_be_used_is_told_in_the_same_words_with_its_place_and_a_fix(
    name: str, loader: str, tiny: Path, tmp_path: Path
) -> None:
    spoil, loaders, words = UNUSABLE[name]
    folder = Path(shutil.copytree(tiny, tmp_path / "model"))
    spoil(folder)
    with pytest.raises(SquadronError, match=words) as told:
        loaders[loader](str(folder))
    assert told.value.where == str(folder) and told.value.fix
    if loader in ("chat", "reward", "embed"):
        assert isinstance(told.value, ModelUnavailable)
    else:
        assert isinstance(told.value, ConfigError if "template" in name else InputError)


def test_models_that_only_a_folder_can_hold_are_looked_for_before_any_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="gone cannot be loaded: there is no such folder"):
        check_models([HfModel(name="gone", path=str(tmp_path / "nothing"))])


def test_a_found_model_is_known_by_its_content_and_a_published_one_without_the_hub(tiny: Path, tmp_path: Path) -> None:
    found = find_model(str(tiny), chats=True, name="M0")
    assert (found.context, found.pad_token_id, found.name) == (64, 0, "M0")
    assert found.locate(Folder(tmp_path)) == str(tiny)
    assert found.load_tokenizer(Folder(tmp_path)).chat_template
    copy = find_model(shutil.copytree(tiny, tmp_path / "copy"), chats=True, name="M0")
    assert copy.source != found.source and fingerprint(copy) == fingerprint(found)
    assert load_config("Babel-9B").num_hidden_layers == 34


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt_neox"])
def test_the_same_seed_gives_the_same_weights_and_another_others(tmp_path: Path, architecture: Architecture) -> None:
    shape = FromConfig(**{**TINY.__dict__, "architecture": architecture})

    def weights(place: str, seed: int) -> str:
        stage = make_stage(tmp_path / place)
        model = make_small_model(stage, "small", TEXTS, shape, seed)
        return hashlib.sha256(stage.run.folder.read_bytes(f"{model.path}/model.safetensors")).hexdigest()

    assert weights("a", 0) == weights("b", 0) != weights("c", 1)


@pytest.mark.parametrize("url", [None, "memory://"])
def test_an_artifact_that_is_not_what_was_written_is_refused(tmp_path: Path, url: str | None) -> None:
    stage = make_stage(f"{url}{uuid.uuid4().hex}" if url else tmp_path)
    run = stage.run.folder
    stage.folder.write_bytes("one.bin", b"12345")
    stage.folder.write_bytes("many/a.bin", b"12")
    stage.folder.write_bytes("many/b.bin", b"345")
    file, folder = Artifact.made(stage, "one.bin"), Artifact.made(stage, "many")
    assert file.sha256 == hashlib.sha256(b"12345").hexdigest() and (file.bytes, folder.bytes) == (5, 5)
    assert run.read_bytes(file.path) == b"12345" and folder.locate(run) == stage.folder.file("many")
    assert Artifact.model_validate(json.loads(folder.model_dump_json())) == folder
    stage.folder.write_bytes("many/b.bin", b"346")
    with pytest.raises(InputError, match="many has changed since it was written"):
        folder.locate(run)
    stage.folder.write_bytes("many/b.bin", b"34")
    with pytest.raises(InputError, match="many has 4 bytes; 5 were written"):
        folder.locate(run)
    stage.folder.remove("one.bin")
    with pytest.raises(InputError, match=r"one\.bin is gone") as told:
        file.locate(run)
    assert told.value.where == stage.folder.file("one.bin") and "give the same command again" in told.value.fix


def test_rows_that_are_too_long_are_left_out_and_counted(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    ids = [list(range(count)) for count in (3, 9, 5)]
    rows = [{"input_ids": tokens, "labels": tokens, "length": len(tokens)} for tokens in ids]
    kept = encode_rows(stage, "rows.arrow", rows, TrainSpec(max_length=5), "training.max_length")
    assert [row["length"] for row in kept] == [3, 5]
    assert ["rows of more than 5 tokens, left out", "1 of 3"] in stage.folder.read_json("headlines.json")["headlines"]
    with pytest.raises(InputError, match="no row is left to train on: rows of more than 2 tokens, left out: 3 of 3"):
        encode_rows(stage, "none.arrow", rows, TrainSpec(max_length=2), "training.max_length")


def test_models_that_were_trained_before_are_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUADRON_CACHE", str(tmp_path / "cache"))
    made: list[str] = []

    def models(run: str) -> Iterator[Any]:
        stage = make_stage(tmp_path / run, f"train-{run}")

        def train() -> list[ModelArtifact]:
            made.append(run)
            return [make_small_model(stage, name, TEXTS, TINY, seed=0, name=name) for name in ("a", "b")]

        for model in cached_models(stage, "key", train):
            yield model.name, model.sha256, Path(model.locate(stage.run.folder), "config.json").exists()

    assert list(models("first")) == list(models("second")) == list(models("second"))
    assert made == ["first"]


def test_rows_are_read_as_they_were_written_or_not_at_all(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    run, rows = stage.run.folder, [{"x": 1}, {"x": 2}]
    arrow, lines = store_rows(stage, "rows.arrow", rows, {"x": "int64"}), store_lines(stage, "rows.jsonl", rows)
    assert (arrow.count, lines.count) == (2, 2)
    assert [dict(row) for row in arrow.rows(run)] == lines.lines(run) == rows
    nothing = store_rows(stage, "none.arrow", [], {"x": "int64"})
    assert nothing.count == len(nothing.rows(run)) == 0
    stage.folder.append_line("rows.jsonl", '{"x": 3}')
    with pytest.raises(InputError, match=r"rows\.jsonl has 27 bytes; 18 were written"):
        lines.lines(run)
    stage.folder.remove("rows.arrow")
    with pytest.raises(InputError, match=r"rows\.arrow is gone"):
        arrow.rows(run)
