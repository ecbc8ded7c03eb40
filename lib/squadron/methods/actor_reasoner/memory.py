"""The Actor: decisions of the Reasoner, remembered by situation, and found again within a tick.

Memories are kept apart by the style that the driver was thought to have. Recall is in two layers: of one part, the ten
situations closest in numbers; of these, the one closest in words, whose decision is taken.

Letters: B situations, N memories, K nearest, E dimensions of a text's vector.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from squadron.core.errors import InputError
from squadron.core.json_text import from_json
from squadron.methods.actor_reasoner.algorithm import ACTIONS, FEATURES, WEIGHTS
from squadron.sim.driving.spec import STYLES

FORMAT, VERSION = "squadron.actor_memory", 1
_ABOUT = "about"
NEAREST = 10
SAME_NUMBERS, SAME_WORDS = 4.0, 0.8
"""A memory is not kept beside one of the same decision within this weighted distance in numbers and this squared
distance of vectors."""
NOBODY = -1
"""Of a recall in a memory that holds nothing."""
_DIGITS = 6
_FIRST = 64
_WIDEST = 2**16
_ARRAYS = ("numbers_N5", "vector_NE", "action_N", "age_N")


class _Part:
    """Memories of one style, in arrays that grow."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.numbers_N5 = np.zeros((_FIRST, len(FEATURES)))
        self.vector_NE = np.zeros((_FIRST, width), np.float32)
        self.action_N = np.zeros(_FIRST, np.int64)
        self.age_N = np.zeros(_FIRST, np.int64)
        self.words: list[str] = []

    def held(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name)[: self.count] for name in _ARRAYS}

    def put(self, place: int, numbers_5: np.ndarray, vector_E: np.ndarray, action: int, age: int, words: str) -> None:
        if place == len(self.numbers_N5):
            for name in _ARRAYS:
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros_like(old)]))
        if place == self.count:
            self.count += 1
            self.words.append(words)
        self.numbers_N5[place], self.vector_NE[place] = numbers_5, vector_E
        self.action_N[place], self.age_N[place], self.words[place] = action, age, words


class Memory:
    """Memories of a car, at most `capacity` of each style: the oldest of a full part gives way to a new one.

    Two cars with equal memories decide alike: recall changes nothing, and of memories that are equally close the one
    kept earlier counts.
    """

    def __init__(self, capacity: int, width: int, *, partition: bool = True) -> None:
        self.capacity, self.width, self.partition = capacity, width, partition
        self._parts = [_Part(width) for _ in STYLES]
        self._written = 0

    def __len__(self) -> int:
        return sum(part.count for part in self._parts)

    @property
    def counts(self) -> dict[str, int]:
        """Memories of each style."""
        return dict(zip(STYLES, (part.count for part in self._parts), strict=True))

    def write(self, style: int, numbers_5: np.ndarray, vector_E: np.ndarray, action: int, words: str) -> bool:
        """Keep a decision (a number in `ACTIONS`), unless the same was made before in much the same situation. Whether
        it was kept."""
        part = self._parts[style if self.partition else 0]
        held = part.held()
        near_N = np.abs(held["numbers_N5"] - numbers_5) @ WEIGHTS < SAME_NUMBERS
        near_N &= held["action_N"] == action
        if near_N.any() and (_apart(held["vector_NE"][near_N], vector_E) < SAME_WORDS).any():
            return False
        full = part.count >= self.capacity
        place = int(held["age_N"].argmin()) if full else part.count
        part.put(place, numbers_5, vector_E, action, self._written, words)
        self._written += 1
        return True

    def recall(
        self, style_B: np.ndarray, numbers_B5: np.ndarray, vectors_BE: np.ndarray, *, layers: int = 2
    ) -> np.ndarray:
        """The decision (B) of the most alike memory of each situation; `NOBODY` where nothing is remembered at all.

        With one layer it is the closest in numbers alone. Where nothing is remembered of a style, memories of all
        styles are looked at.
        """
        action_B = np.full(len(style_B), NOBODY)
        for style in np.unique(style_B):
            rows = np.flatnonzero(style_B == style)
            part = self._parts[int(style) if self.partition else 0]
            held = part.held() if part.count else self._all()
            if len(held["action_N"]):
                action_B[rows] = _recall(held, numbers_B5[rows], vectors_BE[rows], layers)
        return action_B

    def _all(self) -> dict[str, np.ndarray]:
        held = [part.held() for part in self._parts]
        return {name: np.concatenate([one[name] for one in held]) for name in _ARRAYS}

    def merged(self) -> Memory:
        """The same memories in one part, whatever the style."""
        return self._copy(len(self), partition=False)

    def first(self, count: int) -> Memory:
        """The oldest `count` memories."""
        return self._copy(count, partition=self.partition)

    def _copy(self, count: int, *, partition: bool) -> Memory:
        """The oldest `count`, not compared with each other again."""
        copy = Memory(max(1, len(self)), self.width, partition=partition)
        held = sorted(
            (int(part.age_N[place]), style, place)
            for style, part in enumerate(self._parts)
            for place in range(part.count)
        )
        for age, style, place in held[:count]:
            part, into = self._parts[style], copy._parts[style if partition else 0]
            row = part.numbers_N5[place], part.vector_NE[place], int(part.action_N[place]), age, part.words[place]
            into.put(into.count, *row)
        copy._written = self._written
        return copy

    def save(self, path: Path) -> None:
        """Write it as one safetensors file."""
        from safetensors.numpy import save_file

        arrays = {f"{style}.{name}": held for style, part in zip(STYLES, self._parts, strict=True)
                  for name, held in part.held().items()}  # fmt: skip
        settings = {"capacity": self.capacity, "width": self.width, "partition": self.partition}
        words = [part.words for part in self._parts]
        # One entry: several would be written in any order, and equal memories should be equal files.
        about = json.dumps({"format": FORMAT, "version": VERSION, "memory": settings, "words": words})
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path, {_ABOUT: about})

    @classmethod
    def load(cls, path: Path) -> Memory:
        """Read what `save` wrote. Raises InputError for any other file, and for one of another version."""
        about, arrays = _read(path)
        memory = cls(about.memory.capacity, about.memory.width, partition=about.memory.partition)
        for style, part, words in zip(STYLES, memory._parts, about.words, strict=True):
            rows = [arrays[f"{style}.{name}"] for name in _ARRAYS]
            _check(rows, len(words), memory.width, style, path)
            for place, (numbers, vector, action, age) in enumerate(zip(*rows, strict=True)):
                part.put(place, numbers, vector, int(action), int(age), words[place])
                memory._written = max(memory._written, int(age) + 1)
        return memory


