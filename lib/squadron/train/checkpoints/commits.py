"""When a checkpoint is one: all its parts as they were written, and with them the metrics of the steps that made it.

What is reported of a training is read from the curve of its last checkpoint. So it is of the very steps that made the
weights, whatever ended the training on its way; what a driver logs meanwhile is for whoever watches.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import IO, Any

from pydantic import ValidationError

from squadron.core.config import Config
from squadron.core.errors import InputError
from squadron.core.folder import Folder

_CURVE, _COMPLETE = "curve.jsonl", "complete.json"
Curve = list[dict[str, Any]]
"""A row a step, with its `step` and its metrics; one that is no finite number is None."""


class Complete(Config):
    """What `complete.json` says of a checkpoint. `files` are the workers' parts with their SHA-256, `curve` is that of
    the curve."""

    step: int
    files: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    identity: dict[str, Any]
    curve: str = ""
    held_out_loss: float | None = None


def name_of(step: int) -> str:
    return f"step-{step:06d}"


def complete_steps(store: Folder) -> list[int]:
    """Steps with a complete checkpoint, in order."""
    root = store / "checkpoints"
    return [step for step in _begun_steps(store) if root.exists(f"{name_of(step)}/{_COMPLETE}")]


def read_complete(store: Folder, step: int) -> Complete:
    """Raises InputError if the file is gone, or is not as it was written."""
    folder = store / "checkpoints" / name_of(step)
    try:
        return Complete.model_validate(folder.read_json(_COMPLETE, _fix(folder)))
    except ValidationError:
        raise damaged(folder, _COMPLETE, "it is of another shape") from None


def commit(folder: Folder, about: Complete, curve: Sequence[Mapping[str, Any]] = ()) -> None:
    """Make of a folder, which holds the workers' parts, a checkpoint: its metrics and it are there together or not at
    all."""
    lines = "".join(json.dumps({name: _finite(value) for name, value in row.items()}) + "\n" for row in curve).encode()
    about = about.model_copy(update={"curve": hashlib.sha256(lines).hexdigest()})
    folder.write_bytes(_CURVE, lines)
    folder.write_json(_COMPLETE, about.model_dump(mode="json"))


def read_curve(store: Folder, step: int) -> Curve:
    """The metrics of every step up to this checkpoint's. Raises InputError if they are not as they were written."""
    folder, known = store / "checkpoints" / name_of(step), read_complete(store, step).curve
    lines = folder.read_bytes(_CURVE)
    if hashlib.sha256(lines).hexdigest() != known:
        raise damaged(folder, _CURVE, "it has changed since it was written")
    return [json.loads(line) for line in lines.splitlines()]


def newest_curve(store: Folder) -> Curve:
    """The curve of the newest checkpoint that has one as it was written; no rows if there is none."""
    for step in reversed(complete_steps(store)):
        with contextlib.suppress(InputError):
            return read_curve(store, step)
    return []


def find_damage(store: Folder, step: int, share: int = 0, shares: int = 1) -> InputError | None:
    """What is wrong with a complete checkpoint, if anything. Of several readers each looks at its `share` of the
    parts."""
    folder = store / "checkpoints" / name_of(step)
    try:
        about = read_complete(store, step)
        read_curve(store, step)
        for name in sorted(about.files)[share::shares]:
            if not folder.exists(name):
                return damaged(folder, name, "it is gone")
            with folder.open(name) as stream:
                check_digest(folder, name, stream, about.files[name])
    except InputError as error:
        return error
    return None


def pass_over(store: Folder, step: int) -> None:
    """Take a damaged checkpoint out of those that count. Its parts stay until another is written in its place."""
    (store / "checkpoints").remove(f"{name_of(step)}/{_COMPLETE}")


def clear_incomplete(store: Folder) -> None:
    """Remove what a worker left behind that was ended while it saved."""
    whole = complete_steps(store)
    for step in _begun_steps(store):
        if step not in whole:
            (store / "checkpoints").remove(name_of(step))


def best_step(store: Folder) -> int | None:
    """The complete checkpoint with the lowest held-out loss; None if no held-out loss was ever measured."""
    losses = {step: read_complete(store, step).held_out_loss for step in complete_steps(store)}
    known = {step: loss for step, loss in losses.items() if loss is not None}
    return min(known, key=lambda step: (known[step], step)) if known else None


def check_digest(folder: Folder, name: str, stream: IO[bytes], digest: str) -> None:
    """Raise InputError if what a part holds is not what was written."""
    if hashlib.file_digest(stream, "sha256").hexdigest() != digest:  # type: ignore[arg-type]
        raise damaged(folder, name, "it has changed since it was written")


def damaged(folder: Folder, name: str, why: str) -> InputError:
    """The error of a checkpoint that is not as it was written."""
    return InputError(f"the checkpoint is damaged: {name}: {why}", where=folder.file(name), fix=_fix(folder))


def _begun_steps(store: Folder) -> list[int]:
    names = (name.removeprefix("step-") for name in (store / "checkpoints").ls() if name.startswith("step-"))
    return sorted(int(number) for number in names if number.isdecimal())


def _fix(folder: Folder) -> str:
    return f"restore this file; or remove {folder}, and let --rerun train again from the checkpoint before"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
