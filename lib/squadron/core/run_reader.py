"""What a finished run left behind, for whoever goes on with it."""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from squadron.core.config import Config, read_config
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import Folder
from squadron.core.manifest import check_manifest

RecordT = TypeVar("RecordT", bound=Config)
_FIX = "run the job again with this version"


def outputs(folder: Folder, stage: str, kind: type[RecordT]) -> list[RecordT]:
    """What the stages of this name returned in the last run of a folder, in the order in which they ran.

    Raises InputError if none has finished, or what one returned is not of this kind.
    """
    names = check_manifest(folder).get("stages") or []
    mine = [folder / "stages" / name for name in names if name.rpartition("-")[0] == stage]
    done = [one for one in mine if one.exists("done.json")]
    if not done:
        fix = "run the job to its end first"
        raise InputError(f"the stage {stage} has not finished", where=str(folder), fix=fix)
    return [_read(kind, one.read_json("done.json")["output"], one.file("done.json")) for one in done]


def settings(folder: Folder, kind: type[RecordT]) -> RecordT:
    """The settings that a run was given. Raises InputError if they cannot be read, or are not what this version
    knows."""
    where = folder.file("config.yaml")
    try:
        return read_config(kind, folder.read_bytes("config.yaml"), where)
    except ConfigError as error:
        what = f"not what this version writes: {error.what}"
        raise InputError(what, where=error.where or where, fix=_FIX) from None


def _read(kind: type[RecordT], values: object, where: str) -> RecordT:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"written by another version: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(what, where=where, fix=_FIX) from None
