"""What a result depends on besides its configuration: versions, commit, machine."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from squadron.core.errors import InputError
from squadron.core.folder import Folder

PACKAGES = (
    "ray",
    "torch",
    "flwr",
    "mujoco",
    "numpy",
    "pyarrow",
    "pydantic",
    "transformers",
    "deepspeed",
    "vllm",
)


FORMAT = 3
"""Of run folders: raised when an earlier version's stages can no longer be read."""


def check_manifest(folder: Folder) -> dict[str, Any]:
    """What `run.json` of a run folder says. Raises InputError if the folder is no run, or another version's."""
    if not folder.exists("run.json"):
        fix = "`squadron ls` lists the runs in ./runs"
        raise InputError("not a run folder: it has no run.json", where=str(folder), fix=fix)
    manifest = folder.read_json("run.json")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("job"), str):
        fix = "remove the file if the folder is no run, else restore it"
        raise InputError("this is no description of a run", where=folder.file("run.json"), fix=fix)
    if manifest.get("format") != FORMAT:
        version = manifest.get("squadron", "unknown")
        what = f"another version of Squadron ({version}) wrote this run, in a form that this one does not read"
        fix = "its report.html stays as it is; give a new folder with --run to run the job again"
        raise InputError(what, where=str(folder), fix=fix)
    return manifest


def describe_environment() -> dict[str, Any]:
    """Versions of Python, Squadron and the libraries that shape results, and the commit of a source checkout."""
    from squadron import __version__

    return {
        "squadron": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version for name in PACKAGES if (version := installed_version(name))},
    }


def installed_version(package: str) -> str:
    """The installed version of a distribution, or an empty string."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(git, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
