"""The fine-tuning job as its user meets it: one command, a report, a restart after a kill, and words for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from squadron.core.cli import main
from tests.drivers import run_and_kill
from tests.finished import chat_with, missing_metrics, score_with

STEPS = 12


def run(folder: Path, *words: str) -> int:
    return main(["run", "finetune", "smoke", *words, "--run", str(folder)])


def exported(folder: Path) -> bytes:
    (file,) = folder.glob("stages/export-*/model/*.safetensors")
    return file.read_bytes()


@pytest.fixture(scope="module")
def finished(ray_cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run, which other runs are compared with."""
    folder = tmp_path_factory.mktemp("finetune") / "run"
    assert run(folder) == 0
    return folder


def test_sweeps_find_what_they_compare(finished: Path) -> None:
    assert not missing_metrics(finished)


def test_what_it_has_trained_is_served(finished: Path) -> None:
    answer = chat_with(finished, "What is 6 times 7?")
    assert answer.usage.prompt_tokens > 5 and answer.choices[0].finish_reason in ("stop", "length")


def test_the_report_shows_what_a_user_asks_for(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for shown in ("Loss by step", "held out", "tokens a second", "MFU", "Sample 1", "Right answers", "Rows by length"):
        assert shown in page, shown
    (metrics,) = finished.glob("stages/train-*/metrics.jsonl")
    losses = [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]
    assert len(losses) == STEPS and losses[-1] < losses[0]


def test_the_export_is_a_model_like_any_other(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (folder,) = finished.glob("stages/export-*/model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("Mia has 12 shells.", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0]) == "Mia has 12 shells."
    assert model.generate(input_ids=ids, max_new_tokens=3).shape[1] <= ids.shape[1] + 3


def test_a_second_run_does_nothing_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = exported(finished)
    assert run(finished) == 0
    assert capsys.readouterr().out.count("finished before, kept") == 6 and exported(finished) == before


def test_a_driver_killed_mid_training_goes_on_to_the_same_weights(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    saved = "stages/train-*/checkpoints/step-000006/complete.json"
    run_and_kill(folder, ["finetune", "smoke"], lambda: any(folder.glob(saved)))
    assert not any(folder.glob("stages/train-*/done.json"))
    assert run(folder) == 0
    assert exported(folder) == exported(finished)


PAIRS = [{"prompt": f"{n} + 1 =", "chosen": f" {n + 1}", "rejected": f" {n + 3}"} for n in range(24)]
CLASSES = [
    {"text": f"it is {'warm' if n % 2 else 'cold'} today", "label": "warm" if n % 2 else "cold"} for n in range(24)
]
CHATS = [
    {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": str(n)}]} for n in range(24)
]


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
    file = _write(tmp_path / "rows.jsonl", rows)
    assert run(tmp_path / "run", f"data.path={file}", "training.steps=3", *words) == 0
    (done,) = (tmp_path / "run").glob("stages/export-*/done.json")
    output = json.loads(done.read_text())["output"]
    assert output["largest_difference"] < 1e-4 and output["parameters"] > 50_000
    if rows is CLASSES:
        (scored,) = score_with(tmp_path / "run", {"text": CLASSES[0]["text"]})
        assert scored.label in ("cold", "warm") and sum(scored.probabilities.values()) == pytest.approx(1)
        config = json.loads((tmp_path / "run" / output["path"] / "config.json").read_text())
        assert list(config["id2label"].values()) == list(scored.probabilities)


def test_adapters_on_a_model_of_ones_own(finished: Path, tmp_path: Path) -> None:
    (model,) = finished.glob("stages/export-*/model")
    file = _write(tmp_path / "rows.jsonl", [{"prompt": f"{n}", "completion": f" {n}"} for n in range(24)])
    lora = "model.lora={rank: 4, quantize: nf4}"
    words = [f"data.path={file}", f"model.path={model}", lora, "training.steps=3", "export.merge=false"]
    assert run(tmp_path / "run", *words) == 0
    assert any((tmp_path / "run").glob("stages/export-*/model/adapter_model.safetensors"))
    assert chat_with(tmp_path / "run", "3 + 4 =").model == "run"


@pytest.mark.parametrize(
    ("rows", "words", "expected"),
    [
        ([{"prompt": "a", "answer": "b"}] * 3, [], "'completion' is missing from this record"),
        ([{"prompt": "a", "answer": "b"}] * 3, [], "rows.jsonl:1"),
        ([{"prompt": "a", "completions": "b"}] * 3, [], "did you mean completions?"),
        ([], [], "there are no records"),
        ([{"prompt": "a", "completion": 3}] * 3, [], "holds no text: 3"),
        (["a"] * 3, [], "expected a JSON object, found a str"),
        ([{"prompt": "a", "completion": "b " * 300}] * 3, [], "set training.max_length="),
        ([{"prompt": "a", "completion": "b " * 300}] * 3, ["data.too_long=leave_out"], "no row is left"),
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}] * 3, ["objective=dpo"], "are the same"),
        ([{"text": "a", "label": 1}] * 3, ["objective=classification"], "all records have the same label"),
        ([{"prompt": "a", "completion": "b"}] * 9, ["model.path=/no/such/model"], "there is no such model"),
        ([{"prompt": "a", "completion": "b"}] * 9, ["--workers", "2", "training.batch_size=8"], "--workers to 1"),
        (
            [{"prompt": "a", "completion": "b"}] * 9,
            ["--workers", "64", "training.batch_size=512"],
            "asks for 64 workers",
        ),
    ],
)
def test_bad_data_is_refused_before_a_worker_starts(
    ray_cluster: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[Any],
    words: list[str],
    expected: str,
) -> None:
    file = _write(tmp_path / "rows.jsonl", rows)
    assert run(tmp_path / "run", f"data.path={file}", "data.held_out=0", *words) == 2
    assert expected in (error := " ".join(capsys.readouterr().err.split())), error
    assert not any((tmp_path / "run").glob("stages/train-*/checkpoints"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trainning.steps=3"], "did you mean training?"),
        (["training.batch_size=7"], "no multiple of micro_batch_size 8"),
        (["training.packing=true", "training.max_length=null"], "packing needs max_length"),
        (["training.precision=bf16", "training.sharding.zero=0"], "bf16 needs sharding.zero"),
        (["training.sharding={zero: 2, offload_weights: cpu}"], "offload_weights needs zero: 3"),
        (["objective=dpo"], "needs data.path"),
        (["model.lora={rank: 4}"], "needs model.path"),
        (["training.max_length=9999"], "more than model.scratch.context"),
        (["export.weights=best"], "needs training.checkpoint.keep_best"),
        (["data.path=/no/such/file.jsonl"], "file not found"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert run(tmp_path / "run", *words) == 2
    assert expected in (error := " ".join(capsys.readouterr().err.split())), error


def test_a_model_without_a_chat_template_cannot_take_conversations(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    (model,) = finished.glob("stages/export-*/model")
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "chat_template.jinja").unlink()
    file = _write(tmp_path / "rows.jsonl", CHATS)
    words = [f"data.path={file}", f"model.path={bare}", "data.columns.messages=messages"]
    assert run(tmp_path / "run", *words) == 2
    assert "this model has no chat template" in " ".join(capsys.readouterr().err.split())


def test_a_model_that_cannot_fit_is_refused_with_what_would(
    ray_cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    import shutil

    from squadron.train.models.architectures import find_architecture

    (small,) = finished.glob("stages/export-*/model")
    large = tmp_path / "large"
    shutil.copytree(small, large, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    find_architecture("Qwen2.5-72B").save_pretrained(large)
    file = _write(tmp_path / "rows.jsonl", [{"prompt": f"{n}", "completion": f" {n}"} for n in range(24)])
    assert run(tmp_path / "run", f"data.path={file}", f"model.path={large}") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "large" in error and ("GPU" in error or "worker" in error) and "fix:" in error, error
    assert not any((tmp_path / "run").glob("stages/train-*/checkpoints"))


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