def _recall(held: dict[str, np.ndarray], numbers_B5: np.ndarray, vectors_BE: np.ndarray, layers: int) -> np.ndarray:
    apart_BN = np.abs(numbers_B5[:, None] - held["numbers_N5"]) @ WEIGHTS
    if layers == 1:
        chosen_B: np.ndarray = apart_BN.argmin(1)
        return held["action_N"][chosen_B]
    near_BK = _smallest(apart_BN, NEAREST)
    words_BK = np.einsum("bke,be->bk", held["vector_NE"][near_BK], vectors_BE, dtype=np.float64)
    words_BK = words_BK.round(_DIGITS)  # equal words are equally close, and then numbers decide
    chosen_B = np.take_along_axis(near_BK, words_BK.argmax(1)[:, None], 1)[:, 0]
    return held["action_N"][chosen_B]


def _smallest(apart_BN: np.ndarray, count: int) -> np.ndarray:
    """The places of the smallest in each row (B, K), in order of size; of equal ones the first."""
    if apart_BN.shape[1] <= count:
        return np.argsort(apart_BN, axis=1, kind="stable")
    limit_B1 = np.partition(apart_BN, count - 1, axis=1)[:, count - 1 : count]
    near_BK = np.empty((len(apart_BN), count), np.int64)
    for row, (apart_N, limit) in enumerate(zip(apart_BN, limit_B1, strict=True)):
        places = np.flatnonzero(apart_N <= limit)  # more than enough where some are equal
        near_BK[row] = places[np.argsort(apart_N[places], kind="stable")[:count]]
    return near_BK


def _apart(vectors_NE: np.ndarray, vector_E: np.ndarray) -> np.ndarray:
    """Squared distances of vectors of length 1."""
    return 2 - 2 * (vectors_NE @ vector_E)


class _Settings(BaseModel, extra="forbid", strict=True):
    """How a memory was made."""

    capacity: int = Field(ge=1)
    width: int = Field(ge=1, le=_WIDEST)
    partition: bool = True


class _About(BaseModel, extra="forbid", strict=True):
    """What a file says of its memory, besides the arrays."""

    format: str
    version: int
    memory: _Settings
    words: list[list[str]] = Field(min_length=len(STYLES), max_length=len(STYLES))


def _read(path: Path) -> tuple[_About, dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    fix = "give a memory file that a run of actor_reasoner has written"
    try:
        with safe_open(path, framework="numpy") as file:
            said = (file.metadata() or {}).get(_ABOUT, "{}")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise InputError(f"this memory cannot be read: {error}", where=str(path), fix=fix) from None
    try:
        version = _version(said)
    except ValueError:
        raise InputError("this file holds no memory of a car", where=str(path), fix=fix) from None
    if version != VERSION:
        what = f"this memory is of version {version}, and version {VERSION} is read here"
        raise InputError(what, where=str(path), fix="build it again with this version of Squadron")
    try:
        about = _About.model_validate_json(said)
    except ValueError:
        raise InputError("this memory lacks its description", where=str(path), fix=fix) from None
    missing = [f"{style}.{name}" for style in STYLES for name in _ARRAYS if f"{style}.{name}" not in arrays]
    if missing:
        raise InputError(f"this memory lacks {', '.join(missing)}", where=str(path), fix=fix)
    return about, arrays


def _version(said: str) -> object:
    """The version of the format that a description names. Raises ValueError if it is none of a memory."""
    about = from_json(said.encode())
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError("no memory")
    return about.get("version")


def _check(rows: list[np.ndarray], count: int, width: int, style: str, path: Path) -> None:
    """Raise InputError unless the arrays of a style are those of so many memories."""
    shapes = [(count, len(FEATURES)), (count, width), (count,), (count,)]
    whole = all(array.dtype.kind == kind for array, kind in zip(rows, "ffii", strict=True))
    if [array.shape for array in rows] != shapes or not whole:
        raise InputError(f"its memories of {style} drivers do not agree in number or width", where=str(path))
    if not (np.isfinite(rows[0]).all() and np.isfinite(rows[1]).all()):
        raise InputError(f"its memories of {style} drivers hold numbers that are not finite", where=str(path))
    if not np.isin(rows[2], np.arange(len(ACTIONS))).all():
        raise InputError("it remembers decisions that there are not", where=str(path))
