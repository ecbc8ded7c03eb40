"""The run folder: how fast, how full, whether files are replaced whole, and who sees it."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from squadron.cluster.doctor.finding import Finding, failed, ok, warning
from squadron.core.errors import SquadronError
from squadron.core.folder import Folder

_LARGE, _SMALL, _FILES, _REPLACES = 8 * 2**20, 4096, 16, 20
_LEAST_FREE_GB = 2.0
_SLOW_FILE_S, _SLOW_LIST_S, _SLOW_MB_S = 0.2, 1.0, 20.0


@dataclass(frozen=True)
class Storage:
    """What using a folder takes from one machine. Times in seconds."""

    error: str = ""  # why it cannot be used
    write_mb_s: float = 0.0  # of a file of 8 MiB, until it is on disk
    read_mb_s: float = 0.0  # of the same; a local disk reads it from memory
    file_s: float = 0.0  # to write a small file whole: write, fsync, rename
    fsync_s: float | None = None  # of it the fsync; None behind a URL
    rename_s: float | None = None
    list_s: float = 0.0
    torn: int = 0  # how often a reader saw half a file, or none, while it was replaced
    free_gb: float | None = None


def measure_storage(url: str) -> Storage:
    """Use the folder as a run does, from this machine, and remove what that has left."""
    folder = Folder(url) / f".doctor-{uuid.uuid4().hex[:12]}"
    try:
        return _measure(folder)
    except (SquadronError, OSError) as error:
        return Storage(error=error.what if isinstance(error, SquadronError) else error.strerror or str(error))
    except Exception as error:  # a store's driver raises what it likes
        return Storage(error=f"{type(error).__name__}: {str(error)[:300]}")
    finally:
        with contextlib.suppress(Exception):
            folder.remove()


def check_storage(storage: Storage, url: str) -> Finding:
    """Whether runs can live there, and are not slowed by it."""
    if storage.error:
        fix = "give another folder with --run, or grant this user, and the credentials of its environment, to write it"
        return failed("run folder", f"{url} cannot be used: {storage.error}", fix)
    told = _describe(storage)
    if storage.torn:
        text = f"a file was seen half {storage.torn} times while it was replaced; {told}"
        return failed("run folder", text, "use a disk that renames in one step, or an object store by its URL")
    if storage.free_gb is not None and storage.free_gb < _LEAST_FREE_GB:
        return failed(
            "run folder", f"only {storage.free_gb:.1f} GiB are free; {told}", "free some space, or give another"
        )
    slow = [
        name
        for name, is_slow in (
            ("small files", storage.file_s > _SLOW_FILE_S),
            ("listing", storage.list_s > _SLOW_LIST_S),
            ("writing", storage.write_mb_s < _SLOW_MB_S),
            ("reading", storage.read_mb_s < _SLOW_MB_S),
        )
        if is_slow
    ]
    if slow:
        fix = "put runs on a nearer disk or store; larger batches write fewer files"
        return warning("run folder", f"slow: {', '.join(slow)}; {told}", fix)
    return ok("run folder", told)


def check_shared(sees: Mapping[str, str], url: str) -> list[Finding]:
    """A finding for each node that does not see what the driver wrote, or whose own file the driver does not see: by
    node, what was wrong, empty if nothing was."""
    blind = [
        failed("shared folder", f"{url}: {wrong}", "give a folder that all nodes share, or mount it on this one").on(
            node
        )
        for node, wrong in sees.items()
        if wrong
    ]
    return blind or [ok("shared folder", f"{len(sees)} nodes see {url}, and write in it")]


def see(url: str, token: str, own: str) -> str:
    """What is wrong with the folder from here: the driver has put a token there, and this node puts its own file there.
    Empty if nothing is."""
    folder = Folder(url)
    try:
        if not folder.exists("token") or folder.read_bytes("token").decode() != token:
            return "it does not show what another node has written there"
        folder.write_bytes(own, token.encode())
    except SquadronError as error:
        return error.what
    except Exception as error:  # a store's driver raises what it likes
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


def _measure(folder: Folder) -> Storage:
    folder.make()
    large, small = os.urandom(_LARGE), os.urandom(_SMALL)
    write_s = _timed(lambda: folder.write_bytes("large", large))
    read_s = _timed(lambda: folder.read_bytes("large"))
    each = [_timed(lambda name=name: folder.write_bytes(f"small-{name}", small)) for name in range(_FILES)]  # type: ignore[misc]
    list_s = _timed(folder.ls)
    fsync_s, rename_s = _local_steps(Path(folder.path), small) if folder.path else (None, None)
    return Storage(
        write_mb_s=_LARGE / 2**20 / write_s,
        read_mb_s=_LARGE / 2**20 / read_s,
        file_s=statistics.median(each),
        fsync_s=fsync_s,
        rename_s=rename_s,
        list_s=list_s,
        torn=count_torn(folder),
        free_gb=shutil.disk_usage(folder.path).free / 2**30 if folder.path else None,
    )


def _local_steps(place: Path, data: bytes) -> tuple[float, float]:
    """Medians of the times of an fsync and of a rename over another file."""
    syncs, renames = [], []
    for _ in range(5):
        with open(place / "step", "wb") as stream:
            stream.write(data)
            stream.flush()
            syncs.append(_timed(lambda stream=stream: os.fsync(stream.fileno())))  # type: ignore[misc]
        renames.append(_timed(lambda: os.replace(place / "step", place / "steps")))
    return statistics.median(syncs), statistics.median(renames)


def count_torn(folder: Folder) -> int:
    """How often a reader sees neither the old nor the new content of a file that is replaced again and again."""
    contents = [bytes([number]) * 2**16 for number in range(2)]
    folder.write_bytes("replaced", contents[0])
    over, torn = threading.Event(), 0

    def read() -> None:
        nonlocal torn
        while not over.is_set():
            try:
                torn += folder.read_bytes("replaced") not in contents
            except SquadronError:
                torn += 1

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    for number in range(_REPLACES):
        folder.write_bytes("replaced", contents[number % 2])
    over.set()
    reader.join(timeout=10)
    return torn


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return max(time.perf_counter() - started, 1e-9)


def _describe(storage: Storage) -> str:
    parts = [
        f"writes {storage.write_mb_s:.0f} and reads {storage.read_mb_s:.0f} MiB/s",
        f"a small file in {1000 * storage.file_s:.1f} ms",
    ]
    if storage.fsync_s is not None and storage.rename_s is not None:
        parts.append(f"of it fsync {1000 * storage.fsync_s:.1f} and rename {1000 * storage.rename_s:.2f} ms")
    parts.append(f"lists in {1000 * storage.list_s:.1f} ms")
    if storage.free_gb is not None:
        parts.append(f"{storage.free_gb:.0f} GiB free")
    return ", ".join(parts)
