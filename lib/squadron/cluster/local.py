"""A Ray cluster of several nodes on this machine, for trying things: it listens on loopback alone and wants a token.

Its nodes outlive the command that starts them. A note in a folder of this user alone tells which processes they are, so
that `down` ends these and no others.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from squadron.core import console
from squadron.core.config import Config
from squadron.core.errors import ConfigError, InputError, ResourceError
from squadron.core.folder import Folder
from squadron.core.private_folder import private_folder

_NOTE, _TOKEN = "cluster.json", "token"
_START_S = 120.0
_LONGEST_PATH = 40
"""Of the folder: what Ray puts below it for a socket takes 64 characters, and the system takes 107."""
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""0: all of Ray listens on loopback alone. Who connects needs it too."""
_WARM_MS = "60000"
"""For so long an idle worker of Ray is kept, with all that it has imported."""


class LocalCluster(Config):
    """What the note says of a cluster: `address` is for `--address` of a run, `dashboard` for that of a submission.

    All its processes descend from the one with the number `pid`; `created` tells that from a later one.
    """

    address: str = ""
    dashboard: str
    token_path: str
    nodes: int
    cpus: int
    pid: int
    created: float

    def token(self) -> str:
        """What opens the cluster."""
        return Path(self.token_path).read_text().strip()


def find_cluster() -> LocalCluster | None:
    """The cluster that lives on this machine, if there is one."""
    cluster = _read_note(_folder())
    return cluster if cluster is not None and cluster.address and _process(cluster) is not None else None


def up(nodes: int, cpus: int) -> LocalCluster:
    """Start a cluster and wait until all of its nodes live.

    Raises ConfigError for numbers that make no cluster, and ResourceError if one lives already or none comes up.
    """
    for name, count in (("--nodes", nodes), ("--cpus", cpus)):
        if count < 1:
            raise ConfigError(f"{count} is too few", where=name, fix="give 1 or more")
    folder = _folder()
    if len(folder.path) > _LONGEST_PATH:
        fix = "set TMPDIR to a shorter path, such as /tmp"
        raise ResourceError("the path of the cluster's files is too long for Ray's sockets", where=folder.url, fix=fix)
    with _alone(folder):
        if find_cluster() is not None:
            raise ResourceError("a cluster is up already", where=folder.url, fix="end it by `squadron cluster down`")
        _end(_read_note(folder), folder)  # what a kill has left of one
        _clear(folder)
        try:
            return _start(folder, nodes, cpus)
        except BaseException:
            _end(_read_note(folder), folder)
            raise


def down() -> int:
    """End the cluster's processes and remove what they have left. Gives how many processes that were."""
    folder = _folder()
    with _alone(folder):
        ended = _end(_read_note(folder), folder)
        _clear(folder)
        return ended


def ask_nodes(cluster: LocalCluster) -> list[dict[str, Any]] | None:
    """What the head says of the nodes; None while it does not answer."""
    request = urllib.request.Request(f"{cluster.dashboard}/api/v0/nodes?detail=1")
    request.add_header("Authorization", f"Bearer {cluster.token()}")
    try:
        with _OPENER.open(request, timeout=10) as answer:
            return list(json.load(answer)["data"]["result"]["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def say_up(nodes: int, cpus: int) -> None:
    """`cluster up`: start a cluster, or say what is up, and how to use it."""
    cluster = find_cluster()
    if cluster is None:
        console.say(f"Starting {_count(nodes, 'node')} with {_count(cpus, 'CPU')} each …")
        cluster = up(nodes, cpus)
    else:
        console.say("A cluster is up already; `squadron cluster down` ends it.")
    _show(cluster)


def say_down() -> None:
    """`cluster down`: end the cluster and say so."""
    ended = down()
    console.say(f"The cluster is down: {_count(ended, 'process')} ended." if ended else "No cluster was up.")


def say_status() -> None:
    """`cluster status`: the nodes, and how to use them. Raises ResourceError if there is no cluster."""
    cluster = find_cluster()
    if cluster is None:
        raise ResourceError("no cluster is up on this machine", fix="start one by `squadron cluster up --nodes 3`")
    _show(cluster)


def _show(cluster: LocalCluster) -> None:
    found = ask_nodes(cluster)
    if found is None:
        what = "the head of the cluster does not answer: it is dead, and with it the cluster"
        fix = "`squadron cluster down`, then `squadron cluster up`"
        raise ResourceError(what, where=cluster.dashboard, fix=fix)
    rows = [
        (node["node_name"], "lives" if node["state"] == "ALIVE" else "dead", str(node.get("state_message") or ""))
        for node in sorted(found, key=lambda node: (not node["is_head_node"], node["node_name"]))
    ]
    console.table(("node", "state", ""), rows, title=f"Each with {_count(cluster.cpus, 'CPU')}")
    token = console.plain(cluster.token_path)
    for line in (
        f"Dashboard:     {cluster.dashboard}, which asks for the token in {token}",
        "Submit a job:  squadron submit flame smoke --run runs/there",
        f"Or run it:     export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token} {_LOOPBACK}=0",
        f"               squadron run flame smoke --address {cluster.address} --run runs/there",
    ):
        console.say(line)


def _start(folder: Folder, nodes: int, cpus: int) -> LocalCluster:
    token_path, log = f"{folder.path}/{_TOKEN}", Path(folder.path, "log")
    _write_token(token_path)
    port = _free_port()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("nodes.py")), str(nodes), str(cpus), str(port)],
            cwd=folder.path,
            env=_environment(folder, token_path),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # no terminal takes it along when it closes
        )
    cluster = LocalCluster(
        dashboard=f"http://127.0.0.1:{port}",
        token_path=token_path,
        nodes=nodes,
        cpus=cpus,
        pid=process.pid,
        created=psutil.Process(process.pid).create_time(),
    )
    folder.write_json(_NOTE, cluster.model_dump(mode="json"))
    cluster = cluster.model_copy(update={"address": _wait(cluster, process, log)})
    folder.write_json(_NOTE, cluster.model_dump(mode="json"))
    return cluster


