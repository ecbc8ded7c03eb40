"""What was trained under any ZeRO stage, with any adapter, is what the exported files hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from squadron.core.errors import InputError, WorkerError
from squadron.core.folder import Folder
from squadron.train.checkpoints.checkpoint import Reader
from squadron.train.checkpoints.export import export, restored
from squadron.train.models.builders import Pretrained
from squadron.train.spec import LoraSettings

Answers = dict[str, dict[str, Any]]
RunGroup = Callable[[int, Sequence[dict[str, Any]]], Answers]
LORA = {"rank": 4, "alpha": 8}
KINDS: dict[str, dict[str, Any] | None] = {"full": None, "lora": LORA, "qlora": {**LORA, "quantize": "nf4"}}
CASES = [(kind, zero) for kind in KINDS for zero in range(4)]
SPEC = {"steps": 3, "batch_size": 4, "micro_batch_size": 2, "optimizer": {"learning_rate": 0.02}, "ema_decay": 0.5}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def trained(run_group: RunGroup, tiny_model: str, stores: Path) -> Answers:
    """Three steps of each kind under each ZeRO stage on two workers, with the logits of the sharded model itself; and
    two runs that begin with a checkpoint that is not theirs."""
    from squadron.train.models.builders import FromConfig

    narrow = str(stores / "narrow")
    FromConfig(vocabulary=64, hidden_size=32, layers=2, intermediate_size=64)().save_pretrained(narrow)
    scenarios: list[dict[str, Any]] = [
        {
            "name": f"{kind}-{zero}",
            "store": str(stores / f"{kind}-{zero}"),
            "model": tiny_model,
            "spec": SPEC | {"sharding": {"zero": zero}},
            "lora": KINDS[kind],
            "probe": True,
        }
        for kind, zero in CASES
    ]
    store = str(stores / "full-2")
    scenarios.append({"name": "narrow", "spec": SPEC, "store": store, "model": narrow})
    changed = SPEC | {"optimizer": {"learning_rate": 0.01}}
    scenarios.append({"name": "other", "spec": changed, "store": store, "model": tiny_model})
    answers = run_group(2, scenarios)
    assert not any(answers[f"{kind}-{zero}"]["error"] for kind, zero in CASES), answers
    return answers


def build_of(kind: str, tiny_model: str) -> Pretrained:
    lora = KINDS[kind]
    return Pretrained(tiny_model, lora=None if lora is None else LoraSettings.model_validate(lora))


@pytest.mark.parametrize(("kind", "zero"), CASES)
def test_the_checkpoint_answers_as_the_sharded_model_did(
    trained: Answers, stores: Path, tiny_model: str, kind: str, zero: int
) -> None:
    with Reader(Folder(stores / f"{kind}-{zero}"), 3) as reader:
        model = restored(build_of(kind, tiny_model), reader)
    with torch.no_grad():
        logits = model(input_ids=torch.arange(3, 19)[None]).logits
    torch.testing.assert_close(logits, torch.tensor(trained[f"{kind}-{zero}"]["logits"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "merge", "clean_process"),
    [("lora", True, False), ("lora", False, False), ("qlora", True, True), ("qlora", False, True)],
)
def test_adapters_reload_with_equal_logits(
    trained: Answers, stores: Path, tiny_model: str, tmp_path: Path, kind: str, merge: bool, clean_process: bool
) -> None:
    with Reader(Folder(stores / f"{kind}-3"), 3) as reader:
        done = export(build_of(kind, tiny_model), reader, tmp_path, merge=merge, clean_process=clean_process)
    assert done.largest_difference < 1e-4 and done.kind == ("full" if merge else "adapter")
    (file,) = tmp_path.glob("*.safetensors")
    with safe_open(file, framework="pt") as tensors:
        assert all(tensors.get_tensor(name).numel() for name in tensors.keys())  # noqa: SIM118
        assert any("lora_B" in name for name in tensors.keys()) is not merge  # noqa: SIM118


def test_all_weights_reload_in_a_clean_process_and_their_average_reloads_too(
    trained: Answers, stores: Path, tiny_model: str, tmp_path: Path
) -> None:
    with Reader(Folder(stores / "full-3"), 3) as reader:
        last = export(build_of("full", tiny_model), reader, tmp_path / "last")
        average = export(build_of("full", tiny_model), reader, tmp_path / "average", average=True, clean_process=False)
        for name, tensor in reader.tensors():
            with safe_open(tmp_path / "last" / "model.safetensors", framework="pt") as file:
                assert torch.equal(file.get_tensor(name.removeprefix("model.")), tensor)
    assert last.largest_difference < 1e-5 and average.largest_difference < 1e-5
    assert (tmp_path / "last" / "model.safetensors").read_bytes() != (
        tmp_path / "average" / "model.safetensors"
    ).read_bytes()


def test_large_models_are_written_in_several_files(
    trained: Answers, stores: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squadron.train.checkpoints.export.SHARD_BYTES", 20_000)
    with Reader(Folder(stores / "full-2"), 3) as reader:
        done = export(build_of("full", tiny_model), reader, tmp_path, clean_process=False)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2 and done.largest_difference < 1e-5


def test_a_file_that_answers_otherwise_is_no_export(
    trained: Answers, stores: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from squadron.train.checkpoints import export as module

    write = module._write_safetensors

    def spoil(weights: Any, *rest: Any) -> int:
        return write(((name, tensor + 0.05) for name, tensor in weights), *rest)

    monkeypatch.setattr(module, "_write_safetensors", spoil)
    with Reader(Folder(stores / "full-1"), 3) as reader, pytest.raises(WorkerError, match="answers differently"):
        export(build_of("full", tiny_model), reader, tmp_path, clean_process=False)


def test_a_checkpoint_of_another_model_or_run_is_refused(trained: Answers) -> None:
    assert "is of another model: model." in trained["narrow"]["error"]
    assert "(64, 64) in it and (64, 32) here" in trained["narrow"]["error"]
    assert "belongs to another run: it differs in optimizer" in trained["other"]["error"]


@pytest.mark.parametrize(("head", "labels"), [("sequence", 1), ("sequence", 3), ("token", 2), ("none", 1)])
def test_models_with_other_heads_reload_too(tiny_model: str, tmp_path: Path, head: Any, labels: int) -> None:
    """Reward models, classifiers and encoders: a checkpoint made of their own weights, exported and reloaded."""
    from safetensors.torch import save_file

    from squadron.train.checkpoints.commits import Complete, commit

    build = Pretrained(tiny_model, head=head, labels=labels, pad_token_id=0)
    torch.manual_seed(1)
    weights = {f"model.{name}": value.detach() + 0.01 for name, value in build().named_parameters()}
    folder = tmp_path / "checkpoints" / "step-000001"
    folder.mkdir(parents=True)
    starts = json.dumps(dict.fromkeys(weights, 0))
    flat = {f"{name}|weight": value.flatten() for name, value in weights.items()}
    save_file(flat, folder / "rank-00-of-01.safetensors", metadata={"starts": starts})
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    part = folder / "rank-00-of-01.safetensors"
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    commit(Folder(folder), Complete(step=1, files={part.name: digest}, shapes=shapes, identity={}))
    with Reader(Folder(tmp_path), 1) as reader:
        done = export(build, reader, tmp_path / "out", clean_process=False)
    assert done.largest_difference < 1e-5 and done.parameters == sum(value.numel() for value in weights.values())


def test_a_damaged_checkpoint_is_named(trained: Answers, stores: Path, tiny_model: str, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(stores / "full-2", tmp_path / "store")
    (broken,) = (tmp_path / "store" / "checkpoints" / "step-000003").glob("rank-01-*")
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1000])
    with pytest.raises(InputError, match=r"damaged: rank-01-of-02"), Reader(Folder(tmp_path / "store"), 3):
        pass
    broken.write_bytes(whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:])
    with pytest.raises(InputError, match=r"damaged: rank-01-of-02.*has changed"), Reader(Folder(tmp_path / "store"), 3):
        pass
    broken.unlink()
    with pytest.raises(InputError, match="damaged"), Reader(Folder(tmp_path / "store"), 3):
        pass


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be loaded"):
        Pretrained(str(tmp_path))()
