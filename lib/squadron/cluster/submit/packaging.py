"""What is sent with a job: the code of this checkout or installation, the job's own file, its settings, and no more."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from squadron.core.errors import ConfigError, ResourceError
from squadron.core.manifest import describe_environment
from squadron.core.shipped import COMMIT, ENVIRONMENT

MOST_BYTES = 64 * 2**20
"""Ray's dashboard takes requests of at most 100 MiB."""
SETTINGS = "settings.yaml"
_PACKAGE = Path(__file__).resolve().parents[2]
_PLACES = {"lib/squadron/": "squadron/", "jobs/": "squadron/jobs/", "configs/": "squadron/configs/"}
"""Folders of a checkout, and where their files are in an installed package; in what is sent, too."""
_PRIVATE, _OPEN = 0o600, 0o644
_LARGEST_SHOWN = 5


@dataclass
class Package:
    """Files by their names in it: paths of this machine, or contents, which only their owner may read on the cluster.
    `left_out` are files of the checkout that git does not know."""

    files: dict[str, Path | bytes] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(_size, self.files.values()))

    def check_size(self) -> None:
        """Raise ResourceError, with the largest files by name, if it is too large to be sent."""
        if self.size() <= MOST_BYTES:
            return
        largest = sorted(self.files, key=lambda name: -_size(self.files[name]))[:_LARGEST_SHOWN]
        raise ResourceError(
            f"{shown_size(self.size())} are to be sent, and {shown_size(MOST_BYTES)} can be",
            where="; ".join(
                f"{_place(name, self.files[name])}: {shown_size(_size(self.files[name]))}" for name in largest
            ),
            fix="put large files on storage that the cluster sees, and give their paths or URLs",
        )

    def write(self, path: Path) -> None:
        """Write it as a zip file. The same files give the same bytes, which Ray does not send twice."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(self.files):
                content = self.files[name]
                entry = zipfile.ZipInfo(name)
                mode = _OPEN if isinstance(content, Path) else _PRIVATE
                entry.external_attr = (stat.S_IFREG | mode) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, content.read_bytes() if isinstance(content, Path) else content)


def pack_code() -> Package:
    """The files of this checkout that git knows, as they are on the disk, or those of the installed package, as an
    installed package has them."""
    root = _PACKAGE.parents[1]
    if not (root / "jobs").is_dir() or root / "lib" / "squadron" != _PACKAGE:
        return Package(_walk(_PACKAGE, "squadron/"))
    package, names = Package(), _list_files(root)
    if names is None:
        for folder, place in _PLACES.items():
            package.files |= _walk(root / folder, place)
        return package
    package.left_out = tuple(_list_files(root, "--others", "--exclude-standard") or ())
    for name in names:
        folder = next(folder for folder in _PLACES if name.startswith(folder))
        if (root / name).is_file():  # one that was removed is still known
            package.files[_PLACES[folder] + name.removeprefix(folder)] = root / name
    package.files[f"squadron/{COMMIT}"] = describe_environment()["commit"].encode()
    return package


def pack_environment(names: Sequence[str]) -> dict[str, Path | bytes]:
    """A file with these variables of this environment. Raises ConfigError for one that is not set here."""
    if not names:
        return {}
    absent = [name for name in names if name not in os.environ]
    if absent:
        fix = "set it, or leave it out if the cluster's nodes have it"
        raise ConfigError(f"not set here: {', '.join(absent)}", where="--env", fix=fix)
    # With chance in it, since the sum of what is sent can be read on the dashboard.
    content = {"salt": secrets.token_hex(16), "variables": {name: os.environ[name] for name in names}}
    return {f"squadron/{ENVIRONMENT}": json.dumps(content).encode()}


def pack_job(job: str, files: Mapping[str, Path | bytes]) -> tuple[str, dict[str, Path | bytes]]:
    """How the sent job is called, and its file, if it is one of the user's own or one that git does not know."""
    if job.endswith(".py"):
        path = Path(job).absolute()
        return path.name, {path.name: path}
    name = f"squadron/jobs/{job}.py"
    own = _PACKAGE.parents[1] / "jobs" / f"{job}.py"
    return job, {} if name in files or not own.is_file() else {name: own}


def shown_size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"


def _list_files(root: Path, *options: str) -> list[str] | None:
    """Files below the folders of the code that git tells of; None where there is no repository."""
    line = ["git", "-C", str(root), "ls-files", "-z", *options, "--", *_PLACES]
    try:
        said = subprocess.run(line, capture_output=True, check=True, timeout=30).stdout.decode()
    except (OSError, subprocess.SubprocessError):
        return None
    return [name for name in said.split("\0") if name] if (root / ".git").exists() else None


def _walk(folder: Path, prefix: str) -> dict[str, Path | bytes]:
    return {
        prefix + path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.name not in (COMMIT, ENVIRONMENT)
    }


def _size(content: Path | bytes) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _place(name: str, content: Path | bytes) -> str:
    return str(content) if isinstance(content, Path) else name
