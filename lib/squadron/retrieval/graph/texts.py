"""Texts as two arrays, so that processes share them. N texts, B bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


class Texts(Sequence[str]):
    """Texts by number. Holds their UTF-8 bytes and where each ends: nothing is copied when it is mapped from a file or
    taken from an object store."""

    def __init__(self, bytes_B: np.ndarray, ends_N: np.ndarray) -> None:
        self.bytes_B, self.ends_N = bytes_B, ends_N

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """These texts, in this order."""
        encoded = [text.encode() for text in texts]
        ends_N = np.cumsum([len(one) for one in encoded], dtype=np.int64) if encoded else np.zeros(0, np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends_N)

    def __len__(self) -> int:
        return len(self.ends_N)

    def __getitem__(self, number):  # type: ignore[no-untyped-def]
        """One text, or a list of those of a slice."""
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        return self.encoded(number).decode()

    def encoded(self, number: int) -> bytes:
        """The bytes of one text. Raises IndexError beyond the last."""
        place = range(len(self))[number]
        start = int(self.ends_N[place - 1]) if place else 0
        return self.bytes_B[start : int(self.ends_N[place])].tobytes()

    def all_encoded(self) -> list[bytes]:
        """The bytes of all texts."""
        data, ends = self.bytes_B.tobytes(), self.ends_N.tolist()
        return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