def _environment(folder: Folder, token_path: str) -> dict[str, str]:
    """What the nodes find: nothing of this process's Ray, and none of its paths to code, which comes with a job."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_") and key != "PYTHONPATH"}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token_path,
        "RAY_TMPDIR": folder.path,
        _LOOPBACK: "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_idle_worker_killing_time_threshold_ms": _WARM_MS,
    }


def _wait(cluster: LocalCluster, process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until all nodes live, and give the address of the head. Raises ResourceError, with what Ray has said, if
    they do not."""
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        found = re.search(r"^address (\S+)$", log.read_text(errors="replace"), re.M)
        if found and sum(node.get("state") == "ALIVE" for node in ask_nodes(cluster) or ()) >= cluster.nodes:
            return found[1]
        time.sleep(0.2)
    said = " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:]) or "nothing was said"
    raise ResourceError(f"the cluster did not come up: {said}", fix="free memory or disk, or ask for fewer nodes")


def _end(cluster: LocalCluster | None, folder: Folder) -> int:
    """Kill all processes of the cluster: an orderly end of Ray waits half a minute for work that is not there."""
    found = {one.pid: one for one in _orphans(folder)}
    if cluster is not None and (process := _process(cluster)) is not None:
        with contextlib.suppress(psutil.Error):
            found |= {one.pid: one for one in (process, *process.children(recursive=True))}
    for one in found.values():
        with contextlib.suppress(psutil.Error):
            one.kill()
    psutil.wait_procs(list(found.values()), timeout=10)
    return len(found)


def _orphans(folder: Folder) -> Iterator[psutil.Process]:
    """Processes of the cluster whose parents are gone: they name its folder, which is nobody else's."""
    mark = re.compile(re.escape(folder.path) + r"/[\w-]+/session_")
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.uids().real != os.getuid() or process.pid == os.getpid():
                continue
            if any(map(mark.search, process.cmdline())):
                family = [process, *process.children(recursive=True)]
                yield from (one for one in family if one.pid != os.getpid())


def _process(cluster: LocalCluster) -> psutil.Process | None:
    """The process that holds the cluster, if it lives."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(cluster.pid)
        if abs(process.create_time() - cluster.created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _read_note(folder: Folder) -> LocalCluster | None:
    try:
        return LocalCluster.model_validate(folder.read_json(_NOTE)) if folder.exists(_NOTE) else None
    except (InputError, ValueError):  # cut short: what it tells of is found by its folder
        return None


def _folder() -> Folder:
    return Folder(private_folder("cluster"))


def _clear(folder: Folder) -> None:
    """Remove all that a cluster has left, but the lock."""
    for name in folder.ls():
        path = f"{folder.path}/{name}"
        if name != ".lock":
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)


def _write_token(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


@contextlib.contextmanager
def _alone(folder: Folder) -> Iterator[None]:
    """Raises ResourceError while another command starts or ends the cluster."""
    with open(f"{folder.path}/.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = "another command is starting or ending the cluster"
            raise ResourceError(what, where=folder.url, fix="wait for it") from None
        yield


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 'es' if name.endswith('s') else 's'}"


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Without a proxy that the environment may name: loopback is here."""
