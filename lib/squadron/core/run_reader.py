"""What a run left behind, for whoever goes on with it or shows it. Damage is an InputError that names the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from squadron.core.config import Config, read_config
from squadron.core.errors import ConfigError, InputError
from squadron.core.folder import RESTORE, Folder
from squadron.core.line_log import read_rows
from squadron.core.manifest import check_manifest
from squadron.core.marker import ENTER_AGAIN, FAILURES, HEADLINES, MARKER, PANELS, START_OVER, check_files, read_marker
from squadron.core.seals import unseal_yaml

if TYPE_CHECKING:
    from squadron.core.panels import Panel

RecordT = TypeVar("RecordT", bound=Config)
_FIX = "run the job again with this version"
_HEADLINES: TypeAdapter[list[tuple[str, str]]] = TypeAdapter(list[tuple[str, str]])


def outputs(folder: Folder, stage: str, kind: type[RecordT]) -> list[RecordT]:
    """What the stages of this name returned in the last run of a folder, in the order in which they ran.

    Raises InputError if none has finished, or what one returned is not of this kind.
    """
    names = check_manifest(folder).get("stages") or []
    mine = [folder / "stages" / name for name in names if name.rpartition("-")[0] == stage]
    done = [one for one in mine if one.exists(MARKER)]
    if not done:
        fix = "run the job to its end first"
        raise InputError(f"the stage {stage} has not finished", where=str(folder), fix=fix)
    return [_read_whole(kind, one) for one in done]


def settings(folder: Folder, kind: type[RecordT]) -> RecordT:
    """The settings that a run was given. Raises InputError if they cannot be read, or are not what this version
    knows."""
    where = folder.file("config.yaml")
    try:
        return read_config(kind, read_config_yaml(folder), where)
    except ConfigError as error:
        what = f"not what this version writes: {error.what}"
        raise InputError(what, where=error.where or where, fix=_FIX) from None


def read_config_yaml(folder: Folder) -> bytes:
    """The text of the settings that a run was given. Raises InputError if it is damaged."""
    try:
        return unseal_yaml(folder.read_bytes("config.yaml"))
    except ValueError as error:
        raise InputError(f"the file is damaged: {error}", where=folder.file("config.yaml"), fix=RESTORE) from None


def read_output(kind: type[RecordT], values: object, stage: Folder) -> RecordT:
    """What a finished stage returned. Raises InputError if it is not of this kind."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"written by another version: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InputError(what, where=stage.file(MARKER), fix=_FIX) from None


def _read_whole(kind: type[RecordT], stage: Folder) -> RecordT:
    marker = read_marker(stage)
    check_files(stage, marker)
    return read_output(kind, marker.output, stage)


def read_headlines(stage: Folder) -> list[tuple[str, str]]:
    """The headlines of a stage, each a label and its value. Raises InputError if they are damaged."""
    rows = stage.find_json(HEADLINES, {"headlines": []}).get("headlines")
    try:
        return _HEADLINES.validate_python(rows)
    except ValidationError:
        raise InputError("these are no headlines", where=stage.file(HEADLINES), fix=ENTER_AGAIN) from None


def read_panels(stage: Folder) -> list[Panel]:
    """What a stage shows in the report. Raises InputError if a panel is damaged."""
    from squadron.core.panels import read_panel

    panels, shown = stage / PANELS, []
    for name in panels.ls():
        try:
            shown.append(read_panel(panels.read_json(name, ENTER_AGAIN)))
        except ValidationError:
            raise InputError("this is no panel", where=panels.file(name), fix=ENTER_AGAIN) from None
    return shown


def read_failures(stage: Folder) -> list[dict[str, Any]]:
    """Rows that failed, each with `item`, `error` and `retry`. Raises InputError if one is damaged."""
    rows = read_rows(stage, FAILURES, ENTER_AGAIN)
    if any(row.keys() != {"item", "error", "retry"} for row in rows):
        raise InputError("these are no failed rows", where=stage.file(FAILURES), fix=ENTER_AGAIN)
    return rows


def by_step(rows: Sequence[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Rows of metrics in the order of their steps; of several of one step the last. Raises InputError if one has no
    step."""
    if any(not isinstance(row.get("step"), int | float) for row in rows):
        raise InputError("these are no metrics", where=where, fix=START_OVER)
    found = {row["step"]: row for row in rows}
    return [found[step] for step in sorted(found)]
