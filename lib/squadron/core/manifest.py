"""What a result depends on besides its configuration: versions, commit, machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from squadron.core import shipped
from squadron.core.errors import InputError
from squadron.core.folder import RESTORE, Folder
from squadron.core.json_text import from_json
from squadron.core.seals import KEY

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


FORMAT = 4
"""Of run folders: raised when an earlier version's stages can no longer be read."""
MANIFEST = "run.json"
FINISHED = "finished_at"
"""In a manifest: when the recipe came to its end; none until then."""
_LARGEST_BYTES = 2**20
_JOB = re.compile(r"(sweep of )?[^\W\d]\w*")
_STAGE = re.compile(r"[^\W\d]\w*-[0-9a-f]{12}")
_NOT_READ = ("tensorboard", "wandb")
"""Folders of other programs in a stage's, with links of their own."""


def read_manifest(folder: Folder) -> dict[str, Any]:
    """What `run.json` of a run folder says: the job and its stages are plain names. Raises InputError if the folder is
    no run, is another version's, or the file is damaged."""
    where = folder.file(MANIFEST)
    if not folder.exists(MANIFEST):
        fix = "`squadron ls` lists the runs in ./runs"
        raise InputError("not a run folder: it has no run.json", where=str(folder), fix=fix)
    text = folder.read_bytes(MANIFEST) if folder.size(MANIFEST) <= _LARGEST_BYTES else b"[]"
    try:
        manifest = from_json(text)
    except ValueError as error:
        raise InputError(f"not valid JSON: {str(error)[:200]}", where=where, fix=RESTORE) from None
    if not isinstance(manifest, dict) or not _names_job(manifest.get("job")):
        fix = "remove the file if the folder is no run, else restore it"
        raise InputError("this is no description of a run", where=where, fix=fix)
    if KEY in manifest:
        folder.read_json(MANIFEST)  # is whole, whatever version wrote it
    if manifest.get("format") != FORMAT:
        version = str(manifest.get("squadron", "unknown"))[:20]
        what = f"another version of Squadron ({version}) wrote this run, in a form that this one does not read"
        fix = "its report.html stays as it is; give a new folder with --run to run the job again"
        raise InputError(what, where=str(folder), fix=fix)
    manifest = folder.read_json(MANIFEST)
    names = manifest.get("stages") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and _STAGE.fullmatch(name) for name in names):
        raise InputError("it names stages as no run does", where=where, fix=RESTORE)
    return manifest


def check_manifest(folder: Folder) -> dict[str, Any]:
    """As `read_manifest`, before anything else of the folder is read or written: nothing in it may be a link to what is
    outside of it. Raises InputError."""
    manifest = read_manifest(folder)
    refuse_links(folder)
    return manifest


def refuse_links(folder: Folder) -> None:
    """Raise InputError if something in a local folder, which may be anybody's, is a link that leads out of it."""
    root = os.path.realpath(folder.path) if folder.path else ""
    waiting = [root] if root else []
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:  # whoever needs it says so
            continue
        for entry in entries:
            if entry.is_symlink():
                if not f"{os.path.realpath(entry.path)}/".startswith(f"{root}/"):
                    fix = "put the file itself in its place; to keep a run on another disk, link its whole folder"
                    raise InputError("a link leads out of the run folder", where=entry.path, fix=fix)
            elif entry.is_dir() and entry.name not in _NOT_READ:
                waiting.append(entry.path)


def _names_job(name: object) -> bool:
    return isinstance(name, str) and len(name) <= 100 and _JOB.fullmatch(name) is not None


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
        return shipped.commit()
    try:
        git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(git, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
