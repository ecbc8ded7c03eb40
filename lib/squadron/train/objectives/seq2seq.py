"""The objective of encoder-decoder models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from squadron.train.batching.batches import Row
from squadron.train.objectives.layout import IGNORED, padded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SequenceToSequence:
    """Cross-entropy of each token of what is to be written, its end included, for `AutoModelForSeq2SeqLM`.

    Rows hold `input_ids`, what is read, and `labels`, what is to be written. The mean is over tokens to write.
    """

    pad_token_id: int

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        ids, mask = padded([np.asarray(row["input_ids"]) for row in rows], self.pad_token_id)
        labels, _ = padded([np.asarray(row["labels"]) for row in rows], IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return float((batch["labels"] != IGNORED).sum())

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        found = model(**batch)
        known = batch["labels"] != IGNORED
        right = ((found.logits.argmax(-1) == batch["labels"]) & known).sum() / known.sum().clamp(min=1)
        return found.loss, {"accuracy": right}
