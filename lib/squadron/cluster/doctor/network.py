"""Who listens, on which networks, and whether a token is asked for; which ports are reached."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from squadron.cluster.doctor.finding import Finding, failed, ok, warning

MODE, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"
_FIX = (
    "on one machine: `export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0` and "
    "`ray start --head --node-ip-address=127.0.0.1`; on several: `ray get-auth-token --generate`, the same "
    f"{TOKEN_PATH} and `export {MODE}=token` on all, and a firewall around them"
)
_CONNECT_S = 3.0
_FEW = 16  # nodes of which each asks all others
_RAYS = ("raylet", "gcs_server", "ray::", "/ray/dashboard/", "/ray/_private/", "/ray/util/client/")


@dataclass(frozen=True)
class Listener:
    """A process of Ray that takes connections. Whether it wants a token is None where that cannot be looked up."""

    process: str
    address: str
    port: int
    token: bool | None


@dataclass(frozen=True)
class Target:
    """A port of a node that others have to reach."""

    node: str
    what: str
    port: int


def find_listeners(pids: Iterable[int] | None = None) -> tuple[Listener, ...]:
    """Processes of Ray on this machine that listen; only those with these numbers, if any are given."""
    import psutil

    wanted = None if pids is None else set(pids)
    found = []
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS tells it to root alone
        return ()
    for one in connections:
        if one.status != psutil.CONN_LISTEN or one.pid is None or (wanted is not None and one.pid not in wanted):
            continue
        with contextlib.suppress(psutil.Error):
            words = " ".join(psutil.Process(one.pid).cmdline())
            if kind := next((mark for mark in _RAYS if mark in words), ""):
                name = words.split()[0] if kind == "ray::" else kind.strip("/").rpartition("/")[2]
                found.append(Listener(name, one.laddr.ip, one.laddr.port, _wants_token(one.pid)))
    return tuple(sorted(set(found), key=lambda one: (one.process, one.port)))


def check_listeners(listeners: Sequence[Listener], strict: bool) -> Finding:
    """Whether anybody who reaches this machine may run code on it. With `strict` that is a failure, else a warning: on
    a machine of one's own a local Ray may well listen so, behind a router."""
    open_ones = [one for one in listeners if not _is_loopback(one.address)]
    free = [one for one in open_ones if not one.token]
    if not open_ones:
        return ok("listening", "Ray listens on loopback alone" if listeners else "no Ray listens")
    if not free:
        return ok("listening", f"Ray listens on {_networks(open_ones)} and wants a token")
    names = ", ".join(sorted({one.process for one in free}))
    text = f"whoever reaches {_networks(free)} may run code here: {names} want no token"
    return failed("listening", text, _FIX) if strict else warning("listening", text, _FIX)


def listen() -> socket.socket:
    """A socket on a port that the system chooses, as a worker of Ray listens on one."""
    server = socket.create_server(("", 0), backlog=128)
    server.settimeout(0.1)
    return server


def reach(targets: Sequence[Target]) -> list[Target]:
    """Those that cannot be connected to from here."""

    def tries(target: Target) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((target.node, target.port), timeout=_CONNECT_S):
            return True
        return False

    if not targets:
        return []
    with ThreadPoolExecutor(min(32, len(targets))) as threads:
        return [target for target, reached in zip(targets, threads.map(tries, targets), strict=True) if not reached]


def partners(count: int, place: int) -> list[int]:
    """Whom the node at this place asks: of few all others, of many those at distances of 1, 2, 4, … to both sides, so
    that a thousand nodes try twenty each and a wall between any two halves is still found."""
    if count <= _FEW:
        return [other for other in range(count) if other != place]
    steps = [2**power for power in range(count.bit_length()) if 2**power < count]
    return sorted({(place + side * step) % count for step in steps for side in (1, -1)} - {place})


def check_reach(unreached: Mapping[str, Sequence[Target]], asked: int) -> list[Finding]:
    """A finding for each node from which ports of others cannot be reached, or one for all."""
    found = []
    for node, targets in unreached.items():
        if targets:
            told = ", ".join(f"{one.what} of {one.node}:{one.port}" for one in targets[:5])
            more = f" and {len(targets) - 5} more" if len(targets) > 5 else ""
            fix = (
                "let nodes reach each other on all TCP ports (firewall, security group, NetworkPolicy); or give "
                "`ray start` fixed ones: --node-manager-port, --object-manager-port, --min-worker-port, "
                "--max-worker-port"
            )
            found.append(failed("ports", f"not reached from here: {told}{more}", fix).on(node))
    return found or [ok("ports", f"{asked} connections between nodes came about")]


def check_token(enabled: bool, addresses: Sequence[str]) -> Finding:
    """Whether a cluster that other machines reach asks for a token."""
    beyond = [one for one in addresses if not _is_loopback(one)]
    if enabled:
        return ok("token", "the cluster wants one")
    if beyond:
        return failed("token", f"the cluster at {beyond[0]} wants none: whoever reaches it may run code there", _FIX)
    return ok("token", "none is wanted; the cluster is on loopback alone")


def _wants_token(pid: int) -> bool | None:
    """By the environment that a process was started with; nothing else of it is kept."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return f"{MODE}=token".encode() in entries


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return address == "localhost"


def _networks(listeners: Sequence[Listener]) -> str:
    everywhere = any(ipaddress.ip_address(one.address.partition("%")[0]).is_unspecified for one in listeners)
    return "all networks" if everywhere else ", ".join(sorted({one.address for one in listeners}))
