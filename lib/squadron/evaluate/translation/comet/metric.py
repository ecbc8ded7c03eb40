"""COMET as a metric of translations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from squadron.evaluate.translation.comet.checkpoint import load_checkpoint
from squadron.evaluate.translation.comet.config import CometMetric
from squadron.evaluate.translation.comet.inputs import Encoded, batches, encode, join, padded
from squadron.evaluate.translation.comet.spans import ErrorSpan, decode_spans, span_score
from squadron.evaluate.translation.means import Mean
from squadron.evaluate.translation.segments import Segment

if TYPE_CHECKING:
    import torch

SPAN_WEIGHTS = (0.1667, 0.3333, 0.5)
"""Of the probabilities of tags by translation with source, with reference, and with both."""
SCORE_WEIGHTS = (0.12, 0.33, 0.33)
"""Of the scores by those, between 0 and 1, in XCOMET. Without a reference the first has the weight of all."""
SPANS_WEIGHT = 0.22
_AT_A_TIME = 1024


class Judgement(NamedTuple):
    """What COMET says of a translation. NaN: nothing, for want of a reference."""

    score: float
    spans: tuple[ErrorSpan, ...] = ()


class CometScorer(Mean):
    """A checkpoint on the card, where there is one, else on the processor."""

    def __init__(self, settings: CometMetric) -> None:
        """Raises InputError for a checkpoint that cannot be read."""
        import torch

        self.name, self._settings = settings.name, settings
        self._network, self._tokenizer = load_checkpoint(settings.path.local, settings.revision)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if settings.half and self._device.type == "cuda":
            self._network.encoder.half()
        self._network.to(self._device)
        self._hparams = self._network.hparams
        self._longest = self._network.encoder.model.config.max_position_embeddings - 2
        self.needs_reference = self._hparams.needs_reference

    def measure(self, segments: Sequence[Segment]) -> np.ndarray:
        """The score (N,) of each segment, NaN where it has none."""
        return np.array([one.score for one in self.judge(segments)])

    def judge(self, segments: Sequence[Segment]) -> list[Judgement]:
        """The score of each segment, and the errors where the network tags them. What a segment is judged does not
        depend on the others."""
        judge = self._judge_joined if self._hparams.joins else self._judge_apart
        found: list[Judgement] = []
        for start in range(0, len(segments), _AT_A_TIME):
            found += judge(segments[start : start + _AT_A_TIME])
        return found

    def _judge_apart(self, segments: Sequence[Segment]) -> list[Judgement]:
        """By embeddings of each text by itself, once."""
        import torch

        with_reference = "ref" in self._hparams.reads
        judged = [place for place, one in enumerate(segments) if not with_reference or one.reference is not None]
        found = [Judgement(np.nan)] * len(segments)
        if not judged:
            return found
        fields = ("translation", "source", *(["reference"] if with_reference else []))
        columns = [[getattr(segments[place], field) for place in judged] for field in fields]
        texts = list(dict.fromkeys(text for column in columns for text in column))
        vectors = dict(zip(texts, self._embed([one.ids for one in self._encode(texts)]), strict=True))
        parts = [torch.stack([vectors[text] for text in column]) for column in columns]
        with torch.inference_mode():
            scores = self._network.regress(parts[0], parts[1], parts[2] if with_reference else None)
        for place, score in zip(judged, scores.tolist(), strict=True):
            found[place] = Judgement(score)
        return found

    def _embed(self, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """An embedding (D,) of each sequence of tokens."""
        import torch

        found: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            for batch in batches([len(one) for one in sequences], self._settings.tokens_at_once):
                some = padded([sequences[place] for place in batch], self._tokenizer.pad_token_id, self._device)
                found |= zip(batch, self._network.embed(*some), strict=True)
        return [found[place] for place in range(len(sequences))]

    def _judge_joined(self, segments: Sequence[Segment]) -> list[Judgement]:
        """By the translation joined with the source, with the reference, and with both."""
        texts = list(dict.fromkeys(text for one in segments for text in one[1:4] if text is not None))
        encoded = dict(zip(texts, self._encode(texts), strict=True))
        asked = [self._joined(one, encoded) for one in segments]
        flat = [ids for sequences in asked for ids in sequences]
        answers = iter(self._read(flat))
        found = []
        for segment, sequences in zip(segments, asked, strict=True):
            parts = [next(answers) for _ in sequences]
            found.append(self._combine(parts, encoded[segment.translation]))
        return found

    def _joined(self, segment: Segment, encoded: dict[str, Encoded]) -> list[tuple[int, ...]]:
        """What is read of a segment: one sequence, or three where there are source and reference."""
        reads = self._hparams.reads
        reference = segment.reference if "ref" in reads and (self._settings.reference or self.needs_reference) else None
        given = [segment.source if "src" in reads else None, reference]
        others = [encoded[text] for text in given if text is not None]
        first = encoded[segment.translation]
        sets = [[one] for one in others] + ([others] if len(others) > 1 else [])
        return [join([first, *some], self._tokenizer.sep_token_id, self._longest) for some in sets]

    def _read(self, sequences: Sequence[Sequence[int]]) -> list[tuple[float, np.ndarray | None]]:
        """The score and the probabilities (T, C) of tags of each sequence."""
        import torch

        found: dict[int, tuple[float, np.ndarray | None]] = {}
        with torch.inference_mode():
            for batch in batches([len(one) for one in sequences], self._settings.tokens_at_once):
                some = padded([sequences[place] for place in batch], self._tokenizer.pad_token_id, self._device)
                scores_B, tags_BTC = self._network.judge(*some)
                tags = [None] * len(batch) if tags_BTC is None else list(tags_BTC.cpu().numpy())
                found |= zip(batch, zip(scores_B.tolist(), tags, strict=True), strict=True)
        return [found[place] for place in range(len(sequences))]

    def _combine(self, parts: Sequence[tuple[float, np.ndarray | None]], translation: Encoded) -> Judgement:
        """One judgement from what was said of each sequence."""
        if not parts:
            return Judgement(np.nan)
        weights = SPAN_WEIGHTS if len(parts) > 1 else (1.0,)
        spans: tuple[ErrorSpan, ...] = ()
        tags = [
            one[: len(translation.ids)] * weight
            for weight, (_, one) in zip(weights, parts, strict=True)
            if one is not None
        ]
        if tags:
            spans = decode_spans(np.sum(tags, axis=0), translation.offsets, self._hparams.labels)
        scores = [score for score, _ in parts]
        if not self._hparams.scores_spans:
            return Judgement(float(np.mean(scores)), spans)
        shares = SCORE_WEIGHTS if len(parts) > 1 else (sum(SCORE_WEIGHTS),)
        regression = sum(share * min(max(score, 0.0), 1.0) for share, score in zip(shares, scores, strict=True))
        return Judgement(regression + SPANS_WEIGHT * span_score(spans), spans)

    def _encode(self, texts: Sequence[str]) -> list[Encoded]:
        return encode(texts, self._tokenizer, self._longest)
