"""Who may write into a run folder: one process at a time.

A local folder is locked by the system, which lets go when the process ends. A store knows no processes, so its folder
has leases:

    .lease/00000003.json    {holder, since, beat, token}: the lease of the highest number holds

A lease is made by a put that fails where the file is there, so of two processes one has it. Its holder counts `beat` up
every few seconds. Whoever finds a lease watches it: one that beats is in use; one that stands still for `STALE_S` is
left over from a process that is gone, and the next number is taken. The time is taken by the clock of the one that
waits: clocks of two machines are never compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from squadron.core import console
from squadron.core.disk_errors import explaining_disk_errors
from squadron.core.errors import InputError, ResourceError, SquadronError
from squadron.core.folder import Folder
from squadron.core.seals import seal

LEASES = ".lease"
BEAT_S, STALE_S = 5.0, 30.0
_FIX = "wait for it, stop it, or choose another folder with --run"


class Lease:
    """The right to write into a store's folder, renewed by a thread until it is closed."""

    def __init__(self, folder: Folder) -> None:
        """Raises ResourceError, with the holder and since when, if another process is at work there."""
        self._folder, self._leases = folder, folder / LEASES
        self._about = {"holder": _here(), "since": _now(), "token": uuid.uuid4().hex}
        self._beat, self._renewed_at = 0, time.monotonic()
        self._taken_by = ""
        self._ended = threading.Event()
        known = self._leases.ls()
        if known:
            _await_end(self._leases, known[-1])
        self._name = f"{int(known[-1].partition('.')[0]) + 1 if known else 1:08d}.json"
        if not self._leases.create_bytes(self._name, self._line()):
            raise _in_use(self._leases, self._leases.read_json(self._name))
        for name in known:
            self._leases.remove(name)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise ResourceError if another process has taken over, as it may once this one has not renewed its lease for
        `STALE_S`."""
        if not self._taken_by and time.monotonic() - self._renewed_at > STALE_S / 2:
            self._look()
        if self._taken_by:
            what = f"this process did not write for {STALE_S:g} s, and another took over: {self._taken_by}"
            raise ResourceError(what, where=str(self._folder), fix="let the other one finish")

    def close(self) -> None:
        """Stop renewing, and let the next one in at once."""
        self._ended.set()
        self._thread.join(timeout=2 * BEAT_S)
        if not self._taken_by:
            with contextlib.suppress(SquadronError):  # it will be found stale
                self._about["released"] = _now()
                self._leases.write_bytes(self._name, self._line())

    def _renew(self) -> None:
        while not self._ended.wait(BEAT_S) and not self._taken_by:
            with contextlib.suppress(SquadronError, FileNotFoundError):  # the next beat may come through
                self._look()
                if not self._taken_by:
                    self._beat += 1
                    self._leases.write_bytes(self._name, self._line())
                    self._renewed_at = time.monotonic()

    def _look(self) -> None:
        last = self._leases.ls()[-1:]
        if last and last[0] > self._name:
            self._taken_by = _holder(self._leases.find_json(last[0], {}))

    def _line(self) -> bytes:
        return seal(json.dumps(self._about | {"beat": self._beat}).encode()) + b"\n"


def lock(folder: Folder) -> Lease | Any:
    """Hold a run folder for this process until it is closed. Raises ResourceError if another process does."""
    if not folder.path:
        return Lease(folder)
    import fcntl

    with explaining_disk_errors(folder.file(".lock")):
        stream = open(f"{folder.path}/.lock", "w")  # noqa: SIM115 - held until the run closes
    for wait_s in (0.05, 0.05, None):  # one that only looks whether the folder is locked is done at once
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait_s is not None:
                time.sleep(wait_s)
                continue
            stream.close()
            raise ResourceError("another process is running in this folder", where=str(folder), fix=_FIX) from None
        except OSError:
            with contextlib.suppress(OSError):
                stream.close()
            return None
        break
    return stream


def is_held(folder: Folder) -> bool:
    """Whether a process is at work in a run folder. Behind a URL it takes two beats to tell one from a process that was
    killed."""
    if not folder.path:
        leases = folder / LEASES
        known = leases.ls()
        found = _read(leases, known[-1]) if known else {}
        if not found or found.get("released") or _is_gone(found):
            return False
        time.sleep(2 * BEAT_S)
        now = _read(leases, leases.ls()[-1])
        return (
            bool(now) and not now.get("released") and (now.get("token"), now["beat"]) != (found["token"], found["beat"])
        )
    import fcntl

    try:
        with open(f"{folder.path}/.lock") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody has ever locked it, or it cannot be locked
        return False
    return False


def _await_end(leases: Folder, name: str) -> None:
    """Return once this lease holds no more. Raises ResourceError as soon as its holder is seen to be at work."""
    found, since = _read(leases, name), time.monotonic()
    while not (found.get("released") or _is_gone(found)):
        if time.monotonic() - since >= STALE_S:
            console.say(f"[yellow]{console.plain(_holder(found))} left this folder without closing it[/yellow]")
            return
        time.sleep(BEAT_S / 5)
        now = _read(leases, name)
        if now.get("beat", 0) > found.get("beat", 0):
            raise _in_use(leases, now)
        if now.get("released") or not now:
            return


def _read(leases: Folder, name: str) -> dict[str, Any]:
    """A lease; empty if it is gone or damaged."""
    with contextlib.suppress(InputError):
        return leases.read_json(name)
    return {}


def _in_use(leases: Folder, found: Mapping[str, Any]) -> ResourceError:
    what = f"another process is running in this folder: {_holder(found)}"
    return ResourceError(what, where=leases.url.removesuffix(f"/{LEASES}"), fix=_FIX)


def _holder(found: Mapping[str, Any]) -> str:
    who = found.get("holder") or {}
    return f"process {who.get('pid')} on {who.get('host')} since {found.get('since')}"


def _here() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "system": _system(), "started": _started(os.getpid())}


def _system() -> str:
    """What tells the processes of this machine, or container, from those of all others; empty if nothing does."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _started(pid: int) -> str:
    """When a process of this machine started, in ticks since its boot; empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _is_gone(found: Mapping[str, Any]) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    who = found.get("holder") or {}
    return bool(who.get("system")) and who["system"] == _system() and _started(int(who["pid"])) != who["started"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
