"""Requests that a web page from elsewhere lets a browser send to a server that needs no key."""

from __future__ import annotations

from collections.abc import Mapping

from squadron.serve.spec import ServeSpec

_HERE = ("localhost", "127.0.0.1", "[::1]")


def wrong_site(method: str, headers: Mapping[bytes, bytes], spec: ServeSpec) -> str:
    """Why a request is not for this server, or not from one of its own pages; "": it may be.

    A page whose name was made to point to this machine (DNS rebinding) asks for its own name, which is none of ours. A
    page that posts across sites says so by Origin or Sec-Fetch-Site, as browsers do for every POST.
    """
    host = headers.get(b"host", b"").decode("latin-1").lower()
    if (spec.local or spec.names) and not _named(host, spec):
        return f"this server has another name than {host[:80]!r}; names=… lets it be asked for by more"
    if method in ("GET", "HEAD"):  # what they answer is closed to other sites by the browser itself
        return ""
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    elsewhere = headers.get(b"sec-fetch-site", b"") in (b"cross-site", b"same-site")
    if elsewhere or (origin and origin.partition("://")[2] != host):
        return "this server answers pages of its own alone"
    return ""


def _named(host: str, spec: ServeSpec) -> bool:
    """Whether a server is called so: by this machine's own names at its port, or by the names it was given."""
    name, _, port = host.rpartition(":") if not host.endswith("]") and ":" in host else (host, "", "80")
    if host in spec.names or name in spec.names:
        return True
    return name in (*_HERE, spec.host.lower(), f"[{spec.host.lower()}]") and port == str(spec.port)
