"""What the stages of a fine-tuning run hand on to each other."""

from __future__ import annotations

from typing import Any

from squadron.core.config import Config
from squadron.data.rows import RowsFile
from squadron.train.models.artifact import ModelArtifact


class Dataset(Config):
    """Checked records, those to train on and those held out, the classes of their labels, and whether some are
    conversations."""

    train: RowsFile
    held_out: RowsFile
    classes: tuple[Any, ...] = ()
    chats: bool = False


class Rows(Config):
    """Encoded rows in Arrow files, in paths relative to the run folder."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    train_rows: int
    held_out_rows: int
    tokens: int
    targets: int
    longest: int
    too_long: int
    nothing_to_learn: int


class Trained(Config):
    """A finished training: where its checkpoints are, relative to the run folder."""

    store: str
    step: int
    best_step: int
    loss: float
    held_out_loss: float | None


class Export(ModelArtifact):
    """The model that is left: whole, or the adapter alone. By how much its logits changed when it was reloaded."""

    largest_difference: float | None


class SampleScores(Config):
    """What the model answered before and after."""

    scored: int
    right_before: int
    right_after: int
