"""Sentence encoders: trained as they will be used, and written as folders that sentence-transformers loads.

What makes a vector of a text, its pooling and its window, is read from the model's own folder, so that training and
use cannot differ. (FlagEmbedding pools the first token unless told; a model that is used by the mean then learns
another vector than the one it is searched with.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from squadron.core.errors import ConfigError, InputError, SquadronError, WorkerError
from squadron.train.models.builders import Pretrained, local_folder
from squadron.train.models.errors import explaining_load_errors
from squadron.train.spec import LoraSettings

if TYPE_CHECKING:
    from squadron.train.checkpoints.checkpoint import Reader
    from squadron.train.objectives.contrastive import Pooling

_POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_CLOSE = {"fp32": 1e-5, "bf16": 2e-2}
_SENTENCES = (
    "What will the weather be like tomorrow?",
    "Cheap flights from Lisbon to Oslo, with one bag and a seat at the window.",
    "forecast: daily weather for any city, by its name; parameters: city (required), days",
    "one word after the other " * 2000,
)
"""What an export is compared on: short texts, and one beyond any window."""


@dataclass(frozen=True)
class SentenceEncoder:
    """A transformer and how its states become a vector, for `fit`: it builds the bare transformer on a worker.

    `max_length` is its window in tokens, the longest text that is read whole. The layer over the first token that BERT
    brings along for another task is frozen: no vector depends on it.
    """

    path: str
    pooling: Pooling
    max_length: int
    precision: Literal["fp32", "bf16"] = "fp32"
    lora: LoraSettings | None = None

    def __call__(self) -> Any:
        model = Pretrained(self.path, head="none", precision=self.precision, lora=self.lora)()
        for name, weight in model.named_parameters():
            if "pooler" in name.split("."):
                weight.requires_grad_(False)
        return model


def find_encoder(
    path: str,
    pooling: Pooling | None = None,
    max_length: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    lora: LoraSettings | None = None,
) -> SentenceEncoder:
    """The encoder at a hub name or in a folder, with its own pooling and window unless others are given.

    Raises InputError if there is none, or if it is made of more than a transformer, a pooling and a scaling to length
    one; ConfigError where `max_length` is more than it reads.
    """
    model = open_sentence_model(path)
    kinds = [type(module).__name__ for module in model]
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Normalize"}:
        fix = "give a model of a transformer and a pooling, such as MiniLM, E5 or BGE"
        raise InputError(f"an encoder of {', '.join(kinds)} cannot be trained", where=path, fix=fix)
    if getattr(model[0].auto_model.config, "is_encoder_decoder", False):
        raise InputError("an encoder that comes with a decoder cannot be trained", where=path, fix="give one without")
    own = model[1].pooling_mode
    if pooling is None and own not in _POOLINGS:
        fix = f"set pooling to {', '.join(_POOLINGS.values())}"
        raise InputError(f"its pooling, {own}, cannot be trained", where=path, fix=fix)
    window = int(model.max_seq_length or 512)
    limit = max(window, int(getattr(model[0].auto_model.config, "max_position_embeddings", 0)))
    if (max_length or window) > limit:
        what = f"the encoder reads {limit} tokens at most, not {max_length}"
        raise ConfigError(what, where="training.max_length", fix=f"set it to {limit}, or leave it out")
    return SentenceEncoder(path, pooling or _POOLINGS[own], max_length or window, precision, lora)


def open_sentence_model(
    path: str, revision: str | None = None, device: str = "cpu", kind: type[SquadronError] = InputError
) -> Any:
    """The model at a hub name or in a folder as sentence-transformers has it. Raises an error of this kind if there is
    none."""
    from sentence_transformers import SentenceTransformer

    from squadron.train.library_setup import quiet_libraries

    quiet_libraries()
    with explaining_load_errors(path, kind=kind):
        return SentenceTransformer(
            local_folder(path),
            revision=revision,
            device=device,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )


def export_encoder(encoder: SentenceEncoder, reader: Reader, folder: Path) -> float:
    """Write the trained encoder as a folder that sentence-transformers loads, and prove it: the largest difference of
    any number of its vectors from those that were trained.

    Vectors are scaled to length one, as in training, and no prompt is put before a text by default. Adapters are
    merged. Raises WorkerError if the folder gives other vectors.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    from squadron.train.checkpoints.export import restored

    trained = restored(encoder, reader)
    plain = trained.merge_and_unload() if encoder.lora is not None else trained
    start = open_sentence_model(encoder.path)
    transformer = start[0]
    transformer.auto_model.load_state_dict(plain.state_dict())
    (mode,) = (name for name, pooling in _POOLINGS.items() if pooling == encoder.pooling)
    pooling = Pooling(transformer.auto_model.config.hidden_size, pooling_mode=mode)
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu", prompts=start.prompts)
    model.max_seq_length = encoder.max_length
    model.save(str(folder), create_model_card=False)
    return _verify(encoder, plain, folder)


def _verify(encoder: SentenceEncoder, trained: Any, folder: Path) -> float:
    import torch

    from squadron.train.objectives.contrastive import Contrastive
    from squadron.train.objectives.layout import padded

    loaded = open_sentence_model(str(folder))
    ids = encode_texts(loaded, _SENTENCES, encoder.max_length)
    with torch.no_grad():
        expected = Contrastive(0, pooling=encoder.pooling).embed(trained.eval(), *padded(ids))
    actual = torch.as_tensor(loaded.encode(list(_SENTENCES), show_progress_bar=False))
    difference = float((actual.float() - expected.float()).abs().max())
    if not difference <= _CLOSE[encoder.precision]:
        what = f"the export gives other vectors than the trained model: by {difference:.3g}"
        raise WorkerError(what, where=str(folder), fix="report this as a fault of Squadron")
    return difference


def encode_texts(model: Any, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids as a model of sentence-transformers makes them when it embeds: cut at this window, with its own marks
    about them, and through its chat template where it reads texts as messages, as causal embedders do."""
    if not texts:
        return []
    made = model.preprocess(list(texts), max_length=max_length)
    return [row[kept].tolist() for row, kept in zip(made["input_ids"], made["attention_mask"].bool(), strict=True)]
