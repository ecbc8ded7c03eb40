"""Encoder-decoder models: found at a hub name or in a folder, or small ones of random weights; trained and exported as
`AutoModelForSeq2SeqLM` loads them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squadron.core.errors import WorkerError
from squadron.core.run import Stage
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.builders import local_folder
from squadron.train.models.errors import explaining_load_errors
from squadron.train.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from squadron.train.checkpoints.checkpoint import Reader


@dataclass(frozen=True)
class Seq2Seq:
    """An encoder-decoder model, for `fit`. Raises InputError if there is none at its path."""

    path: str

    def __call__(self) -> Any:
        from transformers import AutoModelForSeq2SeqLM

        with explaining_load_errors(self.path):
            return AutoModelForSeq2SeqLM.from_pretrained(
                local_folder(self.path), use_safetensors=True, trust_remote_code=False
            )


def store_small_seq2seq(stage: Stage, place: str, tokenizer: str, width: int, layers: int, seed: int) -> ModelArtifact:
    """A T5 (Raffel et al. 2020) of random weights for the tokenizer at a path, in the stage's folder `place`: so many
    layers on either side, of this width. The same seed gives the same weights."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    words = load_tokenizer(tokenizer)
    end = words.eos_token_id if words.eos_token_id is not None else words.sep_token_id
    settings: dict[str, Any] = dict(
        vocab_size=len(words), d_model=width, d_kv=width // 4, num_heads=4, d_ff=2 * width, num_layers=layers,
        pad_token_id=words.pad_token_id, eos_token_id=end, decoder_start_token_id=words.pad_token_id,
    )  # fmt: skip
    config = T5Config(**settings)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
        model.save_pretrained(scratch)
        words.save_pretrained(scratch)
        for file in sorted(Path(scratch).iterdir()):
            stage.folder.put(f"{place}/{file.name}", str(file))
    return ModelArtifact.made(stage, place, parameters=model.num_parameters(), pad_token_id=words.pad_token_id)


def export_seq2seq(build: Seq2Seq, reader: Reader, folder: Path) -> None:
    """Write what was trained with its tokenizer, and prove it: loaded again, it has the weights that were trained.

    Raises WorkerError if it has others.
    """
    import torch

    from squadron.train.checkpoints.export import restored

    trained = restored(build, reader)
    trained.save_pretrained(folder)
    load_tokenizer(build.path).save_pretrained(folder)
    weights = trained.state_dict()
    if any(not torch.equal(weight, weights[name]) for name, weight in Seq2Seq(str(folder))().state_dict().items()):
        what = "the export has other weights than the trained model"
        raise WorkerError(what, where=str(folder), fix="report this as a fault of Squadron")
