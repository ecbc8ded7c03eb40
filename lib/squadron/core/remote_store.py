"""Stores behind URLs. Every request to one is made here, and made again if the store fails it.

Stores drop requests: a connection ends before or after the request is served, a busy store answers 500 or 503, an
answer is cut short. The drivers repeat some requests themselves; what they give up is repeated here, with growing
pauses. So all that is asked must be safe to ask twice, and it is: files are written whole, and what is removed stays
removed.
"""

from __future__ import annotations

import contextlib
import io
import random
import time
from collections.abc import Callable
from typing import IO, Any, TypeVar

from squadron.core.disk_errors import explaining_disk_errors, is_full, is_of_store
from squadron.core.errors import InputError, SquadronError

PAUSES_S = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Between tries, each shortened by chance to half of it at most, so that many workers do not ask at the same moment."""
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"})
"""Protocols of stores without folders: nothing must be made before a file is written."""
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    SquadronError,
)
_BLOCK_BYTES = 8 * 2**20
Answer = TypeVar("Answer")


def open_store(url: str) -> tuple[Any, str]:
    """The fsspec file system behind a URL, and the path in it. Raises InputError if no driver is installed.

    It keeps no listings: what another process has written is there at once.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        fix = "pip install the named fsspec driver"
        raise InputError(f"no driver for this URL: {error}", where=url, fix=fix) from None
    return filesystem, str(path).rstrip("/")


def ask_store(where: str, ask: Callable[[], Answer], *, passing: tuple[type[Exception], ...] = ()) -> Answer:
    """What `ask` returns, asked again after a pause where the store fails it; errors of the kinds `passing` count as
    such failures too.

    Raises what a last try has met: FileNotFoundError and FileExistsError as they are, ResourceError or InputError, with
    `where`, for all else that stores say.
    """
    with explaining_disk_errors(where):
        for pause_s in PAUSES_S:
            try:
                return ask()
            except Exception as error:
                if not (isinstance(error, passing) or _may_pass(error)):
                    raise
            time.sleep(pause_s * random.uniform(0.5, 1))
        return ask()


def write_file(where: str, filesystem: Any, path: str, data: bytes) -> None:
    """Write a file whole or not at all. Raises InputError if its bucket is missing, and as `ask_store` does."""
    _write(where, filesystem, path, lambda: filesystem.pipe_file(path, data))


def upload_file(where: str, filesystem: Any, path: str, local: str) -> None:
    """The same with what a local file holds, which may be too large for memory."""
    _write(where, filesystem, path, lambda: filesystem.put_file(local, path))


def create_file(where: str, filesystem: Any, path: str, data: bytes) -> bool:
    """Write a file that is not there yet: of several who try at the same time, one does. Returns whether this one did.

    `data` must be this caller's alone: a store may have written it and lost the answer.
    """

    def create() -> None:
        try:
            filesystem.pipe_file(path, data, mode="create")
        except OSError as error:  # stores say in several ways that a condition does not hold
            with contextlib.suppress(FileNotFoundError):
                filesystem.info(path)
                raise FileExistsError(path) from error
            raise

    try:
        _write(where, filesystem, path, create)
    except FileExistsError:
        return bool(ask_store(where, lambda: filesystem.cat_file(path)) == data)
    return True


def is_there(where: str, filesystem: Any, path: str) -> bool:
    """Whether there is such a file or folder."""
    if _is_web(filesystem):  # which asks for the file itself: not every server tells of one
        return bool(ask_store(where, lambda: filesystem.exists(path)))
    try:
        ask_store(where, lambda: filesystem.info(path))  # `exists` takes a lost request for a missing file
    except FileNotFoundError:
        return False
    return True


def open_file(where: str, filesystem: Any, path: str) -> IO[bytes]:
    """A file for reading, block by block. Raises FileNotFoundError."""
    size = ask_store(where, lambda: filesystem.info(path))["size"]
    if size is None or _is_web(filesystem):  # not every server sends parts of a file
        stream: IO[bytes] = ask_store(where, lambda: filesystem.open(path, "rb"))
        return stream
    return io.BufferedReader(_Blocks(where, filesystem, path, int(size)), _BLOCK_BYTES)


class _Blocks(io.RawIOBase):
    """A file of a known size, of which each read is a request of its own."""

    def __init__(self, where: str, filesystem: Any, path: str, size: int) -> None:
        self._where, self._filesystem, self._path, self._size = where, filesystem, path, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._read(min(len(buffer), self._size - self._at))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(self._size - self._at)

    def _read(self, count: int) -> bytes:
        if count <= 0:
            return b""
        start, end = self._at, self._at + count

        def ask() -> bytes:
            data: bytes = self._filesystem.cat_file(self._path, start=start, end=end)
            if len(data) != count:
                raise ConnectionError(f"{len(data)} of {count} bytes came")
            return data

        data = ask_store(self._where, ask)
        self._at = end
        return data


def _write(where: str, filesystem: Any, path: str, write: Callable[[], object]) -> None:
    try:
        # An upload in parts whose last answer was lost is not found when it is completed again.
        ask_store(where, lambda: _in_folder(filesystem, path, write), passing=(FileNotFoundError,))
    except FileNotFoundError as error:
        fix = "create it, or correct the URL"
        raise InputError(f"there is no such bucket or folder: {error}", where=where, fix=fix) from None


def _in_folder(filesystem: Any, path: str, write: Callable[[], object]) -> None:
    if _protocol(filesystem) not in _OBJECT_STORES:
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    write()


def _protocol(filesystem: Any) -> str:
    protocol = filesystem.protocol
    return str(protocol if isinstance(protocol, str) else protocol[0])


def _is_web(filesystem: Any) -> bool:
    return _protocol(filesystem).startswith("http")


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, _FINAL) or is_full(error) or "Credentials" in type(error).__name__:
        return False
    return isinstance(error, OSError) or is_of_store(error)
