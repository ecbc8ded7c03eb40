"""SHA-256 of files in folders. A process reads a local file once, unless it has changed since."""

from __future__ import annotations

import hashlib
import os

from squadron.core.folder import Folder

REMOTE_BYTES = 2**30
"""Behind a URL, of more than this the size alone is compared: the content would have to be fetched twice."""
Known = dict[str, tuple[list[int], str]]
"""Digests of local files by path, each with what `stat` said when it was read."""
_known: Known = {}


def digest(folder: Folder, name: str) -> str:
    """SHA-256 of a file's content, in hex digits."""
    if folder.path:
        return digest_local(folder.file(name), _known)
    with folder.open(name) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def digest_local(path: str, known: Known) -> str:
    """The same of a local file; it is read unless `known` has it as it is now."""
    found = os.stat(path)
    # The time of change of the inode cannot be set back, unlike that of the content.
    status = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    if path not in known or known[path][0] != status:
        with open(path, "rb") as stream:
            known[path] = (status, hashlib.file_digest(stream, "sha256").hexdigest())
    return known[path][1]
