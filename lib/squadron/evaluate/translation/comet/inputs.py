"""Texts as COMET's encoders read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch


class Encoded(NamedTuple):
    """A text in tokens, with those that begin and end it."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    """Characters of each token."""


def encode(texts: Sequence[str], tokenizer: Any, longest: int) -> list[Encoded]:
    """Each text in tokens, cut two tokens below what the encoder can read, as COMET cuts."""
    if not texts:
        return []
    made = tokenizer(list(texts), truncation=True, max_length=longest - 2, return_offsets_mapping=True)
    return [
        Encoded(tuple(ids), tuple(map(tuple, offsets)))
        for ids, offsets in zip(made["input_ids"], made["offset_mapping"], strict=True)
    ]


def join(texts: Sequence[Encoded], separator: int, longest: int) -> tuple[int, ...]:
    """Ids of several texts as one, with two ends of text between them, cut at its end."""
    joined = list(texts[0].ids)
    for text in texts[1:]:
        joined += [separator, *text.ids[1:]]
    return tuple(joined[:longest])


def batches(lengths: Sequence[int], tokens_at_once: int) -> Iterator[list[int]]:
    """Places of sequences of similar length, the longest first: no batch has more tokens, with padding, than this, or
    it is one sequence."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens_at_once:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def padded(sequences: Sequence[Sequence[int]], padding: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (B, T) and a mask (B, T) that is 1 on tokens."""
    import torch

    longest = max(map(len, sequences))
    ids = [[*one, *[padding] * (longest - len(one))] for one in sequences]
    mask = [[1] * len(one) + [0] * (longest - len(one)) for one in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
