"""Contrastive learning of embeddings, with negatives from the whole batch of all workers.

Shape suffixes: Q queries of this worker, L documents of this worker, D documents of all workers, R documents that
answer a query, E the embedding's dimensions; B texts of T tokens.
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

Pooling = Literal["mean", "cls", "last"]
"""Which states of a text's tokens are its vector: the mean of all, the first token's, the last token's."""
_NONE, _UNKNOWN = -1, -2


@dataclass(frozen=True)
class Contrastive:
    """InfoNCE (van den Oord et al. 2018): each query must find its own document among all of the batch.

    Rows hold `query_ids`, `positive_ids` and, if mined, `negative_ids`, a list of as many documents in every row. With
    `document_keys`, numbers from 0 on that stand for the texts of positive and negatives, and `relevant_keys`, those of
    all documents that answer the query, no document that answers a query counts against it, whoever's it is in the
    batch. Without them the loss is that of sentence-transformers' MultipleNegativesRankingLoss.

    In training, documents are gathered across workers, with their gradients. Takes any encoder that answers
    `last_hidden_state`. With `texts_at_once`, so many texts are in memory at a time and each is computed again in the
    backward pass (as GradCache, Gao et al. 2021): the loss is the same, however large the batch.
    """

    pad_token_id: int
    temperature: float = 0.05
    pooling: Pooling = "mean"
    texts_at_once: int = 0

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Texts that occur several times in the batch stand in `document` once; `place` [L] says where each is."""
        import torch

        negatives = [list(row.get("negative_ids") or []) for row in rows]
        if len({len(mined) for mined in negatives}) > 1:
            raise InputError("rows hold different numbers of negative_ids", fix="give every row as many")
        documents = [row["positive_ids"] for row in rows] + [ids for mined in negatives for ids in mined]
        if not all(len(ids) for ids in (*documents, *(row["query_ids"] for row in rows))):
            raise InputError("a query or document has no token", fix="leave rows without text out")
        query, query_mask = padded([np.asarray(row["query_ids"]) for row in rows], self.pad_token_id)
        distinct: dict[tuple[int, ...], int] = {}
        place = [distinct.setdefault(tuple(np.asarray(ids).tolist()), len(distinct)) for ids in documents]
        document, document_mask = padded([np.asarray(ids) for ids in distinct], self.pad_token_id)
        batch = {"query": query, "query_mask": query_mask, "document": document, "document_mask": document_mask}
        return {**batch, "place": torch.as_tensor(place), **_keys(rows, len(documents))}

    def weight(self, batch: dict[str, torch.Tensor]) -> float:
        return float(len(batch["query"]))

    def __call__(
        self, model: torch.nn.Module, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        query_QE = self.embed(model, batch["query"], batch["query_mask"])
        document_DE = self.embed(model, batch["document"], batch["document_mask"])[batch["place"]]
        key_D, first = batch["document_keys"], 0
        if model.training:
            (document_DE, key_D), first = _gather(document_DE, key_D)
        own_Q = first + torch.arange(len(query_QE), device=query_QE.device)
        scores_QD = (query_QE @ document_DE.T / self.temperature).float()
        answers_QD = (batch["relevant_keys"][:, :, None] == key_D).any(1)
        answers_QD[torch.arange(len(own_Q)), own_Q] = False
        scores_QD = scores_QD.masked_fill(answers_QD, -torch.inf)
        loss = torch.nn.functional.cross_entropy(scores_QD, own_Q)
        return loss, {"accuracy": (scores_QD.argmax(-1) == own_Q).float().mean()}

    def embed(self, model: torch.nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        """Unit vectors [B, E]."""
        import torch
        from torch.utils.checkpoint import checkpoint

        if not self.texts_at_once or len(ids_BT) <= self.texts_at_once:
            return self._embed(model, ids_BT, mask_BT)
        length_B = mask_BT.sum(1)
        order_B = length_B.argsort()  # texts of like length share a pass, so that little of it is padding
        parts = []
        for some in order_B.split(self.texts_at_once):
            longest = int(length_B[some].max())
            part = (model, ids_BT[some, :longest], mask_BT[some, :longest])
            parts.append(checkpoint(self._embed, *part, use_reentrant=False))
        return torch.cat(parts)[order_B.argsort()]

    def _embed(self, model: torch.nn.Module, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        import torch

        hidden_BTE = model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        pooled_BE = pool(hidden_BTE, mask_BT, self.pooling)
        return torch.nn.functional.normalize(pooled_BE, dim=-1)


def pool(hidden_BTE: torch.Tensor, mask_BT: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """The vector [B, E] of each text, not scaled. Padding stands on the right."""
    import torch

    if pooling == "mean":
        weights_BT1 = mask_BT[..., None].to(hidden_BTE.dtype)
        return (hidden_BTE * weights_BT1).sum(1) / weights_BT1.sum(1)
    place_B = mask_BT.sum(1) - 1 if pooling == "last" else torch.zeros_like(mask_BT[:, 0])
    return hidden_BTE[torch.arange(len(hidden_BTE), device=hidden_BTE.device), place_B]


def _keys(rows: Sequence[Row], documents: int) -> dict[str, torch.Tensor]:
    """The keys of the documents [L], in their order, and of those that answer each query [Q, R]."""
    import torch

    if not all("document_keys" in row for row in rows):
        unknown_L = torch.full((documents,), _UNKNOWN)
        return {"document_keys": unknown_L, "relevant_keys": torch.full((len(rows), 1), _NONE)}
    each = np.stack([np.asarray(row["document_keys"], np.int64) for row in rows])
    relevant, mask = padded([np.asarray(row["relevant_keys"], np.int64) for row in rows])
    keys_L = np.concatenate([each[:, 0], each[:, 1:].ravel()])
    return {"document_keys": torch.as_tensor(keys_L), "relevant_keys": relevant.masked_fill(mask == 0, _NONE)}


def _gather(local_LE: torch.Tensor, key_L: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], int]:
    """The documents of all workers with their keys, and where this worker's begin. Gradients flow back to whoever
    embedded them."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return (local_LE, key_L), 0
    from torch.distributed.nn.functional import all_gather

    keys = [torch.empty_like(key_L) for _ in range(dist.get_world_size())]
    dist.all_gather(keys, key_L)
    return (torch.cat(all_gather(local_LE)), torch.cat(keys)), dist.get_rank() * len(local_LE)
