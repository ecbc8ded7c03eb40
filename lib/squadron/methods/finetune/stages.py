"""The stages of a fine-tuning run, in the order of `jobs/finetune.py`."""

from __future__ import annotations

from squadron.core.job import estimated
from squadron.core.run import Stage
from squadron.methods.finetune import plan
from squadron.methods.finetune.config import (
    DataConfig,
    DpoConfig,
    ExportConfig,
    ModelConfig,
    ObjectiveName,
    RecordsConfig,
    SamplesConfig,
    StartConfig,
)
from squadron.methods.finetune.records import Dataset, Export, Rows, SampleScores, Trained
from squadron.train.models.artifact import ModelArtifact
from squadron.train.spec import TrainSpec


def read_data(stage: Stage, objective: ObjectiveName, data: RecordsConfig) -> Dataset:
    """Read and check every record, and hold some out."""
    from squadron.methods.finetune import dataset

    return dataset.read(stage, objective, data)


def prepare_model(
    stage: Stage, data: Dataset, objective: ObjectiveName, settings: DataConfig, config: StartConfig
) -> ModelArtifact:
    """Find the model, or make a small one with a tokenizer of its own."""
    from squadron.methods.finetune import base

    return base.prepare(stage, data, objective, settings, config)


def encode(
    stage: Stage,
    data: Dataset,
    model: ModelArtifact,
    objective: ObjectiveName,
    settings: DataConfig,
    max_length: int | None,
) -> Rows:
    """Turn records into token ids, and count what is too long."""
    from squadron.methods.finetune import dataset

    return dataset.encode(stage, data, model, objective, settings, max_length)


@estimated(plan.estimate)
def train(
    stage: Stage,
    rows: Rows,
    data: Dataset,
    model: ModelArtifact,
    objective: ObjectiveName,
    config: ModelConfig,
    dpo: DpoConfig,
    spec: TrainSpec,
) -> Trained:
    """Train, from the newest checkpoint if there is one."""
    from squadron.methods.finetune import training

    return training.run(stage, rows, data, model, objective, config, dpo, spec)


def export(
    stage: Stage,
    trained: Trained,
    data: Dataset,
    model: ModelArtifact,
    objective: ObjectiveName,
    config: ModelConfig,
    spec: TrainSpec,
    settings: ExportConfig,
) -> Export:
    """Write the trained model as files, load them in a clean process, and compare."""
    from squadron.methods.finetune import training

    return training.export(stage, trained, data, model, objective, config, spec, settings)


def compare(
    stage: Stage,
    exported: Export,
    data: Dataset,
    model: ModelArtifact,
    objective: ObjectiveName,
    settings: DataConfig,
    config: SamplesConfig,
) -> SampleScores:
    """Let the model answer held-out prompts, as it was and as it is."""
    from squadron.methods.finetune import samples

    return samples.compare(stage, exported, data, model, objective, settings, config)
