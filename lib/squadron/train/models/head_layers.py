"""An encoder with a head for texts and a head for words. B texts, T tokens, E dimensions, C classes, W tags."""

from __future__ import annotations

from typing import Any

import torch

from squadron.train.objectives.contrastive import Pooling, pool


class Headed(torch.nn.Module):
    """Linear heads over the states of an encoder: one over the vector of a text, one over each of its tokens."""

    def __init__(self, encoder: Any, pooling: Pooling, labels: int, tags: int) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder, self.pooling = encoder, pooling
        self.dropout = torch.nn.Dropout(float(getattr(encoder.config, "hidden_dropout_prob", None) or 0.0))
        self.label_head = _head(width, labels, encoder)
        self.tag_head = _head(width, tags, encoder)

    def forward(
        self, ids_BT: torch.Tensor, mask_BT: torch.Tensor, types_BT: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Logits of a text's classes [B, C] and of its tokens' tags [B, T, W], in float32; None for no head."""
        segments = {} if types_BT is None else {"token_type_ids": types_BT}
        hidden_BTE = self.encoder(input_ids=ids_BT, attention_mask=mask_BT, **segments).last_hidden_state
        label_BC = tag_BTW = None
        if self.label_head is not None:
            label_BC = self.label_head(self.dropout(pool(hidden_BTE, mask_BT, self.pooling))).float()
        if self.tag_head is not None:
            tag_BTW = self.tag_head(self.dropout(hidden_BTE)).float()
        return label_BC, tag_BTW


def _head(width: int, outputs: int, encoder: Any) -> torch.nn.Linear | None:
    """Drawn as transformers draws its heads."""
    if not outputs:
        return None
    head = torch.nn.Linear(width, outputs).to(encoder.dtype)
    torch.nn.init.normal_(head.weight, std=float(getattr(encoder.config, "initializer_range", 0.02)))
    torch.nn.init.zeros_(head.bias)
    return head
