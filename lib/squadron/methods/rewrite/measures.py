"""How near a rewrite is to a person's: cosine of embeddings, ROUGE. N pairs of both."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from squadron.llm.embed import AnyEmbedder, open_embedder


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
