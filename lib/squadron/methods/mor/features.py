"""What a path tells of the candidate at its end (section 3.3 of the paper): scores along it, the types of its nodes,
and whether words or an edge led to each.

C candidates, T places of a path, S = T + 1 scores, K strings of types, E dimensions of their vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from squadron.methods.mor.algorithm import PAD, Candidates
from squadron.retrieval.graph import KnowledgeBase, Schema

PADDING = "padding"
BY_WORDS, BY_EDGE, NOTHING = 0, 1, 2
"""Codes of a place of a path: words found the node there, an edge led to it, or the path is shorter."""


@dataclass(frozen=True, eq=False)
class Features:
    """Of the candidates of one question. `score_CS`: what words score along the path, then the dense score, padded with
    0 on the left. `kind_C`: the number of its string of types. `code_CT`: a code of each place."""

    score_CS: np.ndarray
    kind_C: np.ndarray
    code_CT: np.ndarray

    def __len__(self) -> int:
        return len(self.kind_C)


def extract_features(graph: KnowledgeBase, found: Candidates, kinds: Mapping[str, int]) -> Features:
    """The features of all candidates; `kinds` numbers the strings of types, as `type_strings` lists them."""
    score_CS = np.concatenate([found.score_CT, found.dense_C[:, None]], axis=1).astype(np.float32)
    length = found.path_CT.shape[1]
    # One number for each path's types: only the distinct ones are put into words.
    type_CT = np.where(found.path_CT == PAD, len(graph.schema.types), graph.type_N[np.maximum(found.path_CT, 0)])
    distinct_DT, of_C = np.unique(type_CT.astype(np.int64), axis=0, return_inverse=True)
    names = (*graph.schema.types, PADDING)
    kind_D = np.array([kinds[" ".join(names[one] for one in row)] for row in distinct_DT], np.int64)
    kind_C = kind_D[of_C.reshape(-1)] if len(kind_D) else np.empty(0, np.int64)
    return Features(score_CS, kind_C, path_codes((found.path_CT != PAD).sum(1), length))


def path_codes(length_C: np.ndarray, places: int) -> np.ndarray:
    """Codes of paths of these lengths: nothing, then a node that words found, then nodes that edges led to.

    In the published code, too, they follow from the length alone.
    """
    from_start_CT = np.arange(places)[None, :] - (places - length_C[:, None])
    return np.where(from_start_CT < 0, NOTHING, np.where(from_start_CT == 0, BY_WORDS, BY_EDGE)).astype(np.int64)


def type_strings(schema: Schema, targets: Sequence[str], places: int) -> tuple[str, ...]:
    """Every string of types that a path to one of the targets may have, such as `padding author paper`: all walks over
    the schema, so that whatever is found later has a number, too."""
    walks: list[tuple[str, ...]] = [(target,) for target in targets]
    found = list(walks)
    for _ in range(places - 1):
        walks = [(kind, *walk) for walk in walks for kind in schema.types if schema.between(kind, walk[0])]
        found += walks
    return tuple(dict.fromkeys(" ".join((PADDING,) * (places - len(walk)) + walk) for walk in found))
