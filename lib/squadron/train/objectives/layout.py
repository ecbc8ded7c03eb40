"""Two layouts of token sequences: laid end to end for decoders, padded for whatever has to see rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from squadron.core.errors import InputError

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""The label of a token that has no target, by transformers' convention."""
IDS = "list<int64>"
"""Token ids, or one number for each of them, in a file of rows."""
SUPERVISED_TYPES = {"input_ids": IDS, "labels": IDS, "length": "int64"}
PREFERENCE_TYPES = {
    "prompt_ids": IDS, "chosen_ids": IDS, "rejected_ids": IDS, "length": "int64", "packed_length": "int64",
}  # fmt: skip
"""The columns of rows in a file, for `write_rows`."""


def end_to_end(ids: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """Sequences in one row without padding, N tokens in S sequences, K of them with a target.

    input_ids, position_ids [1, N]; bounds [S + 1], where each sequence begins and the last ends; keep [K], the places
    whose next token is a target; targets [K]; sequence [K], which sequence each target belongs to.
    """
    import torch

    ids, labels = [_whole(sequence) for sequence in ids], [_whole(sequence) for sequence in labels]
    lengths = np.array([len(sequence) for sequence in ids])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    flat_labels = np.concatenate(labels)
    is_target = flat_labels != IGNORED
    is_target[bounds[:-1]] = False  # nothing predicts a sequence's first token
    places = np.flatnonzero(is_target)
    return {
        "input_ids": torch.as_tensor(np.concatenate(ids).astype(np.int64))[None],
        "position_ids": torch.as_tensor(np.concatenate([np.arange(n) for n in lengths]))[None],
        "bounds": torch.as_tensor(bounds.astype(np.int32)),
        "keep": torch.as_tensor(places - 1),
        "targets": torch.as_tensor(flat_labels[places].astype(np.int64)),
        "sequence": torch.as_tensor(np.repeat(np.arange(len(ids)), lengths)[places]),
    }


def padded(ids: Sequence[np.ndarray | Sequence[int]], fill: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences as rows of equal length, filled on the right, and the mask of what is real: both [B, T]."""
    import torch

    ids = [_whole(sequence) for sequence in ids]
    longest = max(len(sequence) for sequence in ids)
    rows = np.full((len(ids), longest), fill, np.int64)
    mask = np.zeros((len(ids), longest), np.int64)
    for row, sequence in enumerate(ids):
        rows[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return torch.as_tensor(rows), torch.as_tensor(mask)


def _whole(numbers: np.ndarray | Sequence[int]) -> np.ndarray:
    """Token ids or labels as integers. Raises InputError for other numbers: 0.9 is no class, and would become 0."""
    found = np.asarray(numbers)
    if found.size and found.dtype.kind not in "iu":
        what = f"token ids and labels are whole numbers, these are {found.dtype}: {found.ravel()[:5].tolist()}"
        raise InputError(what, fix="give whole numbers")
    return found.astype(np.int64, copy=False)
