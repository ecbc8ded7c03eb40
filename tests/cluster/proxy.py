"""A TCP proxy on loopback that loses the connections over which a log is followed, again and again."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType

_LARGEST = 65536


class CuttingProxy:
    """Passes bytes on to a port of loopback. A WebSocket is cut after so long, in the middle of whatever it is telling,
    and nobody gets through for a while then. `cuts` counts them."""

    def __init__(self, port: int, cut_after_s: float, out_s: float = 1.5) -> None:
        self._target, self._cut_after_s, self._out_s = port, cut_after_s, out_s
        self._out_until, self.cuts = 0.0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if time.monotonic() < self._out_until:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(_LARGEST):
                other.sendall(data)
                if data.startswith(b"GET") and b"upgrade: websocket" in data.lower():
                    threading.Timer(self._cut_after_s, self._cut, (one, other)).start()
        _end(one, other)

    def _cut(self, one: socket.socket, other: socket.socket) -> None:
        self.cuts += 1
        self._out_until = time.monotonic() + self._out_s
        _end(one, other)


def _end(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
