"""Machines on a network from which they can be cut off: network namespaces of this one, on a bridge in another.

Nothing of them is seen from outside.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from functools import cache
from types import TracebackType
from typing import Self


class Switch:
    """`count` namespaces with an address each, all on one bridge."""

    def __init__(self, count: int) -> None:
        self._name, self._count = f"sq{uuid.uuid4().hex[:8]}", count

    def __enter__(self) -> Self:
        try:
            _ip("netns", "add", self._name)
            _ip("-n", self._name, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._name, "link", "set", "bridge", "up")
            for number in range(self._count):
                self._plug(number)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ip(self, number: int) -> str:
        """The address of a machine."""
        return f"10.77.0.{number + 1}"

    def inside(self, number: int) -> list[str]:
        """Put before a command, it runs on this machine."""
        return ["ip", "netns", "exec", self._space(number)]

    def cut(self, number: int) -> None:
        """Let nothing pass to or from a machine. Nobody is told."""
        _ip("-n", self._name, "link", "set", f"port{number}", "down")

    def join(self, number: int) -> None:
        """Let it pass again."""
        _ip("-n", self._name, "link", "set", f"port{number}", "up")

    def close(self) -> None:
        """Remove the namespaces, and with them all that is in them but processes."""
        for name in (*map(self._space, range(self._count)), self._name):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)

    def _space(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _plug(self, number: int) -> None:
        space = self._space(number)
        _ip("netns", "add", space)
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", self._name)
        _ip("-n", space, "addr", "add", f"{self.ip(number)}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", self._name, "link", "set", f"port{number}", "master", "bridge", "up")


@cache
def can_make() -> bool:
    """Whether this process may make namespaces."""
    if os.geteuid() != 0:
        return False
    try:
        with Switch(1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
