"""What a trained reward model or classifier makes of rows, which it reads as it did in training: by the same encoder.

B rows, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from squadron.llm.rewards.local import by_length, load_head, refuse_untrained, tokens_read
from squadron.llm.rewards.settings import LocalReward
from squadron.methods.finetune.config import DataConfig, ObjectiveName
from squadron.methods.finetune.encoding import encoder
from squadron.methods.finetune.training import HEADS
from squadron.serve.scoring import Kind, RowScore, ScoredRow
from squadron.train.objectives.layout import IGNORED, padded

if TYPE_CHECKING:
    import torch

KINDS: dict[ObjectiveName, Kind] = {"reward": "response", "process_reward": "steps", "classification": "text"}
"""What models of these objectives score."""


class TrainedScorer:
    """The model in the folder `path`, trained by `objective` on data of these settings and classes.

    Raises ModelUnavailable if it cannot be loaded.
    """

    def __init__(
        self, path: str, objective: ObjectiveName, data: DataConfig, classes: tuple[Any, ...], batch_size: int = 16
    ) -> None:
        settings = LocalReward(path=path, batch_size=batch_size)
        self._model, tokenizer, missing = load_head(HEADS[objective], settings)
        refuse_untrained(settings, missing, "export the model again")
        self._encode = encoder(objective, data, tokenizer, classes)
        self._objective, self._classes = objective, classes
        self._longest, self._batch_size = tokens_read(settings, self._model, tokenizer), batch_size
        self.takes = KINDS[objective]

    def score(self, rows: Sequence[ScoredRow]) -> Iterator[RowScore]:
        """Every row's score once, in the order of their lengths."""
        numbered = list(enumerate(rows))
        scored = by_length(numbered, lambda row: self._read(row[1]), self._values, self._longest, self._batch_size)
        for (number, _), value, error in scored:
            if value is None:
                yield RowScore(index=number, score=None, error=error)
            else:
                yield self._told(number, value)

    def _read(self, row: ScoredRow) -> dict[str, Any]:
        """The row's tokens: those of a record that training would read."""
        match self._objective:
            case "process_reward":
                steps = row.steps or ()
                example: dict[str, Any] = {"prompt": row.instruction, "steps": steps, "labels": [0] * len(steps)}
            case "classification":
                example = {"text": row.text, "label": self._classes[0]}
            case _:
                example = {"prompt": row.instruction, "chosen": row.response, "rejected": row.response}
        (encoded,) = self._encode(example)
        return {"input_ids": encoded["chosen_ids"]} if self._objective == "reward" else encoded

    def _values(self, batch: Sequence[dict[str, Any]]) -> list[list[float]]:
        """Of a response its reward, of steps the probability that each is right, of a text those of its classes."""
        import torch

        pad = self._model.config.pad_token_id or 0
        ids_BT, mask_BT = padded([np.asarray(row["input_ids"]) for row in batch], pad)
        device = self._model.device
        with torch.inference_mode():
            logits: torch.Tensor = self._model(
                input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device)
            ).logits.float()
        if self._objective == "process_reward":
            right_BT = logits.softmax(-1)[..., 1].cpu()
            places = [[place for place, label in enumerate(row["labels"]) if label != IGNORED] for row in batch]
            return [right_T[there].tolist() for right_T, there in zip(right_BT, places, strict=True)]
        values: list[list[float]] = (logits.softmax(-1) if self._objective == "classification" else logits).tolist()
        return values

    def _told(self, number: int, value: list[float]) -> RowScore:
        if not np.isfinite(value).all():
            return RowScore(index=number, score=None, error="the score is no finite number")
        if self._objective == "process_reward":
            return RowScore(index=number, score=float(np.prod(value)), steps=tuple(value))
        if self._objective == "classification":
            probabilities = dict(zip(map(str, self._classes), value, strict=True))
            label = max(probabilities, key=lambda name: probabilities[name])
            return RowScore(index=number, score=probabilities[label], label=label, probabilities=probabilities)
        return RowScore(index=number, score=value[0])
