"""What tells one content of a file behind a URL from another."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

_SUMS = ("ETag", "etag", "checksum", "md5Hash", "content_md5", "Content-MD5", "Digest", "CRC", "blob_id", "sha")
_TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "created", "updated")


def remote_state(filesystem: Any, path: str, listed: Mapping[str, Any] | None = None) -> dict[str, str]:
    """A sum of a remote file that its store gives, else its size and time of change, else the SHA-256 of what is read.

    `listed` is what a listing has told of it. Raises FileNotFoundError and what the file system raises.
    """
    for info in ([listed] if listed else []) + [filesystem.info(path)]:
        for told in (_SUMS, _TIMES):
            if state := {key: str(info[key]) for key in told if info.get(key) is not None}:
                return {"size": str(info.get("size"))} | state
    with filesystem.open(path, "rb") as stream:
        return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
