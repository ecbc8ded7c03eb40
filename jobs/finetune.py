"""Fine-tuning: supervised, by preferences, as reward model or as classifier, from a small model to 83B parameters.

python jobs/finetune.py                                  # the demo, on this machine
python jobs/finetune.py demo data.path=my.jsonl data.columns.completion=answer
squadron run finetune qwen2.5-7b data.path=my.jsonl --profile 8xh100 --address auto
"""

from __future__ import annotations

from squadron.core.cli import run_job
from squadron.core.job import job
from squadron.core.run import Run
from squadron.methods.finetune.config import FinetuneConfig, RecordsConfig, StartConfig
from squadron.methods.finetune.endpoint import services
from squadron.methods.finetune.shown import show_row
from squadron.methods.finetune.stages import compare, encode, export, prepare_model, read_data, train

NEEDS = ("ray", "torch", "deepspeed", "transformers", "peft", "pyarrow", "safetensors")


@job(
    FinetuneConfig,
    requires=NEEDS,
    services=services,
    metrics={"held_out_loss": "min", "loss": "min", "right_answers": "max"},
    show_row=show_row,
)
def finetune(run: Run, config: FinetuneConfig) -> None:
    """A language model that has learned from a file."""
    goal, settings, spec = config.objective, config.data, config.training
    data = run.stage(read_data, goal, settings.only(RecordsConfig))  # every record checked, some held out
    model = run.stage(prepare_model, data, goal, settings, config.model.only(StartConfig))  # found, or from scratch
    rows = run.stage(encode, data, model, goal, settings, spec.max_length, spec.packing)  # records → token ids
    trained = run.stage(train, rows, data, model, goal, config.model, config.dpo, spec)  # Ray Train, DeepSpeed
    exported = run.stage(export, trained, data, model, goal, config.model, spec, config.export)  # reloaded, compared
    run.stage(compare, exported, data, model, goal, settings, config.samples)  # held-out prompts, before and after


if __name__ == "__main__":
    run_job(finetune)
