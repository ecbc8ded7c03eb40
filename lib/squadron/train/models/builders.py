"""Builders of transformers models, for `fit`: small values that travel to workers and make the model there."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from squadron.core.folder import Folder
from squadron.core.inputs import InputPath
from squadron.core.private_folder import private_folder
from squadron.train.models.errors import explaining_load_errors
from squadron.train.spec import LoraSettings

if TYPE_CHECKING:
    import torch

Head = Literal["causal", "sequence", "token", "none"]
Architecture = Literal["llama", "gpt_neox", "qwen3"]
_CLASSES = {
    "causal": "AutoModelForCausalLM",
    "sequence": "AutoModelForSequenceClassification",
    "token": "AutoModelForTokenClassification",
    "none": "AutoModel",
}
_TASKS = {"causal": "CAUSAL_LM", "sequence": "SEQ_CLS", "token": "TOKEN_CLS", "none": "FEATURE_EXTRACTION"}


@dataclass(frozen=True)
class Pretrained:
    """A model of the hub or of a local folder, with adapters if asked for. Loads safetensors only, and runs no code
    that comes with a model.

    `head`: a language model, a classifier or reward model over sequences (with `labels` outputs, which may have names)
    or tokens, or the bare encoder. `rows`: how many its embedding and head get, new ones drawn about the mean of the
    old (Hewitt 2021), the same each time. Raises InputError if there is no such model.
    """

    path: str
    head: Head = "causal"
    labels: int = 1
    label_names: tuple[str, ...] = ()
    precision: Literal["fp32", "bf16"] = "fp32"
    lora: LoraSettings | None = None
    pad_token_id: int | None = None
    fused: bool = True
    rows: int | None = None

    def __call__(self) -> Any:
        return self.adapted(self.base())

    def base(self) -> Any:
        """The model without adapters, in 4 bits if `lora` asks for it."""
        import torch

        settings: dict[str, Any] = {"dtype": torch.bfloat16 if self.precision == "bf16" else torch.float32}
        settings |= self._outputs()
        if self.lora is not None and self.lora.quantize == "nf4":
            settings |= four_bits(settings["dtype"])
            _shard_later()
        with explaining_load_errors(self.path):
            model = auto_class(self.head).from_pretrained(
                local_folder(self.path), use_safetensors=True, trust_remote_code=False, **settings
            )
        self._resize(model)
        if self.head == "causal":
            from squadron.train.models import attention, kernels

            attention.choose(model)
            if self.fused:
                kernels.fuse(model)
        if self.pad_token_id is not None:
            model.config.pad_token_id = self.pad_token_id
        return model

    def adapted(self, model: Any) -> Any:
        """The model with its weights frozen and adapters added, if `lora` asks for them."""
        if self.lora is None:
            return model
        from peft import get_peft_model

        adapted: Any = get_peft_model(model, lora_config(self.lora, self.head))
        # Needed where activations are recomputed: a frozen embedding's output would cut the gradient off.
        adapted.enable_input_require_grads()
        return adapted

    def on_meta(self) -> Any:
        """The model's shapes without weights, on the meta device; never quantised."""
        import torch
        import transformers

        config = transformers.AutoConfig.from_pretrained(
            local_folder(self.path), trust_remote_code=False, **self._outputs()
        )
        if self.pad_token_id is not None:
            config.pad_token_id = self.pad_token_id
        with torch.device("meta"):
            model = auto_class(self.head).from_config(config)
            self._resize(model)
            return self.adapted(model)

    def _resize(self, model: Any) -> None:
        if self.rows is None:
            return
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model.resize_token_embeddings(self.rows, mean_resizing=model.device.type != "meta")

    def _outputs(self) -> dict[str, Any]:
        """How many outputs a head has, and what they are called, in transformers' settings."""
        if self.head not in ("sequence", "token"):
            return {}
        if not self.label_names:
            return {"num_labels": self.labels}
        named = dict(enumerate(self.label_names))
        return {"id2label": named, "label2id": {name: number for number, name in named.items()}}


@dataclass(frozen=True)
class PolicyWithReference:
    """A model to train beside a frozen one, for preference optimisation of all weights."""

    policy: Pretrained
    reference: Pretrained

    def __call__(self) -> torch.nn.Module:
        from squadron.train.objectives.language import with_reference

        return with_reference(self.policy(), self.reference())


@dataclass(frozen=True)
class FromConfig:
    """A small causal model with random weights, for training from scratch. The seed is the caller's.

    `kv_heads`: None for as many as `heads`; GPT-NeoX has no fewer, and its own positions.
    """

    vocabulary: int
    hidden_size: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int | None = 2
    intermediate_size: int = 768
    context: int = 512
    tie_embeddings: bool = True
    special_tokens: dict[str, int | None] = field(default_factory=dict)
    architecture: Architecture = "llama"
    initializer_range: float = 0.02
    rope_theta: float = 10_000.0

    def config(self) -> Any:
        """transformers' configuration of it."""
        from transformers import AutoConfig

        settings: dict[str, Any] = {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": self.context,
            "initializer_range": self.initializer_range,
            "tie_word_embeddings": self.tie_embeddings,
            **self.special_tokens,
        }
        if self.architecture != "gpt_neox":
            settings["num_key_value_heads"] = self.kv_heads or self.heads
            settings["rope_parameters"] = {"rope_type": "default", "rope_theta": self.rope_theta}
        if self.architecture == "qwen3":
            settings["head_dim"] = self.hidden_size // self.heads
        return AutoConfig.for_model(self.architecture, **settings)

    def __call__(self) -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_config(self.config())


def local_folder(path: str) -> str:
    """A hub name or a folder as it is; of a folder behind another URL, a copy of what is there now on this node."""
    named = InputPath(path)
    if named.is_local or "://" not in path:
        return named.local
    folder = Folder(path)
    content = json.dumps(named.identity()).encode()
    place = os.path.join(private_folder("models"), hashlib.sha256(content).hexdigest()[:32])
    names = folder.walk()
    if "modules.json" not in names:  # else a sentence encoder, whose modules have folders of their own
        names = [name for name in names if "/" not in name]
    os.makedirs(place, exist_ok=True)
    for name in names:
        path = os.path.join(place, name)
        if not os.path.exists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place) as scratch:
                os.replace(folder.fetch(name, scratch), path)
    return place


def auto_class(head: Head) -> Any:
    """transformers' loader of models with this head."""
    import transformers

    return getattr(transformers, _CLASSES[head])


def lora_config(settings: LoraSettings, head: Head) -> Any:
    """peft's configuration of these adapters. A new head is trained whole, beside them."""
    from peft import LoraConfig

    targets = settings.target_modules
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type=_TASKS[head],
    )


def four_bits(dtype: torch.dtype) -> dict[str, Any]:
    """`from_pretrained` settings for nf4 with double quantisation (Dettmers et al. 2023)."""
    import torch
    from transformers import BitsAndBytesConfig

    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": quantisation, "device_map": {"": device}}


def _shard_later() -> None:
    """Let transformers load a model whole under ZeRO 3 too: it cannot shard 4-bit weights as they are read."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
