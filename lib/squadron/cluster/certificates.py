"""Certificates for Ray's TLS: one authority for a cluster, and a certificate that each node makes for itself.

    python -m squadron.cluster.certificates authority FOLDER
    python -m squadron.cluster.certificates node --authority FOLDER --out FOLDER NAME …

Ray asks both ends of every connection for a certificate of the authority, and compares the name or address that it
connects to with the names in it (https://docs.ray.io/en/latest/ray-core/configure.html#tls-authentication). An address
is known only when the node is there; so a node makes its certificate when it starts, by the key of the authority, which
what runs on the node afterwards does not get to see.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from squadron.core.errors import InputError, SquadronError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

AUTHORITY, AUTHORITY_KEY = "ca.crt", "ca.key"
CERTIFICATE, KEY = "tls.crt", "tls.key"
_EARLIER = timedelta(minutes=10)  # clocks of nodes differ


def environment(folder: str) -> dict[str, str]:
    """What Ray reads to use the certificate that `make_certificate` has written into `folder`."""
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": f"{folder}/{CERTIFICATE}",
        "RAY_TLS_SERVER_KEY": f"{folder}/{KEY}",
        "RAY_TLS_CA_CERT": f"{folder}/{AUTHORITY}",
    }


def make_authority(folder: Path, days: int = 3650) -> None:
    """Write the certificate and the key of a new authority. Raises InputError if there is one already."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    for file in (folder / AUTHORITY, folder / AUTHORITY_KEY):
        if file.exists():
            fix = "give another folder, or keep the authority that is there: other keys end the trust of running nodes"
            raise InputError("there is an authority already", where=str(file), fix=fix)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Squadron authority")])
    builder = _builder(name, name, key.public_key(), days, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
    certificate = _sign(builder, key, signs_certificates=True)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(folder / AUTHORITY_KEY, _private(key), 0o600)
    _write(folder / AUTHORITY, _pem(certificate), 0o644)


def make_certificate(authority: Path, folder: Path, names: Iterable[str], days: int = 365) -> None:
    """Write a node's certificate for these names and addresses, its key, and the authority's certificate into `folder`.

    Raises InputError if the authority's files are missing or are no certificate and key.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    issuer, issuer_key = _read_authority(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Squadron node")])
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in dict.fromkeys(names) if name])
    usage = x509.ExtendedKeyUsage([x509.OID_SERVER_AUTH, x509.OID_CLIENT_AUTH])
    builder = (
        _builder(subject, issuer.subject, key.public_key(), days, issuer_key.public_key())
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(alternatives, critical=False)
        .add_extension(usage, critical=False)
    )
    certificate = _sign(builder, issuer_key, signs_certificates=False)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(folder / KEY, _private(key), 0o600)
    _write(folder / CERTIFICATE, _pem(certificate), 0o644)
    _write(folder / AUTHORITY, _pem(issuer), 0o644)


def own_names() -> list[str]:
    """The names and addresses of this machine."""
    import psutil

    addresses = [
        one.address.partition("%")[0]
        for several in psutil.net_if_addrs().values()
        for one in several
        if one.family in (socket.AF_INET, socket.AF_INET6)
    ]
    return ["localhost", socket.gethostname(), socket.getfqdn(), *addresses]


def _read_authority(folder: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    fix = "make one: squadron cluster authority FOLDER; an authority of your own needs a key on an elliptic curve"
    try:
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
        key = load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), password=None)
    except OSError as error:
        raise InputError("the authority cannot be read", where=str(error.filename), fix=fix) from None
    except (ValueError, TypeError):
        raise InputError("this is no certificate with its key", where=str(folder), fix=fix) from None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise InputError("the authority's key is none on an elliptic curve", where=str(folder), fix=fix)
    if certificate.public_key() != key.public_key():
        raise InputError("certificate and key of the authority do not belong together", where=str(folder), fix=fix)
    return certificate, key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePublicKey,
    days: int,
    issuer_key: EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _sign(
    builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey, *, signs_certificates: bool
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _private(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, mode: int) -> None:
    """Nobody else can read a key, from the first byte on. A file that is there is replaced, whatever its mode."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make an authority, or a node's certificate; 2 if its files cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m squadron.cluster.certificates", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    authority = commands.add_parser("authority", help="make an authority: ca.crt and ca.key")
    authority.add_argument("folder", type=Path)
    node = commands.add_parser("node", help="make a certificate for this machine: tls.crt, tls.key and ca.crt")
    node.add_argument("--authority", type=Path, required=True, help="the folder with ca.crt and ca.key")
    node.add_argument("--out", type=Path, required=True)
    node.add_argument("names", nargs="*", help="names and addresses of this machine, beside those that it knows")
    options = parser.parse_args(arguments)
    try:
        if options.what == "authority":
            make_authority(options.folder)
        else:
            make_certificate(options.authority, options.out, [*own_names(), *options.names])
    except SquadronError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
