"""A TCP proxy on loopback that cuts its connections now and then."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType

_LARGEST = 65536


class CuttingProxy:
    """Passes bytes on to a port of loopback, and ends each connection after so long, in the middle of whatever it is
    telling."""

    def __init__(self, port: int, cut_after_s: float) -> None:
        self._target, self._cut_after_s, self.cuts = port, cut_after_s, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()
                threading.Thread(target=self._cut, args=(client, server), daemon=True).start()

    def _cut(self, client: socket.socket, server: socket.socket) -> None:
        time.sleep(self._cut_after_s)
        for one in (client, server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
                self.cuts += 1

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(_LARGEST):
                other.sendall(data)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
