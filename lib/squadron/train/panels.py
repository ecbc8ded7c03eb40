"""What a training shows in a report: its losses, and how fast it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from squadron.core.panels import Table
from squadron.core.profile import WorkerResources
from squadron.core.run import Stage
from squadron.evaluate.panels import step_curves
from squadron.train.models.artifact import ModelArtifact
from squadron.train.planning.checks import utilisation
from squadron.train.spec import LoraSettings, TrainSpec

_SKIPPED_STEPS = 5


class Counts(NamedTuple):
    """What a training reads in one pass."""

    rows: int
    tokens: int
    targets: int


def measure_losses(stage: Stage, steps: Sequence[Mapping[str, Any]]) -> tuple[float, float | None]:
    """Measure the losses of a stage's steps, for its headlines too; the mean of the last twenty, and the last held-out
    one."""
    held_out = [step["held_out_loss"] for step in steps if step.get("held_out_loss") is not None]
    last = _recent(steps)
    stage.headline("training loss", f"{steps[0]['loss']:.4f} → {last:.4f}")
    if held_out:
        shown = f"{held_out[0]:.4f} → {held_out[-1]:.4f}" if held_out[1:] else f"{held_out[0]:.4f}"
        stage.headline("held-out loss", shown)
    stage.measure(loss=last, **({"held_out_loss": min(held_out)} if held_out else {}))
    return last, held_out[-1] if held_out else None


def show_curves(stage: Stage, steps: Sequence[Mapping[str, Any]]) -> None:
    """Loss by step, held-out loss beside it; accuracy if the objective has one."""
    losses = _smooth([step["loss"] for step in steps])
    shown = [{**step, "loss": loss} for step, loss in zip(steps, losses, strict=True)]
    stage.show(step_curves("Loss by step", shown, {"loss": "training", "held_out_loss": "held out"}))
    if "accuracy" in steps[0]:
        accuracy = _smooth([step["accuracy"] for step in steps])
        shown = [{"step": step["step"], "accuracy": share} for step, share in zip(steps, accuracy, strict=True)]
        stage.show(step_curves("Accuracy by step", shown, {"accuracy": ""}, y_label="share"))


def show_speed(
    stage: Stage,
    steps: Sequence[Mapping[str, Any]],
    model: ModelArtifact,
    spec: TrainSpec,
    lora: LoraSettings | None,
    workers: int,
    resources: WorkerResources,
    counts: Counts,
) -> None:
    """Tokens a second, and which share of the hardware's arithmetic they are."""
    steady = list(steps[_SKIPPED_STEPS:] or steps)
    rate = median(step["tokens"] / step["seconds"] for step in steady)
    tokens = median(step["tokens"] for step in steady)
    seconds = median(step["seconds"] for step in steady)
    stage.headline("tokens a second", f"{rate:,.0f}")
    table: list[list[Any]] = [
        ["workers", f"{workers}, each {resources.cpus:g} CPU and {resources.gpus:g} GPU"],
        ["steps", len(steps)],
        ["seconds a step", f"{seconds:.3g}"],
        ["tokens a step", f"{tokens:,.0f}"],
        ["tokens a second", f"{rate:,.0f}"],
        ["tokens with a target", f"{counts.targets / max(1, counts.tokens):.0%} of {counts.tokens:,}"],
    ]
    mean_length = max(1, counts.tokens // max(1, counts.rows))
    table += utilisation(stage, model, spec, lora, workers, resources, tokens, seconds, mean_length)
    stage.show(Table(title="Speed", columns=["what", "figure"], rows=table, note="Medians over steps after the first."))


def _recent(steps: Sequence[Mapping[str, Any]]) -> float:
    losses = [step["loss"] for step in steps[-20:]]
    return sum(losses) / len(losses)


def _smooth(values: Sequence[float]) -> list[float]:
    """A moving average that widens with the number of values, as long as they are."""
    width = max(1, len(values) // 50)
    sums, total = [], 0.0
    for number, value in enumerate(values):
        total += value - (values[number - width] if number >= width else 0.0)
        sums.append(total / min(number + 1, width))
    return sums
