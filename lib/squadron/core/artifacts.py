"""What a stage leaves for later ones: a file or a folder of files that knows its place in the run and its content."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Self

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative

if TYPE_CHECKING:
    from squadron.core.run import Stage

_DIGESTED_BYTES, _CHECKED_BYTES = 2**30, 2**26
"""Of larger files the size alone counts: in the digest that is kept, and where content is read again to compare."""


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
        size, digest = _content(run, path, _DIGESTED_BYTES)
        return cls(path=path, bytes=size, sha256=digest, **more)

    def locate(self, run: Folder) -> str:
        """The full path or URL. Raises InputError if what is there is gone, cut short or another than was written."""
        where, fix = run.file(self.path), "remove the folder of its stage, and give the same command again"
        name = self.path.rpartition("/")[2]
        if not run.exists(self.path):
            raise InputError(f"{name} is gone", where=where, fix=fix)
        size, digest = _content(run, self.path, _DIGESTED_BYTES if self.bytes <= _CHECKED_BYTES and run.path else -1)
        if size != self.bytes:
            raise InputError(f"{name} has {size:,} bytes; {self.bytes:,} were written", where=where, fix=fix)
        if digest and digest != self.sha256:
            raise InputError(f"{name} has changed since it was written", where=where, fix=fix)
        return where

    def read_json(self, run: Folder) -> Any:
        """The JSON value that the file holds. Raises InputError as `locate` does."""
        self.locate(run)
        return run.read_json(self.path)


def _content(run: Folder, path: str, largest: int) -> tuple[int, str]:
    """Bytes and digest; no digest where `largest` is negative."""
    folder = run / path
    names = [name for name in folder.walk() if name]  # some stores list a file as its own content
    if not names:
        size = run.size(path)
        return size, "" if largest < 0 else _digest(run, path) if size <= largest else f"{size} bytes"
    sizes = {name: folder.size(name) for name in names}
    if largest < 0:
        return sum(sizes.values()), ""
    parts = [f"{name} {size} {_digest(folder, name) if size <= largest else ''}" for name, size in sizes.items()]
    return sum(sizes.values()), hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest(folder: Folder, name: str) -> str:
    digest = hashlib.sha256()
    with folder.open(name) as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()
