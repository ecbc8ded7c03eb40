"""What a model is trained for: how rows become a batch, what the batch weighs, and the loss.

Any function `(model, batch) -> loss` over rows of equal shapes is an objective by `per_row(function)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from squadron.train.batching.batches import Row

if TYPE_CHECKING:
    import torch


class Objective(Protocol):
    """A loss and what it needs. Pickled to every worker."""

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """The rows of one micro-batch as tensors."""

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        """How much the batch counts in its step: its number of rows, of pairs, or of tokens with a target."""

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The mean loss over what `weight` counts, and means of further metrics over the same."""


@dataclass(frozen=True)
class per_row:
    """The objective of a plain function `(model, batch) -> mean loss over the batch's rows`.

    A batch holds each column of the rows stacked, `[rows, ...]`.
    """

    function: Callable[..., torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]]

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        import torch

        return {name: torch.as_tensor(np.stack([np.asarray(row[name]) for row in rows])) for name in rows[0]}

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return float(len(next(iter(batch.values()))))

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return self.function(model, batch)
