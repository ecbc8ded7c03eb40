"""The objective of encoders with heads. B texts, T tokens, C classes, W tags, K words."""

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
class HeadLoss:
    """Cross-entropy of a text's class, of its words' tags, or of both, for `Headed` models.

    Rows hold `input_ids`, `second`, where their second segment begins, `label` (-100: none) and, of each word with a
    target, its place in `places` and its tag in `tags`. `segments`: whether the encoder is told its segments apart.

    With one head it is the loss of transformers' classifiers: the mean over texts, or over words, each by the weight of
    its class where weights are given. With both, the loss of a text is that of its class and the mean over its words.
    """

    pad_token_id: int
    segments: bool = True
    label_weights: tuple[float, ...] = ()
    tag_weights: tuple[float, ...] = ()
    both: bool = False

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        import torch

        ids, mask = padded([np.asarray(row["input_ids"]) for row in rows], self.pad_token_id)
        tags = torch.full_like(ids, IGNORED)
        for number, row in enumerate(rows):
            tags[number, torch.as_tensor(np.array(row["places"], np.int64))] = torch.as_tensor(
                np.array(row["tags"], np.int64)
            )
        second = torch.as_tensor([[int(row["second"])] for row in rows])
        types = (torch.arange(ids.shape[1]) >= second).long() * mask if self.segments else torch.zeros_like(ids)
        labels = torch.as_tensor([int(row["label"]) for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "types": types, "labels": labels, "tags": tags}

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        if self.both:
            return float(len(batch["labels"]))
        texts = _weights(batch["labels"], self.label_weights).sum()
        return float(texts + _weights(batch["tags"], self.tag_weights).sum())

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        types = batch["types"] if self.segments else None
        label_BC, tag_BTW = model(batch["input_ids"], batch["attention_mask"], types)
        heads = [
            (logits, targets, weights)
            for logits, targets, weights in (
                (label_BC, batch["labels"], self.label_weights), (tag_BTW, batch["tags"], self.tag_weights),
            )
            if logits is not None
        ]  # fmt: skip
        losses = [_weighted(*head) for head in heads]
        if self.both:
            (label_B, _), (tag_BT, weight_BT) = losses
            loss = (label_B + tag_BT.sum(1) / weight_BT.sum(1).clamp(min=1e-9)).mean()
        else:
            ((loss_each, weight_each),) = losses
            loss = loss_each.sum() / weight_each.sum().clamp(min=1e-9)
        right = torch.stack([_accuracy(logits, targets) for logits, targets, _ in heads])
        return loss, {"accuracy": right.mean()}


def _weighted(
    logits: torch.Tensor, targets: torch.Tensor, weights: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each target, times its weight, and the weights; both in the shape of the targets."""
    import torch

    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    weight = _weights(targets, weights)
    return each.view_as(targets) * weight, weight


def _weights(targets: torch.Tensor, weights: tuple[float, ...]) -> torch.Tensor:
    """The weight of each target's class: 0 where there is no target, 1 where there are no weights."""
    import torch

    known = targets != IGNORED
    if not weights:
        return known.float()
    return torch.tensor(weights, device=targets.device)[targets.clamp(min=0)] * known


def _accuracy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    known = targets != IGNORED
    return ((logits.argmax(-1) == targets) & known).sum() / known.sum().clamp(min=1)
