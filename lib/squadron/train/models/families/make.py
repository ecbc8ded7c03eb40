"""Small stand-ins for published models, on disk as transformers loads them from the hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from squadron.core.errors import ConfigError, suggest
from squadron.train.models.builders import auto_class
from squadron.train.models.families.family import Family
from squadron.train.models.families.table import FAMILIES
from squadron.train.models.families.tokenizers import train_family_tokenizer

Kind = Literal["causal", "sequence", "token", "encoder"]
_TEXTS = (
    "The sum of 12 and 7 is 19, and half of it is 9.5.",
    "A robot carries a box to the shelf; another waits until the aisle is free.",
    "What is the capital of France? It is Paris, a city of two million people.",
    "def area(width, height):\n    return width * height\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 你好，世界。",
)


def make_family_model(
    folder: str | Path,
    family: str | Family,
    *,
    base: bool = False,
    kind: Kind = "causal",
    labels: int = 1,
    vocabulary: int = 1200,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    context: int = 1024,
    tied: bool | None = None,
    texts: Sequence[str] = (),
    seed: int = 0,
) -> str:
    """Write a model of the family with random weights and a tokenizer trained on `texts`; returns the folder.

    `base`: with the base model's end of text, and a chat template only if those have one. `kind`: a language model, a
    classifier or reward model over sequences or tokens with `labels` outputs, or the bare model. `tied`: whether the
    outputs are the embeddings; None as in most of the family. The tokenizer has about `vocabulary` tokens, the
    embedding some rows more, as published ones have. Raises ConfigError if there is no such family.
    """
    import torch
    from transformers import GenerationConfig

    family = family if isinstance(family, Family) else named_family(family)
    tokenizer = _wrap(family, base, vocabulary, texts, context)
    _store(tokenizer, family, Path(folder))
    ids = _special_ids(family, tokenizer, base)
    config = _config(family, tokenizer, ids, hidden_size, layers, heads, kv_heads, context)
    config.tie_word_embeddings = family.tied if tied is None else tied
    outputs = {"sequence": "sequence", "token": "token", "encoder": "none"}.get(kind, "causal")
    if outputs in ("sequence", "token"):
        config.num_labels = labels
    torch.manual_seed(seed)
    model = auto_class(outputs).from_config(config)  # type: ignore[arg-type]
    if outputs == "causal" and family.chats:
        model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    return str(folder)


def named_family(name: str) -> Family:
    """The family of this name. Raises ConfigError if there is none, with the nearest name."""
    if name not in FAMILIES:
        raise ConfigError(f"there is no family of models {name!r}", where="family", fix=suggest(name, FAMILIES))
    return FAMILIES[name]


def template_text(family: str | Family) -> str:
    """The chat template of a family, as its models ship it. Raises ConfigError if it has none."""
    from importlib.resources import files

    family = family if isinstance(family, Family) else named_family(family)
    if family.template is None:
        raise ConfigError(f"models of the family {family.name} hold no conversations", where="family")
    return files("trl").joinpath("chat_templates", f"{family.template}.jinja").read_text(encoding="utf-8")


def read_template(named: str) -> str:
    """A chat template by the name of a family, or from a file. Raises ConfigError if it is neither."""
    if named in FAMILIES:
        return template_text(named)
    try:
        return Path(named).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        fix = f"give a .jinja file, or a family of models; {suggest(named, FAMILIES)}"
        raise ConfigError("neither a family of models nor a file of text", where=named, fix=fix) from None


def _wrap(family: Family, base: bool, vocabulary: int, texts: Sequence[str], context: int) -> Any:
    """A tokenizer of transformers, with special tokens and template."""
    from transformers import PreTrainedTokenizerFast

    template = template_text(family) if family.chats else ""
    learnt = [*_TEXTS, *texts, *template.split("'"), *(["user assistant system model"] * 20)]
    made = train_family_tokenizer(family, learnt, vocabulary)
    names = {
        "bos_token": family.bos,
        "eos_token": (base and family.base_eos) or family.eos,
        "pad_token": family.pad,
        "unk_token": family.unk,
        "cls_token": family.cls,
        "sep_token": family.sep,
        "mask_token": family.mask,
    }
    named: dict[str, Any] = {key: token for key, token in names.items() if token is not None}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=context, clean_up_tokenization_spaces=False, **named
    )
    if template and (family.base_chats or not base):
        tokenizer.chat_template = template
    return tokenizer


def _store(tokenizer: Any, family: Family, folder: Path) -> None:
    """Save a tokenizer under the class that the family's configuration names."""
    tokenizer.save_pretrained(folder)
    place = folder / "tokenizer_config.json"
    settings = json.loads(place.read_text())
    place.write_text(json.dumps({**settings, "tokenizer_class": family.tokenizer_class}, indent=2))


def _special_ids(family: Family, tokenizer: Any, base: bool) -> dict[str, Any]:
    """Ids of the special tokens in a model's configuration; several ends of text where the chat models have several."""
    stops = () if base else family.stops
    ends = [tokenizer.convert_tokens_to_ids(stop) for stop in stops] or [tokenizer.eos_token_id]
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": tokenizer.pad_token_id,
    }


def _config(
    family: Family,
    tokenizer: Any,
    ids: dict[str, Any],
    hidden_size: int,
    layers: int,
    heads: int,
    kv_heads: int,
    context: int,
) -> Any:
    """transformers' configuration of a small model of the family."""
    from transformers import AutoConfig

    settings: dict[str, Any] = {
        "vocab_size": (len(tokenizer) // 64 + 1) * 64,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": context,
        **ids,
    }
    if not family.encodes:
        # Latent attention (DeepSeek) has a key for every query head.
        latent = "kv_lora_rank" in family.fields
        settings |= {"num_key_value_heads": heads if latent else kv_heads, "head_dim": hidden_size // heads}
    if family.layer_kinds is not None:
        most, last = family.layer_kinds
        settings["layer_types"] = [most] * (layers - 1) + [last]
    if family.model_type.startswith("gemma"):
        settings["query_pre_attn_scalar"] = hidden_size // heads
    if family.model_type.startswith("xlm-roberta"):  # which counts positions from 2
        settings["max_position_embeddings"] = context + 2
    settings |= family.fields
    if family.stretched:
        first = {"original_max_position_embeddings": context // family.stretched}
        settings["rope_parameters"] = settings["rope_parameters"] | first
    return AutoConfig.for_model(family.model_type, **settings)
