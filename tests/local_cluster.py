"""A cluster of three nodes on this machine on which Squadron is not installed, and commands that use it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.drivers import LIB

NODES = 3
_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class BareCluster:
    """Nodes whose Python has the dependencies alone. `environment` is that of the commands that use them."""

    place: Path
    environment: dict[str, str]

    @staticmethod
    def start() -> BareCluster:
        """Make the Python and start the nodes, one CPU each."""
        place = Path(tempfile.mkdtemp(prefix="sq"))
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
        (packages,) = place.glob("venv/lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        cluster = BareCluster(place, kept | {"PYTHONPATH": str(LIB), "TMPDIR": str(place)})
        bare = {key: value for key, value in kept.items() if key != "PYTHONPATH"}
        absent = subprocess.run([cluster.python, "-c", "import squadron"], env=bare, capture_output=True, text=True)
        assert "No module named 'squadron'" in absent.stderr
        up = cluster.squadron("cluster", "up", "--nodes", str(NODES), python=cluster.python)
        assert up.returncode == 0, up.stdout + up.stderr
        return cluster

    @property
    def python(self) -> Path:
        return self.place / "venv" / "bin" / "python"

    def squadron(self, *words: str, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
        """Run a command of ours to its end."""
        line = self.line(*words, python=python)
        return subprocess.run(line, env=self.environment, capture_output=True, text=True, timeout=_TIMEOUT_S)

    def line(self, *words: str, python: str | Path = sys.executable) -> Sequence[str]:
        """The command line of a command of ours."""
        return [str(python), "-m", "squadron.core.cli", *words]

    def note(self) -> dict[str, Any]:
        """What is noted of the cluster."""
        (note,) = self.place.glob("squadron-*/cluster/cluster.json")
        found: dict[str, Any] = json.loads(note.read_text())
        return found

    def authorised(self) -> dict[str, str]:
        """The environment of whoever has the token, whatever address he asks; with the Python of the nodes."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": self.note()["token_path"]}
        return self.environment | given | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "PATH": path}

    def stop(self) -> None:
        """End the nodes and remove all that was made."""
        self.squadron("cluster", "down")
        shutil.rmtree(self.place, ignore_errors=True)
