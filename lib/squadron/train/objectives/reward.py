"""Objectives of classifiers and reward models.

Shape suffixes: B rows, P pairs, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from squadron.core.errors import InputError
from squadron.train.batching.batches import Row
from squadron.train.objectives.language import preference_loss
from squadron.train.objectives.layout import IGNORED, padded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OutcomeReward:
    """Bradley-Terry loss over pairs of answers, for `AutoModelForSequenceClassification` with one label.

    Rows hold `chosen_ids` and `rejected_ids`, each with its prompt. `center` penalises the squared mean of a pair's
    rewards (Eisenstein et al. 2023). Agrees with TRL's reward trainer.
    """

    pad_token_id: int
    center: float = 0.0

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        answers = [np.asarray(row[name]) for name in ("chosen_ids", "rejected_ids") for row in rows]
        ids, mask = padded(answers, self.pad_token_id)
        return {"input_ids": ids, "attention_mask": mask}

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return len(batch["input_ids"]) / 2

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chosen_P, rejected_P = model(**batch).logits.float().squeeze(-1).chunk(2)
        loss, accuracy = preference_loss(chosen_P, rejected_P)
        if self.center:
            loss = loss + self.center * ((chosen_P + rejected_P) ** 2).mean()
        return loss, {"accuracy": accuracy, "margin": (chosen_P - rejected_P).mean()}


@dataclass(frozen=True)
class ProcessReward:
    """Cross-entropy of a label at the end of each reasoning step, for `AutoModelForTokenClassification`.

    Rows hold `input_ids` and `labels` of equal lengths: a class at the last token of each step, -100 elsewhere.
    """

    pad_token_id: int

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        ids, mask = padded([np.asarray(row["input_ids"]) for row in rows], self.pad_token_id)
        labels, _ = padded([np.asarray(row["labels"]) for row in rows], IGNORED)
        _classes(labels[labels != IGNORED])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return float((batch["labels"] != IGNORED).sum())

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        labels_BT = batch["labels"]
        logits_BTC = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        judged = labels_BT != IGNORED
        return _cross_entropy(logits_BTC[judged], labels_BT[judged])


@dataclass(frozen=True)
class Classification:
    """Cross-entropy over classes, for `AutoModelForSequenceClassification`. Rows hold `input_ids` and `label`."""

    pad_token_id: int

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        ids, mask = padded([np.asarray(row["input_ids"]) for row in rows], self.pad_token_id)
        labels, _ = padded([np.asarray([row["label"]]) for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "labels": _classes(labels)[:, 0]}

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return float(len(batch["labels"]))

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits_BC = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return _cross_entropy(logits_BC, batch["labels"])


def _classes(labels: torch.Tensor) -> torch.Tensor:
    """Labels as they are. Raises InputError for one below 0, which the loss would take for none at all."""
    if len(labels) and int(labels.min()) < 0:
        raise InputError(f"{int(labels.min())} is no class", fix="number classes from 0")
    return labels


def _cross_entropy(logits_KC: torch.Tensor, labels_K: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    import torch

    loss = torch.nn.functional.cross_entropy(logits_KC.float(), labels_K, reduction="sum") / max(1, len(labels_K))
    right = (logits_KC.argmax(-1) == labels_K).float().sum() / max(1, len(labels_K))
    return loss, {"accuracy": right}
