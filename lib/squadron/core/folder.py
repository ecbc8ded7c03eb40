"""A folder, local or behind any fsspec URL, in which every file is either whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from squadron.core.disk_errors import explaining_disk_errors
from squadron.core.errors import InputError
from squadron.core.json_text import from_json
from squadron.core.private_folder import private_folder
from squadron.core.remote_files import remote_state
from squadron.core.remote_store import ask_store, create_file, is_there, open_file, open_store, upload_file, write_file
from squadron.core.seals import seal, unseal

RESTORE = "restore it from a copy, or remove it and give the same command again"


class Folder:
    """A place for files, by local path or fsspec URL (`s3://…`, `gs://…`, `memory://…`).

    Writes are atomic: locally by rename, on object stores by their own put, so that a reader, or a restart after a
    kill, never sees half a file. Instances are plain values: they pickle and compare by URL.

    A name is that of a file in the folder or below it: one that leads out, such as `../x` or `/x`, is an InputError in
    every method. JSON objects are sealed: what is read is what was written, or an InputError.
    """

    def __init__(self, url: str | Path) -> None:
        text = str(url)
        if "://" in text and not text.startswith("file://"):
            self.url, self.path = text.rstrip("/"), ""
        else:
            self.path = os.path.abspath(text.removeprefix("file://"))
            self.url = self.path

    def __truediv__(self, name: str) -> Folder:
        """A folder in this one. Raises InputError as all methods do if the name leads out of it: names come from files,
        and files from anywhere."""
        return Folder(f"{self.url}/{_inside(name, self.url)}")

    def __repr__(self) -> str:
        return f"Folder({self.url!r})"

    def __str__(self) -> str:
        return self.url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folder) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all. Raises ResourceError if the disk is full or not writable."""
        with explaining_disk_errors(self.file(name)):
            if not self.path:
                write_file(self.file(name), *self._remote(name), data)
                return
            target = self._local(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
            try:
                with open(temporary, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def create_bytes(self, name: str, data: bytes) -> bool:
        """Write a file of a store that is not there yet, and return whether this call did: of several processes that
        try, one. `data` must be the caller's alone. Raises ResourceError as `write_bytes` does."""
        return create_file(self.file(name), *self._remote(name), data)

    def append_line(self, name: str, line: str) -> None:
        """As `append_lines`, with one."""
        self.append_lines(name, [line])

    def append_lines(self, name: str, lines: Sequence[str]) -> None:
        """Add lines to a log; on object stores, which cannot append, by rewriting it. What a kill has left of a line
        that it cut short is removed."""
        data = "".join(f"{line}\n" for line in lines).encode()
        if not self.path:
            old = self.read_bytes(name) if self.exists(name) else b""
            self.write_bytes(name, old[: old.rfind(b"\n") + 1] + data)
            return
        with explaining_disk_errors(self.file(name)):
            target = self._local(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "ab") as stream:
                if stream.tell() and not _ends_line(target):
                    stream.truncate(target.read_bytes().rfind(b"\n") + 1)
                stream.write(data)

    def read_bytes(self, name: str) -> bytes:
        """The bytes of a file. Raises InputError naming the file if it is not there or cannot be read."""
        with _explaining_unreadable(self.file(name)):
            if not self.path:
                found: bytes = self._ask(name, lambda filesystem, path: filesystem.cat_file(path))
                return found
            return self._local(name).read_bytes()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object with a seal. Raises TypeError for anything else: it could carry none."""
        if not isinstance(value, Mapping):
            raise TypeError(f"{name} must be an object to be sealed, not a {type(value).__name__}")
        self.write_bytes(name, seal(json.dumps(value, indent=1, allow_nan=True).encode()) + b"\n")

    def read_json(self, name: str, fix: str = RESTORE) -> dict[str, Any]:
        """The object that `write_json` wrote. Raises InputError, with what to do, if the file is not there, or what is
        in it is not what was written."""
        data = self.read_bytes(name)
        try:
            return unseal(data)
        except ValueError as error:
            raise InputError(f"the file is damaged: {error}", where=self.file(name), fix=fix) from None

    def read_lines(self, name: str) -> list[Any]:
        """JSON lines; a last line that a kill cut short is left out."""
        if not self.exists(name):
            return []
        rows = []
        for line in self.read_bytes(name).splitlines():
            with contextlib.suppress(ValueError):
                rows.append(from_json(line))
        return rows

    def find_json(self, name: str, default: Mapping[str, Any]) -> dict[str, Any]:
        """As `read_json`, or `default` where there is no such file."""
        return self.read_json(name) if self.exists(name) else dict(default)

    def put(self, name: str, path: str) -> None:
        """Move a local file in, whole or not at all; for files too large to hold in memory."""
        with explaining_disk_errors(self.file(name)):
            if not self.path:
                upload_file(self.file(name), *self._remote(name), path)
                os.unlink(path)
                return
            target = self._local(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, f"{target}.tmp")
            os.replace(f"{target}.tmp", target)

    def fetch(self, name: str, into: str) -> str:
        """A local path of the file: its own, or a copy in the folder `into`. Raises FileNotFoundError."""
        if self.path:
            return str(self._local(name))
        path = os.path.join(into, name.replace("/", "--"))
        self._ask(name, lambda filesystem, place: filesystem.get_file(place, path))
        return path

    def local(self, name: str) -> str:
        """A local path of the file: its own, or a copy that this node keeps for this user's processes, fetched once
        for each content that it has had.

        Raises FileNotFoundError.
        """
        if self.path:
            return str(self._local(name))
        state = self._ask(name, remote_state)
        key = hashlib.sha256(json.dumps([self.file(name), state]).encode()).hexdigest()[:32]
        place = os.path.join(private_folder("files"), key)
        path = os.path.join(place, name.rpartition("/")[2])
        if not os.path.exists(path):
            os.makedirs(place, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place) as scratch:
                os.replace(self.fetch(name, scratch), path)
        return path

    def open(self, name: str, mode: str = "rb") -> IO[Any]:
        """Open a file for reading; writing goes through `write_bytes`, which is atomic."""
        if mode not in ("r", "rb"):
            raise ValueError("Folder.open reads; use write_bytes to write atomically")
        if self.path:
            return open(self._local(name), mode)
        stream = open_file(self.file(name), *self._remote(name))
        return stream if mode == "rb" else io.TextIOWrapper(stream, "utf-8")

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder that can be reached."""
        if self.path:
            return os.path.exists(self._local(name))
        return is_there(self.file(name), *self._remote(name))

    def size(self, name: str) -> int:
        """Bytes in a file."""
        if self.path:
            return self._local(name).stat().st_size
        return int(self._ask(name, lambda filesystem, path: filesystem.size(path)))

    def ls(self) -> list[str]:
        """Names in this folder, sorted; empty if it is not there. Unfinished temporary files are left out."""
        if self.path:
            with _explaining_unreadable(self.url):
                names = os.listdir(self.path) if os.path.isdir(self.path) else []
        else:
            try:
                found = self._ask("", lambda filesystem, root: filesystem.ls(root, detail=False))
            except FileNotFoundError:
                found = []
            names = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in found]
        return sorted(name for name in names if not name.endswith(".tmp"))

    def walk(self) -> list[str]:
        """Paths of all files in this folder and below, sorted."""
        if self.path:
            found = [path.relative_to(self.path).as_posix() for path in Path(self.path).rglob("*") if path.is_file()]
            return sorted(name for name in found if not name.endswith(".tmp"))
        start = self._remote("")[1].lstrip("/")
        try:
            found = self._ask("", lambda filesystem, root: filesystem.find(root))
        except FileNotFoundError:
            found = []
        return sorted(str(entry).lstrip("/").removeprefix(start).lstrip("/") for entry in found)

    def remove(self, name: str = "") -> None:
        """Remove a file or a whole folder; nothing happens if it is not there."""
        if not self.path:
            with contextlib.suppress(FileNotFoundError):
                self._ask(name, lambda filesystem, path: filesystem.rm(path, recursive=True))
            return
        target = self._local(name)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def make(self) -> Folder:
        """Create the folder if the store has folders, and say early if it cannot be written."""
        if self.path:
            with explaining_disk_errors(self.path):
                os.makedirs(self.path, exist_ok=True)
        return self

    def file(self, name: str) -> str:
        """The full path or URL of a file, for messages and for libraries that read URLs themselves."""
        return f"{self.url}/{_inside(name, self.url)}" if name else self.url

    def _local(self, name: str) -> Path:
        return Path(self.path, _inside(name, self.url))

    def _remote(self, name: str) -> tuple[Any, str]:
        filesystem, root = open_store(self.url)
        return filesystem, f"{root}/{_inside(name, self.url)}".rstrip("/")

    def _ask(self, name: str, ask: Callable[[Any, str], Any]) -> Any:
        """What the file system behind the URL answers of a file. Raises as `ask_store` does."""
        filesystem, path = self._remote(name)
        return ask_store(self.file(name), lambda: ask(filesystem, path))


def relative(folder: Folder, run_folder: Folder, name: str = "") -> str:
    """The path of a stage's file, or of its folder, from the run folder."""
    return folder.file(name).removeprefix(run_folder.url).lstrip("/")


def _inside(name: str, folder: str) -> str:
    """The name, if it is that of something in a folder or below. Raises InputError if it leads out."""
    parts = name.split("/")
    if name and (".." in parts or parts[0] == "" or "\0" in name):
        fix = "whoever made this folder must name files inside of it"
        raise InputError(f"the name {name!r} leads out of its folder", where=folder, fix=fix)
    return name


def _ends_line(path: Path) -> bool:
    with open(path, "rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


@contextlib.contextmanager
def _explaining_unreadable(where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError("file not found", where=where) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=where, fix=RESTORE) from None
