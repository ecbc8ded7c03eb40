"""Attention for sequences laid end to end in one row, none of which sees another.

Registered with transformers as `packed`; `choose` gives it to the models that it is right for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from squadron.core.errors import InputError

if TYPE_CHECKING:
    import torch

NAME = "packed"


def register() -> None:
    """Make `packed` known to transformers. Calling it again does nothing new."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask_if_packed)


def choose(model: Any) -> None:
    """Let a causal language model compute attention over rows of several sequences, the best way that it can.

    That is flash-attn where it is installed and can run, `packed` for models that know SDPA, else transformers' eager
    attention under the masks of `separating`: for models with sinks, or a cap on attention logits, which SDPA
    cannot express. Raises InputError for a model with recurrent or convolution layers, which would carry one sequence
    into the next.
    """
    import importlib.util

    import torch

    if getattr(model, "_is_stateful", False) or "conv" in (getattr(model.config, "layer_types", None) or ()):
        what = (
            f"{type(model).__name__} has convolution or recurrent layers, which would carry one sequence into the next"
        )
        raise InputError(what, where=str(model.config.name_or_path), fix="take a model of attention layers alone")
    register()
    flash = importlib.util.find_spec("flash_attn") is not None and torch.cuda.is_available()
    if flash and model.dtype == torch.bfloat16 and model._supports_flash_attn:
        model.set_attn_implementation("flash_attention_2")
    elif model._supports_sdpa and not caps_attention(model.config):
        model.set_attn_implementation(NAME)
    else:
        model.set_attn_implementation("eager")


def caps_attention(config: Any) -> bool:
    """Whether attention logits have a cap (Gemma 2), which SDPA leaves out without a word."""
    return getattr(config, "attn_logit_softcapping", None) is not None


def keep_cap(model: Any) -> Any:
    """The same model, whose attention has the cap that it was trained with."""
    if caps_attention(model.config):
        model.set_attn_implementation("eager")
    return model


def separating(model: Any, position_ids: torch.Tensor) -> Any:
    """The masks that keep the sequences of a row apart, [1, N] positions that begin anew with each, for a model that
    computes eager attention; None for others. Not all models make them from the positions (GPT-OSS does not)."""
    from transformers.masking_utils import create_masks_for_generate

    if getattr(model.config, "_attn_implementation", None) != "eager":
        return None
    shaped = position_ids.new_empty((*position_ids.shape, 1), dtype=model.dtype)
    return create_masks_for_generate(model.config, shaped, None, None, position_ids=position_ids)


def packed_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a row; over rows with padding, what transformers' `sdpa` does.

    H query heads share G key heads. `cu_seq_lens_q` [S + 1] holds where each of S sequences begins, and the end of the
    last. No mask is built and nothing outside a sequence's own triangle is computed, except for sequences longer than
    `sliding_window`. Returns [B, T, H, D].
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        length = query_BHTD.shape[2]
        if attention_mask is None and length == key_BGTD.shape[2]:
            attention_mask = _window(length, sliding_window, query_BHTD.device)
        return sdpa_attention_forward(
            module, query_BHTD, key_BGTD, value_BGTD, attention_mask, scaling=scaling, dropout=dropout, **unused
        )

    lengths = cu_seq_lens_q.diff().tolist()
    grouped = query_BHTD.shape[1] != key_BGTD.shape[1]
    split = (tensor.split(lengths, 2) for tensor in (query_BHTD, key_BGTD, value_BGTD))
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=(mask := _window(q.shape[2], sliding_window, q.device)),
            is_causal=mask is None,
            dropout_p=dropout,
            scale=scaling,
            enable_gqa=grouped,
        )
        for q, k, v in zip(*split, strict=True)
    ]
    return torch.cat(parts, 2).transpose(1, 2).contiguous(), None


def _window(length: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Which keys each query sees, [T, T], where a window bounds it."""
    import torch

    if sliding_window is None or length <= sliding_window:
        return None
    places = torch.arange(length, device=device)
    distance = places[:, None] - places[None]
    return (distance >= 0) & (distance < sliding_window)


def _no_mask_if_packed(*args: Any, **settings: Any) -> torch.Tensor | None:
    """No mask where nothing is padded and nothing cached; else the one that `sdpa` takes."""
    from transformers.masking_utils import sdpa_mask

    if settings.get("attention_mask") is None and settings.get("q_length") == settings.get("kv_length"):
        return None
    mask: torch.Tensor | None = sdpa_mask(*args, **settings)
    return mask
