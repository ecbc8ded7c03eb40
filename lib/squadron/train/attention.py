"""Attention for sequences laid end to end in one row, none of which sees another.

Registered with transformers as `packed`: any of its decoder models takes it by `attn_implementation="packed"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

NAME = "packed"


def register() -> None:
    """Make `packed` known to transformers. Calling it again does nothing new."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask_if_packed)


def packed_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a row; over rows with padding, what transformers' `sdpa` does.

    H query heads share G key heads. `cu_seq_lens_q` [S + 1] holds where each of S sequences begins, and the end of the
    last. No mask is built and nothing outside a sequence's own triangle is computed. Returns [B, T, H, D].
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        return sdpa_attention_forward(
            module, query_BHTD, key_BGTD, value_BGTD, attention_mask, scaling=scaling, dropout=dropout, **unused
        )
    lengths = cu_seq_lens_q.diff().tolist()
    grouped = query_BHTD.shape[1] != key_BGTD.shape[1]
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=grouped
        )
        for q, k, v in zip(
            query_BHTD.split(lengths, 2), key_BGTD.split(lengths, 2), value_BGTD.split(lengths, 2), strict=True
        )
    ]
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


def _no_mask_if_packed(*args: Any, **settings: Any) -> torch.Tensor | None:
    """No mask where nothing is padded and nothing cached; else the one that `sdpa` takes."""
    from transformers.masking_utils import sdpa_mask

    if settings.get("attention_mask") is None and settings.get("q_length") == settings.get("kv_length"):
        return None
    mask: torch.Tensor | None = sdpa_mask(*args, **settings)
    return mask
