"""What a result depends on besides its configuration: versions, commit, machine."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

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
