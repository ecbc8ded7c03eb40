"""TLS and tokens as the manifests set them: a head of Ray that lets in who has both, and ends its jobs in order."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from squadron.cluster.certificates import main, make_authority
from tests.drivers import free_ports
from tests.manifest_parts import RENDERED

_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_TOKEN = secrets.token_hex(32)
_TRAP = """
import signal, sys, time, pathlib
def save(*_):
    pathlib.Path({saved!r}).write_text("saved")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path({begun!r}).write_text("begun")
time.sleep(600)
"""


@dataclass(frozen=True)
class Head:
    """A head of Ray: where it answers, as whom, and the folder of everything."""

    port: int
    dashboard: str
    environment: dict[str, str]
    folder: Path


def _pod() -> dict[str, Any]:
    manifest = yaml.safe_load((RENDERED / "train" / "raycluster.yaml").read_text())
    pod: dict[str, Any] = manifest["spec"]["headGroupSpec"]["template"]["spec"]
    return pod


def _make_certificate(folder: Path) -> None:
    """By the very command of the init container, with folders of this machine."""
    command = _pod()["initContainers"][0]["command"]
    places = {"/etc/squadron/": f"{folder}/", "$(POD_IP)": "127.0.0.1", "$(RAY_CLUSTER_NAME)": "train"}
    for old, new in places.items():
        command = [word.replace(old, new) for word in command]
    assert command[:3] == ["python", "-m", "squadron.cluster.certificates"]
    subprocess.run([sys.executable, *command[1:]], check=True)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Started with the environment of the manifest's container, and the token as KubeRay gives it."""
    folder = Path(tempfile.mkdtemp(prefix="sq"))
    assert main(["authority", str(folder / "authority")]) == 0
    _make_certificate(folder)
    container = _pod()["containers"][0]
    given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    environment = kept | {name: value.replace("/etc/squadron/", f"{folder}/") for name, value in given.items()}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    port, dashboard, agent = free_ports(3)
    words = [
        "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=1", "--node-ip-address=127.0.0.1",
        f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        "--include-dashboard=true", "--object-store-memory=100000000", f"--temp-dir={folder / 'ray'}",
    ]  # fmt: skip
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        started = Head(port, f"http://127.0.0.1:{dashboard}", environment, folder)
        _wait(lambda: process.poll() is None and _ask(started, "tls") is grpc.StatusCode.OK)
        yield started
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # an orderly end waits half a minute for work that is not there
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(reached: Any, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _ask(head: Head, certificate: str, token: str | None = _TOKEN) -> grpc.StatusCode:
    """What Ray's head answers to a call with the certificate of this folder, and this token."""
    folder = head.folder / certificate
    files = [(folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt")]
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.secure_channel(f"127.0.0.1:{head.port}", grpc.ssl_channel_credentials(*files)) as channel:
        try:
            channel.unary_unary(_ALIVE)(b"", metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _greeting(head: Head, certificate: str | None) -> bytes:
    """What Ray's head sends to who opens HTTP/2 with the certificate of this folder, or with none."""
    context = ssl.create_default_context(cafile=str(head.folder / "tls" / "ca.crt"))
    context.set_alpn_protocols(["h2"])
    if certificate:
        folder = head.folder / certificate
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    plain = socket.create_connection(("127.0.0.1", head.port), timeout=20)
    try:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as channel:
            channel.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            return channel.recv(9)
    except (ssl.SSLError, ConnectionError):
        return b""


def test_who_has_token_and_certificate_runs_tasks(head: Head) -> None:
    code = f"import ray; ray.init('127.0.0.1:{head.port}'); print(ray.get(ray.remote(lambda: 6 * 7).remote()))"
    done = subprocess.run([sys.executable, "-c", code], env=head.environment, capture_output=True, text=True)
    assert done.stdout.strip() == "42", done.stderr[-2000:]


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_who_has_no_token_is_refused(head: Head, token: str | None) -> None:
    assert _ask(head, "tls") is grpc.StatusCode.OK
    assert _ask(head, "tls", token) is grpc.StatusCode.UNAUTHENTICATED


def test_who_has_no_certificate_of_the_authority_is_refused(head: Head) -> None:
    other = head.folder / "other"
    make_authority(other / "authority")
    _make_certificate(other)
    assert _greeting(head, "tls")[3:4] == b"\x04", "settings, with which HTTP/2 begins"
    assert _greeting(head, None) == b""
    assert _greeting(head, "other/tls") == b""
    assert _ask(head, "other/tls") is grpc.StatusCode.UNAVAILABLE, "nor does that client know this head"


def test_jobs_are_asked_to_save_before_the_head_ends(head: Head) -> None:
    """By the command that Kubernetes runs before it stops the pod."""
    begun, saved = head.folder / "begun", head.folder / "saved"
    (head.folder / "job.py").write_text(_TRAP.format(begun=str(begun), saved=str(saved)))
    job = {"entrypoint": f"{sys.executable} {head.folder / 'job.py'}"}
    asked = {"Authorization": f"Bearer {_TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{head.dashboard}/api/jobs/", json.dumps(job).encode(), asked)
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200
    _wait(begun.exists)
    command = _pod()["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command[:3] == ["python", "-m", "squadron.cluster.leave"]
    environment = head.environment | {"RAY_API_SERVER_ADDRESS": head.dashboard}
    done = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert saved.read_text() == "saved"
