"""Folders of this user alone, for copies that the processes of a machine share.

Their names can be foretold, so on a machine with several users somebody else may have made one beforehand, or put a
link there. Such a folder is not used.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from squadron.core.errors import ResourceError


def private_folder(name: str) -> str:
    """The path of a folder that only this user can look into, made if it is not there: on this machine's own disk for
    temporary files, else under `~/.cache`.

    Raises ResourceError if neither can be had.
    """
    roots = (
        os.path.join(tempfile.gettempdir(), f"squadron-{os.geteuid()}"),
        os.path.expanduser("~/.cache/squadron/private"),
    )
    for root in roots:
        place = os.path.join(root, name)
        if _is_private(root) and _is_private(place):
            return place
    fix = "let TMPDIR name a folder in which you may write"
    raise ResourceError("there is no folder for copies that is yours alone", where=", ".join(roots), fix=fix)


def _is_private(path: str) -> bool:
    """Whether there is a folder at the path, made here if need be, which is this user's and no link, and which nobody
    else could and can enter."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return False
        if found.st_mode & 0o077:
            os.chmod(path, 0o700)
    except OSError:
        return False
    return True
