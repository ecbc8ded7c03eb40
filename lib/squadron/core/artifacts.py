"""What a stage leaves for later ones: a file or a folder of files that knows its place in the run and its content."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Self

from squadron.core.config import Config
from squadron.core.digests import REMOTE_BYTES, digest
from squadron.core.errors import InputError
from squadron.core.folder import Folder, relative
from squadron.core.marker import START_OVER

if TYPE_CHECKING:
    from squadron.core.run import Stage


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
        size, found = _content(run, path)
        return cls(path=path, bytes=size, sha256=found, **more)

    def locate(self, run: Folder) -> str:
        """The full path or URL. Raises InputError if what is there is gone, or is not what was written."""
        where, name = run.file(self.path), self.path.rpartition("/")[2]
        if not self.path or not run.exists(self.path):
            raise InputError(f"{name} is gone", where=where, fix=START_OVER)
        size, found = _content(run, self.path, with_digest=bool(run.path) or self.bytes <= REMOTE_BYTES)
        if size != self.bytes:
            raise InputError(f"{name} has {size:,} bytes; {self.bytes:,} were written", where=where, fix=START_OVER)
        if found and found != self.sha256:
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
        return run.size(path), digest(run, path) if with_digest else ""
    sizes = {name: folder.size(name) for name in names}
    if not with_digest:
        return sum(sizes.values()), ""
    parts = [f"{name} {size} {digest(folder, name)}" for name, size in sizes.items()]
    return sum(sizes.values()), hashlib.sha256("\n".join(parts).encode()).hexdigest()
