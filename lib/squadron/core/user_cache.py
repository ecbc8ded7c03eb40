"""What runs of one user share on a machine: models and vectors that need not be computed again."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from squadron.core.folder import Folder


def user_cache(name: str) -> Folder:
    """A folder under $SQUADRON_CACHE, or under ~/.cache/squadron."""
    home = os.path.join(os.path.expanduser("~"), ".cache", "squadron")
    return Folder(os.environ.get("SQUADRON_CACHE") or home) / name


def mark_used(folder: Folder, name: str) -> None:
    """Let a file of a cache on this machine count as used now. One that is gone, or another's, stays as it is."""
    if folder.path:
        with contextlib.suppress(OSError):
            os.utime(folder.file(name))


def limit_cache(folder: Folder, most_bytes: int) -> int:
    """Remove what was not used for longest from a cache on this machine, folders below it included, until it holds at
    most so many bytes; return how many files went. A cache behind a URL is left as it is: its store has rules for that.

    Other processes may read, write and limit the cache at the same time: a file is whole or gone, and who has opened it
    reads it to its end.
    """
    files = sorted(_files(folder)) if folder.path else []
    over = sum(size for _, size, _ in files) - most_bytes
    removed = 0
    for _, size, path in files:
        if over <= 0:
            break
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            over, removed = over - size, removed + 1
    return removed


def _files(folder: Folder) -> Iterator[tuple[int, int, Path]]:
    """When each file was used last, its bytes, and its path; files that are being written are left out."""
    for path in Path(folder.path).rglob("*"):
        with contextlib.suppress(OSError):
            state = path.lstat()
            if stat.S_ISREG(state.st_mode) and path.suffix != ".tmp":
                yield state.st_mtime_ns, state.st_size, path
