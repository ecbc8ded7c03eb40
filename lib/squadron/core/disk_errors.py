"""What a disk or a store says when it cannot be used, in words: full, read-only, blocked, out of reach."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from squadron.core.errors import InputError, ResourceError, SquadronError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
_BLOCKED = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_FAILING = (errno.EIO, errno.ESTALE, errno.ENXIO)
_STORES = {"botocore", "s3fs", "gcsfs", "adlfs", "azure", "google", "aiohttp", "fsspec", "paramiko", "requests"}
"""Packages that reach stores behind URLs; each has errors of its own."""
_PLAIN = (FileNotFoundError, FileExistsError)
"""What stores say of files that are, or are not, there."""
_KEPT = "then give the same command again: finished work is kept"


@contextlib.contextmanager
def explaining_disk_errors(where: str) -> Iterator[None]:
    """Turn an error of the disk or store that holds `where` into one that names the place and what to do."""
    try:
        yield
    except NotImplementedError as error:
        if "://" not in where:
            raise
        fix = "give a folder, or the URL of a store, such as s3://bucket/runs"
        raise InputError("nothing can be written behind this kind of URL", where=where, fix=fix) from error
    except Exception as error:
        told = explain_disk_error(error, where)
        if told is None:
            raise
        raise told from error


def explain_disk_error(error: BaseException, where: str = "") -> SquadronError | None:
    """What the error of a disk or store means, and what to do; None for any other error. Without `where`, the file that
    the error itself names is told."""
    if isinstance(error, SquadronError) or ("://" in where and isinstance(error, _PLAIN)):
        return None
    code, place = _code(error), where or _named(error)
    if is_full(error):
        return ResourceError("the disk is full", where=place, fix=f"free some space, {_KEPT}")
    if code == errno.EFBIG:
        fix = f"raise it with `ulimit -f unlimited`, {_KEPT}"
        return ResourceError("a file would be larger than this process may write", where=place, fix=fix)
    if code in _FORBIDDEN or isinstance(error, PermissionError):
        what = "the disk is read-only" if code == errno.EROFS else "no permission to read or write"
        return ResourceError(what, where=place, fix="give another path, or yourself the right to this one")
    if code in _BLOCKED:
        return _blocked(place)
    if code == errno.ENAMETOOLONG:
        return InputError("the path is too long", where=_shortened(place), fix="give a shorter one with --run")
    if code == errno.ELOOP:
        return InputError("a link leads back to itself", where=place, fix="remove it, or give another path")
    if is_of_store(error) or ("://" in where and isinstance(error, OSError)):
        fix = f"look after the address, the network and the credentials, {_KEPT}"
        return ResourceError(f"the store cannot be used: {_text(error)}", where=place, fix=fix)
    if code in _FAILING:
        fix = f"look after the disk or its server, {_KEPT}"
        return ResourceError(f"the disk does not answer as it should: {_text(error)}", where=place, fix=fix)
    if code in (errno.EMFILE, errno.ENFILE):
        fix = f"raise the limit with `ulimit -n 65536`, {_KEPT}"
        return ResourceError("too many files are open", where=place, fix=fix)
    return None


def is_full(error: BaseException) -> bool:
    """Whether no more can be written to a disk: nothing that was to be written is at fault."""
    return _code(error) in _FULL


def _code(error: BaseException) -> int | None:
    """The number of a system's error; libraries in Rust tell it in the text of errors of their own."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


def _named(error: BaseException) -> str:
    name = error.filename if isinstance(error, OSError) else None
    return os.fsdecode(name) if isinstance(name, str | bytes) else ""


def _blocked(place: str) -> InputError:
    """What stands where a folder, or a file, should be: the path's first part that is no folder."""
    parts = place.split("/")
    for count in range(1, len(parts) + 1):
        part = "/".join(parts[:count]) or "/"
        if os.path.lexists(part) and not os.path.isdir(part):
            if os.path.islink(part):
                return InputError("a link leads nowhere", where=part, fix="remove it, or make what it leads to")
            fix = "move it away, or give another path"
            return InputError("a file stands where a folder should be", where=part, fix=fix)
    fix = "move it away, or give another path"
    return InputError("a folder stands where a file should be", where=place, fix=fix)


def is_of_store(error: BaseException) -> bool:
    """Whether a package that reaches stores behind URLs has raised it."""
    return any(kind.__module__.partition(".")[0] in _STORES for kind in type(error).__mro__)


def _text(error: BaseException) -> str:
    """The error's first line, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shortened(path: str) -> str:
    return path if len(path) <= 120 else f"{path[:60]}…{path[-40:]}"
