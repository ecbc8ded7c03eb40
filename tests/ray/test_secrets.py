"""Secrets that a run meets stand in none of the files, logs and pages that it leaves."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from tests.drivers import LIB

HERE = Path(__file__).parent
NAMES = ("SETTING", "OTHER", "URL", "QUERY", "BODY", "HEADER", "TOKEN", "CLIENT", "GUESS", "PROMPT", "WORD")
SERVE = "::"
"""On which replicas of Ray Serve listen for each other, whatever it is told."""
GIVEN = ("settings-*.yaml",)
"""What the user wrote, and nobody else."""


def canary(name: str) -> str:
    return f"c4n{name.lower()}/+9\"'&Zx{len(name)}q7w8e9"


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it is, and in the forms in which texts hold one; of base64 and others a part that is enough."""
    for text in (secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1], html.escape(secret)):
        yield text.encode()
    yield secret[:9].encode()
    for before in (b"", b"a", b"ab"):
        yield base64.b64encode(before + secret.encode() + b"after")[4:16]


def test_canaries_are_found_nowhere() -> None:
    with tempfile.TemporaryDirectory(prefix="sq") as short:  # Ray's sockets ask for short paths
        place = Path(short)
        secrets = {name: canary(name) for name in NAMES}
        environment = {f"CANARY_{name}": secret for name, secret in secrets.items()}
        environment |= {"HF_TOKEN": secrets["TOKEN"], "SQUADRON_API_KEYS": f"me:{secrets['CLIENT']}"}
        environment |= {"SQUADRON_CACHE": f"{place}/cache", "RAY_TMPDIR": short, "TMPDIR": short}
        environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on loopback alone, as docs/secrets.md tells
        environment |= {"PYTHONPATH": f"{LIB}{os.pathsep}{HERE.parents[1]}"}
        command = [sys.executable, str(HERE / "canaries.py"), short, f"api_key={secrets['WORD']}"]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
        (place / "printed.txt").write_text(done.stdout + done.stderr)
        assert "[0, 0, 0, 2, 2, 2, 0, 0]" in done.stdout, done.stdout + done.stderr
        assert "RuntimeError: a mistake of ours" in done.stderr, done.stderr
        (addresses,) = re.findall("^listening: (.*)$", done.stdout, re.M)
        assert set(addresses.split()) - {SERVE} == {"127.0.0.1"}, "with this variable nobody reaches Ray from elsewhere"
        given = {path for pattern in GIVEN for path in place.glob(pattern)}
        files = [path for path in place.rglob("*") if path.is_file() and path not in given]
        assert len(files) > 50 and any("session" in str(path) for path in files)
        found = sorted(
            f"{name} in {path.relative_to(place)}"
            for path in files
            for content in [path.read_bytes()]
            for name, secret in secrets.items()
            if any(form in content for form in forms(secret))
        )
        assert not found, "\n".join(found)
