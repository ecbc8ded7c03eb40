"""Certificates of nodes: who has one of the authority is believed, by its own names alone."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from squadron.cluster.certificates import environment, main, make_authority, make_certificate
from squadron.core.errors import InputError

_SERVICE = "train-head-svc.squadron.svc.cluster.local"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's certificate for two names and an address."""
    make_authority(tmp_path / "authority")
    make_certificate(tmp_path / "authority", tmp_path / "node", [_SERVICE, "10.0.0.7", "::1", "localhost"])
    return tmp_path / "node"


def _context(folder: Path, *, server: bool = False, authority: Path | None = None) -> ssl.SSLContext:
    """Both ends ask for a certificate, as Ray's do."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations((authority or folder) / "ca.crt")
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def _speak(server: Path, client: ssl.SSLContext, name: str) -> bytes:
    """What comes back from a node to who connects to it by a name; nothing if either end refuses the other."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        try:
            with _context(server, server=True).wrap_socket(theirs, server_side=True) as channel:
                channel.sendall(channel.recv(5))
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as channel:
            channel.sendall(b"hello")
            return channel.recv(5)
    except (ssl.SSLError, OSError):
        return b""
    finally:
        ours.close()
        thread.join()


def test_nodes_believe_each_other_by_their_names(node: Path) -> None:
    make_certificate(node.parent / "authority", node.parent / "other", ["10.0.0.8"])
    for name in (_SERVICE, "10.0.0.7", "::1", "localhost"):
        assert _speak(node, _context(node.parent / "other"), name) == b"hello"
    for name in ("other-head-svc.squadron.svc.cluster.local", "10.0.0.9", "squadron.svc.cluster.local"):
        assert _speak(node, _context(node), name) == b"", name


def test_a_node_of_another_authority_is_not_believed_nor_believes(node: Path, tmp_path: Path) -> None:
    make_authority(tmp_path / "authority-2")
    make_certificate(tmp_path / "authority-2", tmp_path / "stranger", [_SERVICE])
    stranger = tmp_path / "stranger"
    assert _speak(node, _context(stranger, authority=node), _SERVICE) == b""
    assert _speak(stranger, _context(node), _SERVICE) == b""


def test_a_node_cannot_sign_for_others(node: Path, tmp_path: Path) -> None:
    """Its certificate is none of an authority, whoever uses it as one."""
    forged = tmp_path / "forged"
    forged.mkdir()
    (forged / "ca.crt").write_bytes((node / "tls.crt").read_bytes())
    (forged / "ca.key").write_bytes((node / "tls.key").read_bytes())
    make_certificate(forged, tmp_path / "made", [_SERVICE])
    (tmp_path / "made" / "tls.crt").write_bytes(
        (tmp_path / "made" / "tls.crt").read_bytes() + (node / "tls.crt").read_bytes()
    )
    assert _speak(node, _context(tmp_path / "made", authority=node), _SERVICE) == b""


def test_a_restart_makes_a_new_certificate_and_keys_are_for_their_owner_alone(node: Path) -> None:
    first = (node / "tls.key").read_bytes()
    (node / "tls.key").chmod(0o644)
    make_certificate(node.parent / "authority", node, [_SERVICE])
    assert (node / "tls.key").read_bytes() != first
    for key in (node / "tls.key", node.parent / "authority" / "ca.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    assert set(environment(str(node)).values()) - {"1"} == {
        str(node / name) for name in ("tls.crt", "tls.key", "ca.crt")
    }


def test_an_authority_is_not_made_twice_nor_used_broken(tmp_path: Path) -> None:
    make_authority(tmp_path)
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="already"):
        make_authority(tmp_path)
    words = ["node", "--authority", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(words) == 0 and (tmp_path / "out" / "tls.key").stat().st_mode & 0o777 == 0o600
    make_authority(tmp_path / "other")
    (tmp_path / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    assert main(words) == 2
    (tmp_path / "ca.key").write_text("no key")
    assert main(words) == 2
    (tmp_path / "ca.key").unlink()
    assert main(words) == 2
