"""Contrastive learning of embeddings, with negatives from the whole batch of all workers.

Shape suffixes: Q queries of this worker, D documents of all workers, E the embedding's dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from squadron.core.errors import InputError
from squadron.train.batching.batches import Row
from squadron.train.objectives.layout import padded

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE (van den Oord et al. 2018): each query must find its own document among all of the batch.

    Rows hold `query_ids`, `positive_ids` and, if mined, `negative_ids`, a list of as many documents in every row.
    In training, documents are gathered across workers, with their gradients. Takes any encoder that answers
    `last_hidden_state`.
    """

    pad_token_id: int
    temperature: float = 0.05
    pooling: Literal["mean", "cls", "last"] = "mean"

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        negatives = [list(row.get("negative_ids") or []) for row in rows]
        if len({len(mined) for mined in negatives}) > 1:
            raise InputError("rows hold different numbers of negative_ids", fix="give every row as many")
        documents = [row["positive_ids"] for row in rows] + [ids for mined in negatives for ids in mined]
        if not all(len(ids) for ids in (*documents, *(row["query_ids"] for row in rows))):
            raise InputError("a query or document has no token", fix="leave rows without text out")
        query, query_mask = padded([np.asarray(row["query_ids"]) for row in rows], self.pad_token_id)
        document, document_mask = padded([np.asarray(ids) for ids in documents], self.pad_token_id)
        return {"query": query, "query_mask": query_mask, "document": document, "document_mask": document_mask}

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return float(len(batch["query"]))

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        query_QE = self.embed(model, batch["query"], batch["query_mask"])
        document_DE, first = self.embed(model, batch["document"], batch["document_mask"]), 0
        if model.training:
            document_DE, first = _gather(document_DE)
        scores_QD = query_QE @ document_DE.T / self.temperature
        own_Q = first + torch.arange(len(query_QE), device=query_QE.device)
        loss = torch.nn.functional.cross_entropy(scores_QD.float(), own_Q)
        return loss, {"accuracy": (scores_QD.argmax(-1) == own_Q).float().mean()}

    def embed(self, model: torch.nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Unit vectors [B, E]."""
        import torch

        hidden_BTE = model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        if self.pooling == "mean":
            weights_BT1 = mask_BT[..., None].to(hidden_BTE.dtype)
            pooled_BE = (hidden_BTE * weights_BT1).sum(1) / weights_BT1.sum(1)
        else:
            place_B = mask_BT.sum(1) - 1 if self.pooling == "last" else torch.zeros_like(mask_BT[:, 0])
            pooled_BE = hidden_BTE[torch.arange(len(hidden_BTE), device=hidden_BTE.device), place_B]
        return torch.nn.functional.normalize(pooled_BE, dim=-1)


def _gather(local_DE: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The documents of all workers, and where this worker's begin. Gradients flow back to whoever embedded them."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return local_DE, 0
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(local_DE)), dist.get_rank() * len(local_DE)
