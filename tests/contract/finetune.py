"""The contract of the job finetune."""

from typing import Any

from tests.contract.record import Contract, Refused, contents


def row(said: str, row: dict[str, Any] | str, *words: str, count: int = 3) -> Refused:
    """A file of this row, so many times."""
    return Refused(said, ["data.path=FILES/rows.jsonl", "data.held_out=0", *words], {"rows.jsonl": [row] * count})


PAIR = {"prompt": "a", "completion": "b"}
LONG = {"prompt": "a", "completion": "b " * 300}
CONTRACT = Contract(
    panels=["Loss by step", "held out", "tokens a second", "MFU", "Sample 1", "Right answers", "Rows by length"],
    half_way="stages/train-*/checkpoints/step-000006/complete.json",
    killed_in="train",
    same=contents("stages/export-*/model/*.safetensors"),
    refused=[
        row("'completion' is missing from this record", {"prompt": "a", "answer": "b"}),
        row("rows.jsonl:1", {"prompt": "a", "answer": "b"}),
        row("did you mean completions?", {"prompt": "a", "completions": "b"}),
        row("there are no records", "", count=0),
        row("holds no text: 3", {"prompt": "a", "completion": 3}),
        row("expected a JSON object, found a text", "a"),
        row("set training.max_length=", LONG),
        row("no row is left", LONG, "data.too_long=leave_out"),
        row("are the same", {"prompt": "a", "chosen": "b", "rejected": "b"}, "objective=dpo"),
        row("all records have the same label", {"text": "a", "label": 1}, "objective=classification"),
        row("it has no config.json", PAIR, "model.path=FILES", count=9),
        row("model.path: /no/such/model", PAIR, "model.path=/no/such/model"),
        row("--workers to 1", PAIR, "--workers", "2", "training.batch_size=8", count=9),
        row("asks for 64 workers", PAIR, "--workers", "64", "training.batch_size=512", count=9),
        Refused("did you mean training?", ["trainning.steps=3"]),
        Refused("no multiple of micro_batch_size 8", ["training.batch_size=7"]),
        Refused("packing needs max_length", ["training.packing=true", "training.max_length=null"]),
        Refused("bf16 needs sharding.zero", ["training.precision=bf16", "training.sharding.zero=0"]),
        Refused("offload_weights needs zero: 3", ["training.sharding={zero: 2, offload_weights: cpu}"]),
        Refused("needs data.path", ["objective=dpo"]),
        Refused("needs model.path", ["model.lora={rank: 4}"]),
        Refused("more than model.scratch.context", ["training.max_length=9999"]),
        Refused("needs training.checkpoint.keep_best", ["export.weights=best"]),
        Refused("data.path: /no/such/file.jsonl", ["data.path=/no/such/file.jsonl"]),
    ],
    spared="stages/train-*/checkpoints",
    no_effect=["training.guard.stall_s=99", "training.checkpoint.every=5", "samples.batch_size=3", "samples.shown=2"],
    late={
        "training.optimizer.learning_rate=0.01": "train",
        "dpo.beta=0.3": "train",
        "export.merge=false": "export",
        "samples.max_new_tokens=7": "compare",
    },
)
