"""SHA-256 of files in folders. A process reads a local file once, unless it has changed since."""

from __future__ import annotations

import hashlib
import os

from squadron.core.folder import Folder

REMOTE_BYTES = 2**30
"""Behind a URL, of more than this the size alone is compared: the content would have to be fetched twice."""
_known: dict[str, tuple[tuple[int, ...], str]] = {}
"""Digests of local files by path, each with what `stat` said when it was read."""


def digest(folder: Folder, name: str) -> str:
    """SHA-256 of a file's content, in hex digits."""
    if not folder.path:
        return _hash(folder, name)
    path = folder.file(name)
    found = os.stat(path)
    # The time of change of the inode cannot be set back, unlike that of the content.
    status = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    if path not in _known or _known[path][0] != status:
        _known[path] = (status, _hash(folder, name))
    return _known[path][1]


def _hash(folder: Folder, name: str) -> str:
    found = hashlib.sha256()
    with folder.open(name) as stream:
        while part := stream.read(2**20):
            found.update(part)
    return found.hexdigest()
