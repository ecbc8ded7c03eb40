"""Sentence encoders with heads: a class for each text, a tag for each of its words, or both.

    encoder = find_headed(labels=("easy", "hard"), tags=("leave", "take"))           # the packaged MiniLM
    rows = store_examples(stage, "rows.arrow", [
        {"words": ["who", "wrote", "it"], "second": "…", "label": "easy", "tags": ["leave", "take", None]},
    ], encoder)
    tuned = tune_headed(stage, "mine", encoder, rows, TrainSpec(epochs=3))
    model = tuned.model.open(stage.run.folder)
    (found,) = model.predict([{"words": ["who", "made", "it"], "second": "…"}])
    found.labels["hard"], found.tags[2, 1]                                           # probabilities

The first token of a word decides its tag. `second`, a text or None, is a second segment behind the words. Where a row
is longer than the window, words go from the side that `find_headed(cut=…)` says, and are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.run import Stage
from squadron.data.rows import ArrowRows, write_rows
from squadron.train.models.artifact import ModelArtifact
from squadron.train.models.heads import HeadedEncoder, export_headed, find_headed, load_headed
from squadron.train.objectives.heads import HeadLoss
from squadron.train.objectives.layout import IDS, IGNORED
from squadron.train.spec import TrainSpec
from squadron.train.text.tokenizer import load_tokenizer
from squadron.train.text.words import WordReader
from squadron.train.tuning import open_rows

__all__ = [
    "HeadedEncoder", "HeadedModel", "HeadedPredictor", "Prediction", "TunedHeaded", "find_headed", "open_headed",
    "store_examples", "tune_headed",
]  # fmt: skip

_TYPES = {"input_ids": IDS, "second": "int64", "label": "int64", "places": IDS, "tags": IDS}
_AT_ONCE = 512


class Prediction(NamedTuple):
    """What a model says of one row: the probability of each label by its name, and of each tag of each word, as rows of
    an array (words, tags) in the order of the model's tags. Words that were cut off have NaN; `cut` counts them."""

    labels: dict[str, float]
    tags: np.ndarray
    cut: int


class HeadedPredictor:
    """A model with heads, opened. `labels` and `tags` are their names."""

    def __init__(self, path: str, device: str) -> None:
        self._model, settings = load_headed(path)
        self._model.to(device)
        self._device, self.labels, self.tags = device, settings.labels, settings.tags
        tokenizer = load_tokenizer(path)
        self._reader = WordReader(tokenizer, settings.max_length, settings.cut)
        self._collate = HeadLoss(_pad(tokenizer), _segments(tokenizer)).collate
        self._segments = _segments(tokenizer)

    def predict(self, rows: Sequence[Mapping[str, Any]], batch_size: int = 64) -> list[Prediction]:
        """What it says of each row of `words` and `second`, in their order. Rows of like length share a batch."""
        read = self._reader.read(rows)
        found: list[Prediction | None] = [None] * len(rows)
        order = sorted(range(len(rows)), key=lambda number: len(read[number].ids))
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            label_BC, tag_BTW = self._run([_row(*read[number]) for number in some])
            for place, number in enumerate(some):
                _, _, first, places = read[number]
                labels = {} if label_BC is None else dict(zip(self.labels, label_BC[place].tolist(), strict=True))
                tags = np.full((len(rows[number]["words"]), len(self.tags)), np.nan, np.float32)
                if tag_BTW is not None:
                    tags[first : first + len(places)] = tag_BTW[place, places]
                found[number] = Prediction(labels, tags, len(tags) - len(places))
        return [one for one in found if one is not None]

    def _run(self, rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray | None, np.ndarray | None]:
        import torch

        batch = {name: tensor.to(self._device) for name, tensor in self._collate(rows).items()}
        with torch.no_grad():
            types = batch["types"] if self._segments else None
            both = self._model(batch["input_ids"], batch["attention_mask"], types)
        label_BC, tag_BTW = (None if one is None else one.softmax(-1).cpu().numpy() for one in both)
        return label_BC, tag_BTW


class HeadedModel(ModelArtifact):
    """An encoder with heads that was trained."""

    def open(self, run: Folder, device: str | None = None) -> HeadedPredictor:
        """What predicts with it; as `open_headed`."""
        return open_headed(self.locate(run), device)


class TunedHeaded(Config):
    """A trained encoder with heads, and what each step came to."""

    model: HeadedModel
    metrics: tuple[dict[str, float | None], ...]


def open_headed(path: str, device: str | None = None) -> HeadedPredictor:
    """The model in a folder that `tune_headed` wrote, on a device: by default a GPU where there is one, else the CPU.

    Raises InputError if it is no such folder, or if its weights are of another architecture than it says.
    """
    import torch

    return HeadedPredictor(path, device or ("cuda" if torch.cuda.is_available() else "cpu"))


