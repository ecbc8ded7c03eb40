"""A folder, local or behind any fsspec URL, in which every file is either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from squadron.core.errors import InputError, ResourceError
from squadron.core.private_folder import private_folder
from squadron.core.remote_files import remote_state


class Folder:
    """A place for files, by local path or fsspec URL (`s3://…`, `gs://…`, `memory://…`).

    Writes are atomic: locally by rename, on object stores by their own put, so that a reader, or a restart after a
    kill, never sees half a file. Instances are plain values: they pickle and compare by URL.
    """

    def __init__(self, url: str | Path) -> None:
        text = str(url)
        if "://" in text and not text.startswith("file://"):
            self.url, self.path = text.rstrip("/"), ""
        else:
            self.path = os.path.abspath(text.removeprefix("file://"))
            self.url = self.path

    def __truediv__(self, name: str) -> Folder:
        return Folder(f"{self.url}/{name}")

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
                filesystem, root = self._filesystem()
                filesystem.makedirs(_parent(f"{root}/{name}"), exist_ok=True)
                filesystem.pipe_file(f"{root}/{name}", data)
                return
            target = Path(self.path, name)
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

    def append_line(self, name: str, line: str) -> None:
        """Add one line to a log; on object stores, which cannot append, by rewriting it."""
        if not self.path:
            old = self.read_bytes(name) if self.exists(name) else b""
            self.write_bytes(name, old + line.encode() + b"\n")
            return
        with explaining_disk_errors(self.file(name)):
            target = Path(self.path, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "ab") as stream:
                stream.write(line.encode() + b"\n")

    def read_bytes(self, name: str) -> bytes:
        """The bytes of a file. Raises InputError naming the file if it is not there."""
        try:
            with self.open(name) as stream:
                data: bytes = stream.read()
                return data
        except FileNotFoundError:
            raise InputError("file not found", where=self.file(name)) from None

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=1, allow_nan=True) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Parsed JSON. Raises InputError naming the file and the place where parsing stopped."""
        try:
            return json.loads(self.read_bytes(name))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"not valid JSON: {error}", where=self.file(name)) from None

    def read_lines(self, name: str) -> list[Any]:
        """JSON lines; a last line that a kill cut short is left out."""
        if not self.exists(name):
            return []
        rows = []
        for line in self.read_bytes(name).splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def find_json(self, name: str, default: Any) -> Any:
        """Parsed JSON, or `default` where there is no such file. Raises InputError as `read_json` does."""
        return self.read_json(name) if self.exists(name) else default

    def put(self, name: str, path: str) -> None:
        """Move a local file in, whole or not at all; for files too large to hold in memory."""
        with explaining_disk_errors(self.file(name)):
            if not self.path:
                filesystem, root = self._filesystem()
                filesystem.makedirs(_parent(f"{root}/{name}"), exist_ok=True)
                filesystem.put_file(path, f"{root}/{name}")
                os.unlink(path)
                return
            target = Path(self.path, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, f"{target}.tmp")
            os.replace(f"{target}.tmp", target)

    def fetch(self, name: str, into: str) -> str:
        """A local path of the file: its own, or a copy in the folder `into`. Raises FileNotFoundError."""
        if self.path:
            return os.path.join(self.path, name)
        filesystem, root = self._filesystem()
        path = os.path.join(into, name.replace("/", "--"))
        filesystem.get_file(f"{root}/{name}", path)
        return path

    def local(self, name: str) -> str:
        """A local path of the file: its own, or a copy that this node keeps for this user's processes, fetched once
        for each content that it has had.

        Raises FileNotFoundError.
        """
        if self.path:
            return os.path.join(self.path, name)
        filesystem, root = self._filesystem()
        filesystem.invalidate_cache()
        state = remote_state(filesystem, f"{root}/{name}")
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
            return open(Path(self.path, name), mode)
        filesystem, root = self._filesystem()
        stream: IO[Any] = filesystem.open(f"{root}/{name}", mode)
        return stream

    def exists(self, name: str = "") -> bool:
        if self.path:
            return Path(self.path, name).exists()
        filesystem, root = self._filesystem()
        return bool(filesystem.exists(f"{root}/{name}".rstrip("/")))

    def size(self, name: str) -> int:
        """Bytes in a file."""
        if self.path:
            return Path(self.path, name).stat().st_size
        filesystem, root = self._filesystem()
        return int(filesystem.size(f"{root}/{name}"))

    def ls(self) -> list[str]:
        """Names in this folder, sorted; empty if it is not there. Unfinished temporary files are left out."""
        if self.path:
            names = os.listdir(self.path) if os.path.isdir(self.path) else []
        else:
            filesystem, root = self._filesystem()
            filesystem.invalidate_cache()
            found = filesystem.ls(root, detail=False) if filesystem.exists(root) else []
            names = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in found]
        return sorted(name for name in names if not name.endswith(".tmp"))

    def walk(self) -> list[str]:
        """Paths of all files in this folder and below, sorted."""
        if self.path:
            found = [path.relative_to(self.path).as_posix() for path in Path(self.path).rglob("*") if path.is_file()]
            return sorted(name for name in found if not name.endswith(".tmp"))
        filesystem, root = self._filesystem()
        filesystem.invalidate_cache()
        start = root.lstrip("/")
        found = filesystem.find(root) if filesystem.exists(root) else []
        return sorted(str(entry).lstrip("/").removeprefix(start).lstrip("/") for entry in found)

    def remove(self, name: str = "") -> None:
        """Remove a file or a whole folder; nothing happens if it is not there."""
        import fsspec

        filesystem, root = self._filesystem() if not self.path else (fsspec.filesystem("file"), self.path)
        target = f"{root}/{name}".rstrip("/")
        if filesystem.exists(target):
            filesystem.rm(target, recursive=True)

    def make(self) -> Folder:
        """Create the folder if the store has folders, and say early if it cannot be written."""
        if self.path:
            with explaining_disk_errors(self.path):
                os.makedirs(self.path, exist_ok=True)
        return self

    def file(self, name: str) -> str:
        """The full path or URL of a file, for messages and for libraries that read URLs themselves."""
        return f"{self.url}/{name}" if name else self.url

    def _filesystem(self) -> tuple[Any, str]:
        import fsspec

        try:
            filesystem, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise InputError(
                f"no driver for this URL: {error}", where=self.url, fix="pip install the named fsspec driver"
            ) from None
        return filesystem, str(root).rstrip("/")


def relative(folder: Folder, run_folder: Folder, name: str = "") -> str:
    """The path of a stage's file, or of its folder, from the run folder."""
    return folder.file(name).removeprefix(run_folder.url).lstrip("/")


def _parent(path: str) -> str:
    return path.rsplit("/", 1)[0]


@contextlib.contextmanager
def explaining_disk_errors(where: str) -> Iterator[None]:
    """Turn a full, read-only or blocked disk into an error that names the place and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some space, then give the same command again: finished work is kept"
            raise ResourceError("the disk is full", where=where, fix=fix) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise ResourceError(
                "no permission to write", where=where, fix="choose another folder with --run"
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise InputError(f"a file stands where a folder should be ({error.strerror})", where=where) from error
        raise
