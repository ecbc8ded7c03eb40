"""Training and export, by `squadron.train`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from squadron.core.folder import relative
from squadron.core.job import estimated
from squadron.core.progress import progress
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows
from squadron.methods.finetune import plan
from squadron.methods.finetune.config import DpoConfig, ExportConfig, ModelConfig, ObjectiveName
from squadron.methods.finetune.records import Dataset, Export, Rows, Trained
from squadron.train.batching.batches import RowSource
from squadron.train.library_setup import quiet_libraries
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.builders import Head, PolicyWithReference, Pretrained
from squadron.train.spec import TrainSpec

HEADS: dict[ObjectiveName, Head] = {
    "sft": "causal",
    "dpo": "causal",
    "reward": "sequence",
    "process_reward": "token",
    "classification": "sequence",
}
"""What models of these objectives end in."""


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
    """Train, from the newest checkpoint if there is one.

    Loss curves and throughput go into the report.

    Raises ConfigError or ResourceError before a worker starts if the batch cannot be dealt out to the workers, or the
    model cannot fit.
    """
    from squadron.train.checkpoints.commits import newest_curve
    from squadron.train.loop import fit
    from squadron.train.multi_run import row_length
    from squadron.train.panels import Counts, measure_losses, show_curves, show_speed
    from squadron.train.planning.allocation import place
    from squadron.train.planning.checks import check_fits

    workers, resources = place(stage, spec)
    check_fits(stage, model, spec, config.lora, workers, resources, rows.longest)
    folder = stage.run.folder
    source = RowSource(ArrowRows(folder, rows.train), row_length)
    total = spec.steps or source.steps(spec)
    stage.restore_metrics(newest_curve(stage.folder))
    with progress(total, "train", "step") as bar:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            stage.log(step, **metrics)
            bar.advance(step - bar.done)

        fitted = fit(
            make_objective(objective, model, dpo, spec),
            make_build(stage, data, model, objective, config, spec),
            source,
            spec,
            stage.folder,
            held_out=ArrowRows(folder, rows.held_out) if rows.held_out else (),
            workers=workers,
            resources=resources,
            identity=f"{model.source or model.path} {model.revision} {config.lora}",
            on_step=on_step,
        )
    steps = fitted.metrics
    stage.restore_metrics(steps)
    show_curves(stage, steps)
    counts = Counts(rows.train_rows, rows.tokens, rows.targets)
    show_speed(stage, steps, model, spec, config.lora, workers, resources, counts)
    loss, held_out_loss = measure_losses(stage, steps)
    return Trained(
        store=relative(stage.folder, folder),
        step=fitted.step,
        best_step=fitted.best_step,
        loss=loss,
        held_out_loss=held_out_loss,
    )


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
    """Write the trained model as files, load them in a clean process, and compare.

    Raises WorkerError if the files answer differently.
    """
    import tempfile
    from pathlib import Path

    from squadron.train.checkpoints.checkpoint import Reader
    from squadron.train.checkpoints.export import export as write

    quiet_libraries()
    stage.folder.remove("model")  # an export that was killed half way leaves files that no later one writes
    build = make_build(stage, data, model, objective, config, spec)
    policy = build.policy if isinstance(build, PolicyWithReference) else build
    run_folder = stage.run.folder
    step = trained.best_step if settings.weights == "best" else trained.step
    with Reader(run_folder / trained.store, step) as reader, tempfile.TemporaryDirectory() as scratch:
        place = Path(f"{stage.folder.path}/model") if stage.folder.path else Path(scratch)
        exported = write(
            policy,
            reader,
            place,
            average=settings.weights == "average",
            merge=settings.merge,
            tokenizer=model.load_tokenizer(run_folder),
            verify=settings.verify,
        )
        if not stage.folder.path:
            for file in sorted(place.iterdir()):
                stage.folder.put(f"model/{file.name}", str(file))
    made = Export.made(
        stage, "model", parameters=exported.parameters, context=model.context, pad_token_id=model.pad_token_id,
        adapter_of=model if exported.kind == "adapter" else None, largest_difference=exported.largest_difference,
    )  # fmt: skip
    stage.headline("model files", made.path)
    if exported.largest_difference is not None:
        stage.headline("largest change of a logit, reloaded", f"{exported.largest_difference:.1e}")
    return made


def make_build(
    stage: Stage, data: Dataset, model: ModelArtifact, objective: ObjectiveName, config: ModelConfig, spec: TrainSpec
) -> Pretrained | PolicyWithReference:
    """What builds the model on each worker."""
    names = {"classification": tuple(map(str, data.classes)), "process_reward": ("wrong", "right")}.get(objective, ())
    build = model.build(
        stage.run.folder,
        spec,
        config.lora,
        head=HEADS[objective],
        labels=len(names) or 1,
        label_names=names,
        pad_token_id=model.pad_token_id if objective != "sft" else None,
    )
    if objective == "dpo" and (config.lora is None or config.reference):
        reference = replace(build, path=config.reference or build.path, lora=None)
        return PolicyWithReference(build, reference)
    return build


def make_objective(objective: ObjectiveName, model: ModelArtifact, dpo: DpoConfig, spec: TrainSpec) -> Any:
    """The loss of this run."""
    from squadron.train.objectives import language, reward

    match objective:
        case "sft":
            return language.SupervisedFineTuning(spec.loss_chunk)
        case "dpo":
            return language.DirectPreference(dpo.beta, dpo.label_smoothing, spec.loss_chunk, dpo.nll_weight)
        case "reward":
            return reward.OutcomeReward(model.pad_token_id)
        case "process_reward":
            return reward.ProcessReward(model.pad_token_id)
        case "classification":
            return reward.Classification(model.pad_token_id)
