"""A submitted job's log, shown here as it grows, whatever becomes of the connection meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TextIO

import aiohttp
from ray.job_submission import JobDetails, JobStatus

from squadron.cluster.submit.client import Client
from squadron.core.console import complain
from squadron.core.errors import ResourceError
from squadron.core.masking import mask_text

_PAUSE_S, _PATIENCE_S = 0.5, 600.0
_STOPPED = 143
"""What a process gives that SIGTERM has ended."""


class Follower:
    """Prints the log of a job line by line, each line once.

    Ray tells a log from its beginning each time. So what has been taken is counted, and left out after the next
    connection.
    """

    def __init__(self, client: Client, name: str, output: TextIO | None = None) -> None:
        self._client, self._name, self._output = client, name, output
        self._taken, self._line = 0, ""

    def follow(self) -> JobDetails:
        """Print until the job has ended, and give what the cluster knows of it then.

        Raises InputError for a job that the cluster does not know, and ResourceError if it has not answered for long.
        """
        heard, told = time.monotonic(), False
        while True:
            try:
                info = self._client.info(self._name)
                heard, told = time.monotonic(), False
                if info.status.is_terminal():
                    return self._finish(info)
                asyncio.run(self._tail())
            except (ResourceError, OSError, aiohttp.ClientError) as error:
                if time.monotonic() - heard > _PATIENCE_S:
                    what = f"the cluster has not answered for {_PATIENCE_S / 60:.0f} minutes; the job may still run"
                    raise ResourceError(what, where=self._name, fix=f"squadron submit --follow {self._name}") from error
                if not told:
                    told = True
                    complain("[yellow]The connection is lost; trying again …[/yellow]")
            time.sleep(_PAUSE_S)

    async def _tail(self) -> None:
        position = 0
        async for text in self._client.tail(self._name):
            self._take(text, position)
            position += len(text)

    def _finish(self, info: JobDetails) -> JobDetails:
        """The rest of the log: a connection that ends says nothing of whether all was told."""
        try:
            self._take(self._client.log(self._name), 0)
        except ResourceError:  # the node that had it is gone
            complain("[yellow]The end of the job's log is not to be had.[/yellow]")
        self._print(self._line)
        self._line = ""
        return info

    def _take(self, text: str, position: int) -> None:
        """Take what is new of a text that begins at this position of the log."""
        new = text[max(0, self._taken - position) :]
        self._taken = max(self._taken, position + len(text))
        *lines, self._line = (self._line + new).split("\n")
        self._print("".join(f"{line}\n" for line in lines))

    def _print(self, text: str) -> None:
        if text:
            output = self._output or sys.stdout
            output.write(mask_text(text))
            output.flush()


def exit_status(info: JobDetails) -> int:
    """The status of a job that has ended, as its own process gave it."""
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return _STOPPED
    code = info.driver_exit_code
    return 1 if code is None else 128 - code if code < 0 else code or 1


def wait_for_end(client: Client, name: str, timeout_s: float) -> JobDetails:
    """What the cluster knows of a job once it has ended, or after so long."""
    deadline = time.monotonic() + timeout_s
    while True:
        info = client.info(name)
        if info.status.is_terminal() or time.monotonic() > deadline:
            return info
        with contextlib.suppress(InterruptedError):
            time.sleep(0.3)
