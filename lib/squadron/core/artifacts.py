"""What a stage leaves for later ones: a file or a folder of files that knows its place in the run and its content."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Self

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.core.marker import START_OVER

if TYPE_CHECKING:
    from squadron.core.run import Stage

_REMOTE_BYTES = 2**30
"""Behind a URL, of a larger artifact the size alone is compared: its content would have to be fetched twice."""
_known: dict[str, tuple[tuple[int, ...], str]] = {}
"""Digests of local files by path, each with what `stat` said when it was read: a process reads a file once."""


class Artifact(Config):
    """A file, or a folder of files, that a stage has written: its path from the run folder, its size, and its SHA-256.

    A folder's digest is that of its files' names, sizes and digests.
    """

    path: str
    bytes: int = 0
    sha256: str = ""

    @classmethod
    def made(cls, stage: Stage, file: str, **more: Any) -> Self:
        """The record of what the stage has written as `file` into its folder."""
        return cls.of(stage.run.folder, relative(stage.folder, stage.run.folder, file), **more)

    @classmethod
    def of(cls, run: Folder, path: str, **more: Any) -> Self:
        """The record of what stands in a run folder at `path`."""
        size, digest = _content(run, path)
        return cls(path=path, bytes=size, sha256=digest, **more)

    def locate(self, run: Folder) -> str:
        """The full path or URL. Raises InputError if what is there is gone, or is not what was written."""
        where, name = run.file(self.path), self.path.rpartition("/")[2]
        if not self.path or not run.exists(self.path):
            raise InputError(f"{name} is gone", where=where, fix=START_OVER)
        size, digest = _content(run, self.path, with_digest=bool(run.path) or self.bytes <= _REMOTE_BYTES)
        if size != self.bytes:
            raise InputError(f"{name} has {size:,} bytes; {self.bytes:,} were written", where=where, fix=START_OVER)
        if digest and digest != self.sha256:
            raise InputError(f"{name} has changed since it was written", where=where, fix=START_OVER)
        return where

    def read_json(self, run: Folder) -> Any:
        """The JSON value that the file holds. Raises InputError as `locate` does."""
        self.locate(run)
        return run.read_json(self.path)


def _content(run: Folder, path: str, *, with_digest: bool = True) -> tuple[int, str]:
    """Bytes and digest."""
    folder = run / path
    names = [name for name in folder.walk() if name]  # some stores list a file as its own content
    if not names:
        return run.size(path), _digest(run, path) if with_digest else ""
    sizes = {name: folder.size(name) for name in names}
    if not with_digest:
        return sum(sizes.values()), ""
    parts = [f"{name} {size} {_digest(folder, name)}" for name, size in sizes.items()]
    return sum(sizes.values()), hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest(folder: Folder, name: str) -> str:
    if not folder.path:
        return _hash(folder, name)
    path = folder.file(name)
    found = os.stat(path)
    status = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    if path not in _known or _known[path][0] != status:
        _known[path] = (status, _hash(folder, name))
    return _known[path][1]


def _hash(folder: Folder, name: str) -> str:
    digest = hashlib.sha256()
    with folder.open(name) as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()
