"""Training and asking the models of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from squadron.core.errors import InputError
from squadron.core.folder import relative
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.evaluate.panels import loss_curves
from squadron.llm.chat import Message
from squadron.llm.settings import AnyModel, HfModel, VllmModel
from squadron.methods.self_rewarding import algorithm
from squadron.methods.self_rewarding.config import GenerationConfig, PromptsConfig
from squadron.methods.self_rewarding.conversations import judge_messages
from squadron.methods.self_rewarding.records import Lessons, Model
from squadron.train.spec import LoraSettings, TrainSpec


def open_settings(stage: Stage, model: Model, generation: GenerationConfig) -> AnyModel:
    """A model of this run as workers load it."""
    path = model.at(stage.run.folder)
    if generation.provider == "vllm":
        return VllmModel(name=model.name, path=path, gpus=generation.gpus, max_length=generation.max_length)
    return HfModel(name=model.name, path=path, batch_size=generation.batch_size)


def fine_tune(
    stage: Stage, base: Model, lessons: Lessons, prompts: PromptsConfig, spec: TrainSpec, lora: LoraSettings | None
) -> Model:
    """M1: supervised fine-tuning on solutions and judgements together. Rows longer than `spec.max_length` tokens are
    left out, and counted."""
    from transformers import AutoTokenizer

    from squadron.train.models.builders import local_folder
    from squadron.train.objectives.language import SupervisedFineTuning

    tokenizer = AutoTokenizer.from_pretrained(local_folder(base.at(stage.run.folder)), trust_remote_code=False)
    total = lessons.instruction_count + lessons.evaluation_count
    count = write_rows(stage.folder, "rows.arrow", _encode(stage, lessons, tokenizer, prompts, spec.max_length))
    if count < total:
        stage.headline(f"rows of more than {spec.max_length:,} tokens, left out", f"{total - count:,} of {total:,}")
    if not count:
        fix = "raise tuning.max_length"
        raise InputError(f"all {total:,} rows are longer than {spec.max_length:,} tokens", fix=fix)
    rows = ArrowRows(stage.run.folder, [relative(stage.folder, stage.run.folder, "rows.arrow")])
    return train_model(stage, "M1", base, SupervisedFineTuning(spec.loss_chunk), rows, spec, lora)


def _encode(
    stage: Stage, lessons: Lessons, tokenizer: Any, prompts: PromptsConfig, longest: int | None
) -> Iterator[dict[str, Any]]:
    from squadron.train.text.conversations import encode_conversation

    folder = stage.run.folder

    def conversations() -> Iterator[tuple[tuple[Message, ...], str]]:
        for row in folder.read_lines(lessons.instruction):
            yield algorithm.solve_messages(prompts.solve, row["question"]), "\n".join(row["steps"])
        for row in folder.read_lines(lessons.evaluation):
            shown = row["question"], row["steps"], row["first"], row["second"]
            yield judge_messages(prompts, *shown), row["judgement"]

    for asked, answer in conversations():
        row = encode_conversation(tokenizer, [*asked, {"role": "assistant", "content": answer}])
        if longest is None or row["length"] <= longest:
            yield row


def train_model(
    stage: Stage,
    name: str,
    start: Model,
    objective: Any,
    rows: Sequence[Any],
    spec: TrainSpec,
    lora: LoraSettings | None,
    *,
    reference: bool = False,
) -> Model:
    """Train from `start` and export as `name`; with `reference`, beside a frozen copy of where it starts from.

    Raises ConfigError, ResourceError or WorkerError as training does; the same command then goes on where it was.
    """
    from squadron.train.models.builders import PolicyWithReference, Pretrained
    from squadron.train.multi_run import TrainJob, train_several

    path = start.at(stage.run.folder)
    policy = Pretrained(path, precision=spec.precision, lora=lora, fused=spec.fused_kernels)
    frozen = reference and lora is None  # with adapters, the reference is the model without them
    build = PolicyWithReference(policy, replace(policy, lora=None)) if frozen else policy
    (learned,) = train_several(stage, [TrainJob(name, build, objective, rows, spec, tokenizer=path)])
    stage.show(loss_curves(f"Training loss of {name}", {name: learned.losses}))
    return Model(name=name, path=learned.path)
