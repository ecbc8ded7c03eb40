"""Liger's fused Triton kernels (Hsu et al. 2024), on GPUs where they are installed (the `gpu` extra).

They are used for what they replace exactly: norms, rotary embeddings, gated products, and the head's matrix product
with its cross-entropy, whose logits then never lie in memory whole.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def available() -> bool:
    import torch

    return torch.cuda.is_available() and importlib.util.find_spec("liger_kernel") is not None


def fuse(model: Any) -> None:
    """Give a model Liger's kernels in place of its own layers' forward passes. Its weights and their names stay."""
    if not available():
        return
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    losses = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    _apply_liger_kernel_to_instance(model=model, rope=True, rms_norm=True, swiglu=True, geglu=True, **losses)


def fused_cross_entropy(head: Any, hidden_KE: torch.Tensor, targets_K: torch.Tensor) -> torch.Tensor | None:
    """Sum of the negative log-likelihoods of K targets; None where Liger cannot compute it.

    It reads the head's weight itself, so the weight must be whole on this worker: not under ZeRO 3.
    """
    if not available() or not hidden_KE.is_cuda or hasattr(head.weight, "ds_id") or not head.weight.is_floating_point():
        return None
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss: torch.Tensor = LigerFusedLinearCrossEntropyLoss(reduction="sum")(head.weight, hidden_KE, targets_K, head.bias)
    return loss
