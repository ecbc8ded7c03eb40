"""Training and asking the models of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.evaluate.panels import loss_curves
from squadron.llm.chat import Message
from squadron.llm.settings import AnyModel, HfModel, VllmModel
from squadron.methods.self_rewarding import algorithm, plan
from squadron.methods.self_rewarding.config import GenerationConfig, PromptsConfig
from squadron.methods.self_rewarding.conversations import lesson_messages
from squadron.methods.self_rewarding.records import Lessons
from squadron.train.models.artifact import ModelArtifact
from squadron.train.spec import LoraSettings, TrainSpec
from squadron.train.tuning import Tuning, encode_rows, tune


def open_settings(stage: Stage, model: ModelArtifact, generation: GenerationConfig) -> AnyModel:
    """A model of this run as workers load it."""
    path = model.locate(stage.run.folder)
    if generation.provider == "vllm":
        return VllmModel(
            name=model.name,
            path=path,
            gpus=generation.gpus,
            max_length=generation.max_length,
            rehearsed=generation.rehearsed,
        )
    return HfModel(name=model.name, path=path, batch_size=generation.batch_size, rehearsed=generation.rehearsed)


@estimated(plan.tuning)
def fine_tune(
    stage: Stage,
    base: ModelArtifact,
    lessons: Lessons,
    prompts: PromptsConfig,
    spec: TrainSpec,
    lora: LoraSettings | None,
) -> ModelArtifact:
    """M1: learn from solutions and judgements.

    Both are in one supervised training. Rows longer than `spec.max_length` tokens are left out, and counted.
    """
    rows = _encode(stage, lessons, base.load_tokenizer(stage.run.folder), prompts)
    fitting = encode_rows(stage, "rows.arrow", rows, spec, "tuning.max_length")
    return train_model(stage, Tuning("M1", base, fitting, spec, lora))


def train_model(stage: Stage, tuning: Tuning) -> ModelArtifact:
    """The model of a round, with its losses in the report."""
    (tuned,) = tune(stage, [tuning])
    stage.show(loss_curves(f"Training loss of {tuning.name}", {tuning.name: tuned.losses}))
    return tuned.model


def _encode(stage: Stage, lessons: Lessons, tokenizer: Any, prompts: PromptsConfig) -> Iterator[dict[str, Any]]:
    from squadron.train.text.conversations import encode_conversation

    folder = stage.run.folder

    def conversations() -> Iterator[tuple[tuple[Message, ...], str]]:
        for row in lessons.instruction.lines(folder):
            yield algorithm.solve_messages(prompts.solve, row["question"]), "\n".join(row["steps"])
        for row in lessons.evaluation.lines(folder):
            yield lesson_messages(prompts, row), row["judgement"]

    for asked, answer in conversations():
        yield encode_conversation(tokenizer, [*asked, {"role": "assistant", "content": answer}])
