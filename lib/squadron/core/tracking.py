"""Experiment trackers next to the run folder's own metrics: TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from squadron.core import console
from squadron.core.disk_errors import explaining_disk_errors
from squadron.core.errors import ConfigError, suggest
from squadron.core.folder import Folder
from squadron.core.masking import mask_secrets

UPLOAD_EVERY_S = 60.0
_FLUSH_EVERY_S = 10.0


class Tracker(Protocol):
    """Receives the metrics of a run, step by step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record metrics of one step. A step may come again after a restart."""

    def close(self) -> None:
        """Write out what is pending."""


def trackers(names: Sequence[str], run_name: str, folder: Folder, config: Mapping[str, Any]) -> Tracker:
    """One tracker that passes everything to those named: `tensorboard`, `wandb`.

    Both write into `folder`, also when it is remote. wandb stays offline unless WANDB_MODE says otherwise,
    resumes under the id kept in the folder, and sees the configuration with its secrets masked. Raises
    ConfigError for an unknown name, before any tracker starts.
    """
    for name in names:
        if name not in _KINDS:
            raise ConfigError(f"there is no tracker {name!r}", where="--track", fix=suggest(name, _KINDS))
    return _Several([_KINDS[name](run_name, folder, config) for name in dict.fromkeys(names)])


class _Several:
    def __init__(self, members: Sequence[Tracker]) -> None:
        self._members = members

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for member in self._members:
            member.log(step, metrics)

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            for member in self._members:
                stack.callback(member.close)


class _TensorBoard:
    """Event files under `tensorboard/`; every start writes a file of its own, and readers join them.

    Written by the thread that logs: in tensorboardX's own, an error of the disk would end that thread, and nobody hear.
    Raises ResourceError if the disk is full.
    """

    def __init__(self, run_name: str, folder: Folder, config: Mapping[str, Any]) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self._mirror = _Mirror(folder / "tensorboard")
        self._place = str(self._mirror.path)
        suffix = f".{time.time_ns()}"  # readers join files in the order of their names
        with explaining_disk_errors(self._place):
            self._writer = EventsWriter(f"{self._place}/events", suffix)
        self._flushed_at = time.monotonic()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with explaining_disk_errors(self._place):
            for name, value in metrics.items():
                self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
            if time.monotonic() - self._flushed_at >= _FLUSH_EVERY_S:
                self._writer.flush()
                self._flushed_at = time.monotonic()
            if self._mirror.is_due():
                self._writer.flush()
                self._mirror.upload()

    def close(self) -> None:
        with explaining_disk_errors(self._place):
            try:
                self._writer.flush()
            finally:
                with contextlib.suppress(OSError):  # which tries to write once more, and then closes all the same
                    self._writer.close()
        self._mirror.close()


class _WeightsAndBiases:
    """A wandb run with its files under `wandb/`, recording nothing of machine, code or command line.

    It works in a process of its own. Where that is lost, as on a full disk, the run goes on without it.
    """

    def __init__(self, run_name: str, folder: Folder, config: Mapping[str, Any]) -> None:
        import wandb

        self._mirror = _Mirror(folder / "wandb")
        settings = wandb.Settings(
            console="off",
            silent=True,
            disable_code=True,
            disable_git=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            reinit="create_new",
        )
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "squadron"),
                name=run_name,
                id=_stored_id(folder),
                dir=str(self._mirror.path.parent),
                mode=None if os.environ.get("WANDB_MODE") else "offline",
                resume="allow",
                config=mask_secrets(dict(config)),
                settings=settings,
            )
        except wandb.errors.Error as error:
            fix = "run `wandb login`, or unset WANDB_MODE to record offline and send later with `wandb sync`"
            raise ConfigError(f"wandb cannot start: {error}", where="--track wandb", fix=fix) from None
        # Steps as an ordinary value: wandb's own counter refuses those that come again after a restart.
        self._run.define_metric("*", step_metric="step")
        self._lost = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        with self._outliving():
            self._run.log({"step": step, **metrics})
        if self._mirror.is_due():
            self._mirror.upload()

    def close(self) -> None:
        import wandb

        with self._outliving():
            self._run.finish()
        with self._outliving():
            wandb.teardown()  # `finish` returns before the file is whole; this waits for wandb's own process
        self._mirror.close()

    @contextlib.contextmanager
    def _outliving(self) -> Iterator[None]:
        """Say once that wandb's process is lost, in whatever words its client has for that."""
        try:
            yield
        except Exception as error:
            if not self._lost:
                self._lost = True
                said = console.plain(str(error) or type(error).__name__)
                console.complain(f"[yellow]wandb is lost, the run goes on without it:[/yellow] {said}")


class _Mirror:
    """A local directory for libraries that write their own files, copied to its folder if that is remote."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._scratch = "" if folder.path else tempfile.mkdtemp(prefix="squadron-")
        self.path = Path(folder.path or f"{self._scratch}/{folder.name}")
        self.path.mkdir(parents=True, exist_ok=True)
        self._uploaded_at = time.monotonic()

    def is_due(self) -> bool:
        return bool(self._scratch) and time.monotonic() - self._uploaded_at >= UPLOAD_EVERY_S

    def upload(self) -> None:
        """Copy every file to the remote folder; there is nothing to do for a local one."""
        self._uploaded_at = time.monotonic()
        for file in sorted(self.path.rglob("*")) if self._scratch else ():
            if file.is_file() and not file.is_symlink():
                self._folder.write_bytes(file.relative_to(self.path).as_posix(), file.read_bytes())

    def close(self) -> None:
        self.upload()
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _stored_id(folder: Folder) -> str:
    if not folder.exists("wandb.json"):
        folder.write_json("wandb.json", {"id": uuid.uuid4().hex[:12]})
    return str(folder.read_json("wandb.json")["id"])


_KINDS: dict[str, Callable[[str, Folder, Mapping[str, Any]], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
}
