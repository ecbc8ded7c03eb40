"""Files and folders that a run reads from outside, known by their content.

A setting of type `InputPath` is written and used as a path. What it stands for in a fingerprint is its content: a copy
elsewhere, or a later time of change, is the same input; one changed byte makes another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from squadron.core import hub
from squadron.core.digests import Known, digest_local
from squadron.core.errors import InputError
from squadron.core.folder import Folder
from squadron.core.remote_files import remote_state
from squadron.core.remote_store import ask_store, open_store

_LARGE_BYTES = 64 * 2**20
_REMEMBERED, _COMMITS = "inputs.json", "commits.json"
_FILES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".parquet", ".csv", ".txt", ".map", ".scen", ".xml",
          ".yaml", ".arrow", ".safetensors", ".jinja")  # fmt: skip
_known: Known = {}
"""Digests of large files by path, each with what `stat` said when it was read."""


class InputPath(str):
    """A file or folder by path or fsspec URL, or the name of something on a hub, that a stage reads.

    A subclass says of which kind it is on the hub, and which files of a folder its reader reads.
    """

    hub_kind: ClassVar[hub.Kind] = "models"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(str)
        return core_schema.no_info_after_validator_function(cls._named, core_schema.str_schema(), serialization=written)

    @classmethod
    def _named(cls, text: str) -> InputPath:
        """The path that a setting names: a leading `~` is home, and `file:///` a path of this machine."""
        if not text.strip() or "\0" in text:
            raise ValueError("no file, folder or model has such a name")
        return cls(os.path.expanduser(text.removeprefix("file://") if text.startswith("file:///") else text))

    def __reduce__(self) -> tuple[Any, ...]:
        """What is known of it travels along: a worker need not read the weights of a model to know which it is."""
        place = os.path.abspath(self.local)
        under = {path: entry for path, entry in _known.items() if path == place or path.startswith(f"{place}{os.sep}")}
        commits = {
            key: commit
            for key, commit in (hub.commits | hub.settled).items()
            if key.startswith(f"{self.hub_kind}/{self}@")
        }
        return _rebuild, (type(self), str(self), under, commits)

    @classmethod
    def reads(cls, name: str) -> bool:
        """Whether the file of this name in a folder, relative to it, is read by anybody: hidden files, READMEs and
        copies that editors keep are not."""
        return not (name.startswith(".") or "/." in name or name.endswith((".md", "~", ".tmp")))

    @classmethod
    def enters(cls, name: str) -> bool:
        """Whether a folder in a folder holds files that may be read."""
        return not name.rpartition("/")[2].startswith(".")

    @property
    def is_local(self) -> bool:
        """Whether there is such a file or folder on this machine."""
        return os.path.exists(self.local)

    @property
    def local(self) -> str:
        """The path on this machine, with a leading `~` and `file://` resolved."""
        return os.path.expanduser(self.removeprefix("file://"))

    @property
    def is_missing(self) -> bool:
        """Whether it can only be meant for a file or folder of this machine, and there is none. A bare name may be a
        model or data set of a hub."""
        meant = self.startswith(("/", ".", "~", "file://")) or self.endswith(_FILES)
        return meant and "://" not in self.removeprefix("file://") and not self.is_local

    def identity(self, revision: str | None = None) -> Any:
        """JSON that stands for the content: of a local file its SHA-256, of a local folder those of the files that are
        read, of a URL what its file system tells of each file, such as an ETag, of a name on the hub the commit of the
        revision. What is none of these stands for itself by name.

        Raises InputError for a file that cannot be read.
        """
        if self.is_local:
            base = self._adapted()
            return {"content": self._digest()} | ({} if base is None else {"base": base.identity()})
        if "://" in self:
            return {"url": str(self), "files": _describe_url(self, self.reads)}
        commit = None if self.is_missing else hub.find_commit(self.hub_kind, str(self), revision)
        return str(self) if commit is None else {"hub": str(self), "commit": commit}

    def _adapted(self) -> InputPath | None:
        """The model that a folder with an adapter names, and that is loaded with it."""
        note = os.path.join(self.local, "adapter_config.json")
        if not self.reads("adapter_config.json") or not os.path.isfile(note):
            return None
        with contextlib.suppress(OSError, ValueError, AttributeError), open(note, encoding="utf-8") as stream:
            base = InputPath(json.load(stream).get("base_model_name_or_path") or self)
            return None if os.path.isfile(os.path.join(base.local, "adapter_config.json")) else base
        return None

    def _digest(self) -> str:
        place = self.local
        try:
            if not os.path.isdir(place):
                return _digest_file(place)
            names = sorted(name for name in _walk(place, self.enters) if self.reads(name))
            return _hash([[name, _digest_file(os.path.join(place, name))] for name in names])
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=error.filename or place) from None


def walk_settings(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every single setting in a structure of configurations, in the order of their fields, with its `a.b.0.c` key."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, BaseModel):
        items = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        yield key, value
        return
    for name, item in items:
        yield from walk_settings(item, f"{key}.{name}" if key else str(name))


def find_inputs(value: Any) -> Iterator[tuple[str, InputPath]]:
    """The input paths in a structure of configurations, each with its key."""
    return ((key, leaf) for key, leaf in walk_settings(value) if isinstance(leaf, InputPath))


def check_inputs(config: BaseModel) -> None:
    """Raise InputError if a file or folder that a configuration names is not there."""
    missing = [(key, path) for key, path in find_inputs(config) if path.is_missing]
    if missing:
        where = "; ".join(f"{key}: {path}" for key, path in missing)
        raise InputError("no such file or folder", where=where, fix="correct the path")


def replace_paths(value: Any, moved: Mapping[str, str]) -> Any:
    """The same JSON with paths that were moved, relative or absolute, at their new places."""
    absolute = {os.path.abspath(old): os.path.abspath(new) for old, new in moved.items()}
    return _replace(value, {old: new for old, new in (absolute | dict(moved)).items() if old != new})


def _replace(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replace(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, texts) for item in value]
    return texts.get(value, value) if isinstance(value, str) else value


def remember(folder: Folder) -> None:
    """Keep the digests of large files in a run folder, so that they need not be read again at every start, and the
    commits of the hub, which may not be reached then."""
    large = {path: entry for path, entry in _known.items() if entry[0][0] >= _LARGE_BYTES}
    if large:
        folder.write_json(_REMEMBERED, large)
    if hub.commits:
        folder.write_json(_COMMITS, hub.commits)


def recall(folder: Folder) -> None:
    """Take up what an earlier run in this folder remembered. A damaged file counts as none: inputs are read again."""
    with contextlib.suppress(InputError):
        found = folder.find_json(_REMEMBERED, {})
        for path, entry in found.items() if isinstance(found, dict) else ():
            match entry:
                case [[int(), int(), int(), int()] as status, str(digest)]:
                    _known.setdefault(path, (status, digest))
    with contextlib.suppress(InputError):
        commits = folder.find_json(_COMMITS, {})
        for key, commit in commits.items() if isinstance(commits, dict) else ():
            if isinstance(commit, str):
                hub.commits.setdefault(key, commit)


def _rebuild(
    kind: type[InputPath], path: str, known: Mapping[str, tuple[list[int], str]], commits: Mapping[str, str]
) -> InputPath:
    for file, entry in known.items():
        _known.setdefault(file, entry)
    hub.settled.update(commits)
    return kind(path)


def _digest_file(path: str) -> str:
    path = os.path.abspath(path)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise InputError("neither a file nor a folder: it could be read but once", where=path, fix="save it as a file")
    return digest_local(path, _known)


def _walk(folder: str, enters: Callable[[str], bool]) -> Iterator[str]:
    """The files of a folder and of those below that it `enters`, relative to it; links to folders are followed, each
    folder once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if enters(os.path.relpath(os.path.join(place, name), folder)))
        for name in files:
            path = os.path.join(place, name)
            if os.path.isfile(path):
                yield os.path.relpath(path, folder)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _describe_url(url: str, reads: Callable[[str], bool]) -> list[list[Any]]:
    """Name and state of each file behind a URL; empty where there is none, which reading it will tell.

    Raises ResourceError if its store cannot be used: a stage must not be taken for another because of that.
    """
    filesystem, place = open_store(url)

    def describe() -> list[list[Any]]:
        found = filesystem.find(place, detail=True)
        named = [(path.removeprefix(place).lstrip("/"), path) for path in sorted(found)]
        return [[name, remote_state(filesystem, path, found[path])] for name, path in named if not name or reads(name)]

    with contextlib.suppress(FileNotFoundError):
        return ask_store(url, describe)
    return []
