"""Published architectures, from their config.json, so that a plan needs neither a download nor a network.

Qwen2.5: Qwen Team 2024, arXiv:2412.15115, https://huggingface.co/Qwen. Babel: Zhao et al. 2025, arXiv:2503.00865, which
inserts six layers into Qwen2.5-7B and twelve into Qwen2.5-72B and changes nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_QWEN = {
    "model_type": "qwen2",
    "vocab_size": 152064,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "initializer_range": 0.02,
}
_QWEN_7B = _QWEN | {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
}
_QWEN_72B = _QWEN | {
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-7B": _QWEN_7B,
    "Qwen/Qwen2.5-72B": _QWEN_72B,
    "Tower-Babel/Babel-9B": _QWEN_7B | {"num_hidden_layers": 34},
    "Tower-Babel/Babel-83B": _QWEN_72B | {"num_hidden_layers": 92},
}
"""Fields of config.json by the name on the Hugging Face hub."""


def find_architecture(name: str) -> PretrainedConfig | None:
    """The configuration of `name`, with or without the owner (`Babel-9B`), in any case; None if it is not known here.

    The query, key and value projections have biases: transformers' Qwen2 always gives them some.
    """
    from transformers import AutoConfig

    for full, fields in ARCHITECTURES.items():
        if name.lower() in (full.lower(), full.partition("/")[2].lower()):
            return AutoConfig.for_model(**fields)
    return None