def store_examples(stage: Stage, name: str, rows: Iterable[Mapping[str, Any]], encoder: HeadedEncoder) -> ArrowRows:
    """Write rows of `words`, `second`, `label` and `tags` as token ids, to train or to measure on.

    `label` is one of the encoder's, `tags` one of its tags for each word; None has no part in the loss. Words beyond
    the window are cut, and counted.

    Raises InputError, with the number of the row, for a row with nothing to read, with another label, or with other
    tags than one a word; and if there is no row, or no target in any.
    """
    reader = WordReader(load_tokenizer(encoder.path), encoder.max_length, encoder.cut)
    cut = targets = count = 0

    def encoded() -> Iterator[dict[str, Any]]:
        nonlocal cut, targets, count
        stream = iter(rows)
        while some := list(islice(stream, _AT_ONCE)):
            for row, read in zip(some, reader.read(some), strict=True):
                label, tags = _targets(row, encoder, f"row {count}")
                kept = tags[read.first_word : read.first_word + len(read.places)]
                cut += len(read.places) < len(row["words"])
                targets += (label != IGNORED) + sum(tag != IGNORED for tag in kept)
                count += 1
                yield _row(*read, label=label, tags=kept)

    if not write_rows(stage.folder, name, encoded(), _TYPES) or not targets:
        raise InputError("there is nothing to learn", fix="give rows with labels, or with tags of their words")
    if cut:
        stage.headline(f"rows cut at the window of {encoder.max_length} tokens", f"{cut:,} of {count:,}")
    return open_rows(stage, name)


def tune_headed(
    stage: Stage,
    name: str,
    encoder: HeadedEncoder,
    rows: ArrowRows,
    config: TrainSpec,
    held_out: Sequence[Mapping[str, Any]] = (),
) -> TunedHeaded:
    """Train encoder and heads into the stage's folder of this name, and export them; resumes where it was.

    `held_out` are rows of `store_examples`. Raises ConfigError, ResourceError or WorkerError as `train_several` does.
    """
    from squadron.train.multi_run import TrainJob, train_several

    tokenizer = load_tokenizer(encoder.path)
    both = bool(encoder.labels and encoder.tags)
    objective = HeadLoss(
        _pad(tokenizer), _segments(tokenizer), encoder.label_weights, encoder.tag_weights, both=both
    )  # fmt: skip
    job = TrainJob(
        name, encoder, objective, rows, config, held_out=held_out, length=lambda row: len(row["input_ids"]),
        identity=repr(encoder), export=partial(_export, encoder),
    )  # fmt: skip
    (result,) = train_several(stage, [job])
    model = HeadedModel.made(
        stage, f"{name}/model", name=name, context=encoder.max_length, pad_token_id=_pad(tokenizer)
    )  # fmt: skip
    return TunedHeaded(model=model, metrics=tuple(dict(row) for row in result.metrics))


def _export(encoder: HeadedEncoder, reader: Any, folder: Any) -> None:
    export_headed(encoder, reader, folder)


def _targets(row: Mapping[str, Any], encoder: HeadedEncoder, where: str) -> tuple[int, list[int]]:
    """The number of a row's label, and of each word's tag."""
    words, tags = row["words"], row.get("tags") or [None] * len(row["words"])
    if not words and not row.get("second"):
        raise InputError("nothing to read", where=where, fix="leave the row out")
    if len(tags) != len(words):
        raise InputError(f"{len(tags)} tags for {len(words)} words", where=where, fix="give each word a tag, or None")
    return _number(row.get("label"), encoder.labels, where), [_number(tag, encoder.tags, where) for tag in tags]


def _number(name: str | None, known: tuple[str, ...], where: str) -> int:
    if name is None:
        return IGNORED
    if name not in known:
        raise InputError(f"{name!r} is none of {', '.join(known) or 'no names'}", where=where, fix="name one of these")
    return known.index(name)


def _row(
    ids: list[int], second: int, first_word: int, places: list[int], label: int = IGNORED, tags: Sequence[int] = ()
) -> dict[str, Any]:
    """A row of `_TYPES`, of those words that have a target."""
    del first_word
    known = [(place, tag) for place, tag in zip(places, tags, strict=False) if tag != IGNORED]
    return {
        "input_ids": ids, "second": second, "label": label,
        "places": [place for place, _ in known], "tags": [tag for _, tag in known],
    }  # fmt: skip


def _pad(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def _segments(tokenizer: Any) -> bool:
    """Whether a model of this tokenizer is told which of two texts a token is of."""
    return "token_type_ids" in tokenizer("a", "a")
