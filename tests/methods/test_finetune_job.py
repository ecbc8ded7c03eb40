"""What the fine-tuning job does besides what all jobs do (`tests/contract`)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.record import copy_run, output, stages, write_files
from tests.finished import chat_with, one_line, run_smoke, score_with

PAIRS = [{"prompt": f"{n} + 1 =", "chosen": f" {n + 1}", "rejected": f" {n + 3}"} for n in range(24)]
CLASSES = [
    {"text": f"it is {'warm' if n % 2 else 'cold'} today", "label": "warm" if n % 2 else "cold"} for n in range(24)
]
CHATS = [
    {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": str(n)}]} for n in range(24)
]
TEXTS = [{"prompt": f"{n}", "completion": f" {n}"} for n in range(24)]


def run(place: Path, rows: list[dict[str, Any]], *words: str) -> int:
    """The exit code of a run in `place / "run"` on these rows."""
    named = write_files(place, {"rows.jsonl": rows}, ["data.path=FILES/rows.jsonl"])
    return run_smoke("finetune", place / "run", *named, *words)


@pytest.fixture(scope="module")
def finished(smoke_run: Callable[[str], Path]) -> Path:
    return smoke_run("finetune")


@pytest.fixture(scope="module")
def model(finished: Path) -> Path:
    """The model that the smoke run has exported."""
    return finished / output(stages(finished, "export")[0])["path"]


def test_the_loss_of_every_step_is_kept_and_falls(finished: Path) -> None:
    (metrics,) = finished.glob("stages/train-*/metrics.jsonl")
    losses = [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]
    assert len(losses) == 12 and losses[-1] < losses[0]


def test_the_export_is_a_model_like_any_other(model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer("Mia has 12 shells.", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]) == "Mia has 12 shells."
    generated = AutoModelForCausalLM.from_pretrained(model).generate(input_ids=ids, max_new_tokens=3)
    assert generated.shape[1] <= ids.shape[1] + 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (PAIRS, ["objective=dpo", "dpo.beta=0.4", "data.end_of_sequence=false"]),
        (CLASSES, ["objective=classification", "export.weights=average", "training.ema_decay=0.9"]),
    ],
    ids=["dpo", "classification"],
)
def test_every_objective_runs_from_a_file_to_a_verified_export(
    ray_cluster: object, tmp_path: Path, rows: list[dict[str, Any]], words: list[str]
) -> None:
    assert run(tmp_path, rows, "training.steps=3", *words) == 0
    exported = output(stages(tmp_path / "run", "export")[0])
    assert exported["largest_difference"] < 1e-4 and exported["parameters"] > 50_000
    if rows is CLASSES:
        (scored,) = score_with(tmp_path / "run", {"text": CLASSES[0]["text"]})
        assert scored.label in ("cold", "warm") and sum(scored.probabilities.values()) == pytest.approx(1)
        config = json.loads((tmp_path / "run" / exported["path"] / "config.json").read_text())
        assert list(config["id2label"].values()) == list(scored.probabilities)


def test_adapters_on_a_model_of_ones_own(model: Path, tmp_path: Path) -> None:
    lora = "model.lora={rank: 4, quantize: nf4}"
    assert run(tmp_path, TEXTS, f"model.path={model}", lora, "training.steps=3", "export.merge=false") == 0
    assert any((tmp_path / "run").glob("stages/export-*/model/adapter_model.safetensors"))
    assert chat_with(tmp_path / "run", "3 + 4 =").model == "run"


def test_a_model_without_a_chat_template_cannot_take_conversations(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = copy_run(model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    assert run(tmp_path, CHATS, f"model.path={bare}", "data.columns.messages=messages") == 2
    assert "the model has no chat template" in one_line(capsys)


def test_a_model_that_cannot_fit_is_refused_with_what_would(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from squadron.train.models.architectures import find_architecture

    large = tmp_path / "large"
    shutil.copytree(model, large, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    find_architecture("Qwen2.5-72B").save_pretrained(large)
    assert run(tmp_path, TEXTS, f"model.path={large}") == 2
    error = one_line(capsys)
    assert "large" in error and ("GPU" in error or "worker" in error) and "fix:" in error, error
    assert not any((tmp_path / "run").glob("stages/train-*/checkpoints"))
