"""Folders that Ray's sessions on this machine have left: logs, sockets and spilled objects, up to gigabytes each.

Ray removes none of them. One is dead only if nothing speaks for its life: nobody listens on its sockets, no process
carries its name or holds a file of it, the process that began it is gone, and nothing was written for a while.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"session_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d+_(\d+)")
_QUIET_S = 600.0  # a session that is being started has no sockets yet
_KEPT = 3  # whose logs may still be read
_MIB = 2**20


@dataclass(frozen=True)
class DeadSession:
    """A folder that no process needs any more."""

    path: Path
    written_at: float

    def size_mb(self) -> float:
        """What it takes of the disk, in MiB."""
        return sum(one.lstat().st_size for one in self.path.rglob("*") if one.is_file()) / _MIB


def temporary_root() -> str:
    """The folder in which Ray keeps its own."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()


def remove_dead_sessions() -> None:
    """Remove what dead sessions of this user have left, but for the last ones, whose logs may still be read."""
    for session in find_dead_sessions()[:-_KEPT]:
        shutil.rmtree(session.path, ignore_errors=True)


def find_dead_sessions() -> list[DeadSession]:
    """Dead sessions of this user, by the time when they were last written to. None where the system does not tell what
    its processes do."""
    root, now = Path(temporary_root(), "ray"), time.time()
    if not os.path.isdir("/proc/self/fd"):
        return []
    quiet = [
        DeadSession(path, written_at)
        for path in sorted(root.glob("session_*"))
        if _NAME.fullmatch(path.name) and _is_own_folder(path) and now - (written_at := _written_at(path)) > _QUIET_S
    ]
    used = _used_by_processes() if quiet else set()
    dead = [
        one for one in quiet if one.path.name not in used and not _begun_by_living(one.path) and not _answers(one.path)
    ]
    return sorted(dead, key=lambda one: one.written_at)


def _is_own_folder(path: Path) -> bool:
    with contextlib.suppress(OSError):
        found = path.lstat()  # a link leads elsewhere
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return False


def _written_at(path: Path) -> float:
    """When something in it was written last; now where it cannot be looked at."""
    try:
        return max(one.lstat().st_mtime for one in (path, *path.rglob("*")))
    except OSError:
        return time.time()


def _begun_by_living(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return os.path.exists(f"/proc/{match[1]}")


def _answers(path: Path) -> bool:
    """Whether anybody listens on a socket of the session; only a refusal says that nobody does."""
    for place in (path / "sockets").glob("*"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            try:
                client.connect(str(place))
            except ConnectionRefusedError:
                continue
            except OSError:
                return True
            return True
    return False


def _used_by_processes() -> set[str]:
    """Names of the sessions that a process names in its command line, works in, or holds a file of."""
    used = set()
    for process in Path("/proc").glob("[0-9]*"):
        words = ""
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace")
        links = [process / "cwd"]
        with contextlib.suppress(OSError):  # of another user
            links += list((process / "fd").iterdir())
        for link in links:
            with contextlib.suppress(OSError):
                words += f" {os.readlink(link)}"
        used |= {match[0] for match in _NAME.finditer(words)}
    return used
