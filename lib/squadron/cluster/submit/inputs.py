"""Where a job that is sent elsewhere finds its input files: sent along, on storage that the cluster sees too, or not at
all, which is refused by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from squadron.core.config import Config
from squadron.core.errors import ConfigError, InputError
from squadron.core.inputs import InputPath, find_inputs

SHIPPED = "inputs"
_NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.", "wekafs", "panfs", "afs")
"""Beginnings of the names of file systems that more than one machine sees."""


@dataclass(frozen=True)
class Placed:
    """`moved`: paths as the settings have them, and as the job is to have them. `files` are sent along, by their names
    in the package."""

    moved: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def place_inputs(config: Config, ship: Sequence[str], shared: Sequence[str], same_machine: bool) -> Placed:
    """Decide for each input file of a configuration how the job comes by it.

    `ship` are files and folders to be sent along, `shared` folders that the cluster's nodes see as this machine does,
    `same_machine` says that they are this machine. Raises InputError for paths that the cluster would not see, by the
    names of their settings, and ConfigError for what `ship` names and no setting reads.
    """
    placed, unseen, missing = Placed(), [], []
    sent = [os.path.realpath(os.path.expanduser(path)) for path in ship]
    used: set[str] = set()
    for key, path in find_inputs(config):
        if not path.is_local:
            if path.is_missing and not _is_under(path.local, shared):
                missing.append(f"{key}: {path}")
            continue
        real = os.path.realpath(path.local)
        over = [one for one in sent if real == one or real.startswith(f"{one}{os.sep}")]
        if over and not same_machine:
            used.update(over)
            name = f"{SHIPPED}/{len(placed.moved)}/{os.path.basename(real)}"
            placed.moved[str(path)] = name
            placed.files.update(_files(path, name))
        elif same_machine or _is_under(path.local, shared) or _on_network(real):
            used.update(over)
            placed.moved[str(path)] = os.path.abspath(path.local)
        else:
            unseen.append(f"{key}: {path}")
    if missing:
        fix = "correct the path; if only the cluster has it, name its folder by --shared"
        raise InputError("no such file or folder", where="; ".join(missing), fix=fix)
    if unseen:
        fix = "name a small file by --ship PATH, a folder that all nodes see by --shared FOLDER, or give a URL"
        raise InputError("the cluster would not see these inputs", where="; ".join(unseen), fix=fix)
    for name, one in zip(ship, sent, strict=True):
        if one not in used:
            fix = "leave it out, or correct it: only what a setting reads is sent"
            raise ConfigError(f"no setting reads {name}", where="--ship", fix=fix)
    return placed


def _files(path: InputPath, name: str) -> dict[str, Path]:
    """The files that are read of a path, by their names in the package."""
    local = Path(path.local)
    if local.is_file():
        return {name: local}
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(local, followlinks=True):
        inside = [os.path.relpath(os.path.join(place, one), local) for one in folders]
        folders[:] = [os.path.basename(one) for one in sorted(inside) if path.enters(one)]
        below = [os.path.relpath(os.path.join(place, one), local) for one in sorted(names)]
        found |= {f"{name}/{one}": local / one for one in below if path.reads(one)}
    return found


def _is_under(path: str, folders: Sequence[str]) -> bool:
    whole = os.path.abspath(path)
    roots = [os.path.abspath(os.path.expanduser(folder)) for folder in folders]
    return any(whole == root or whole.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


def _on_network(path: str) -> bool:
    """Whether a path lies on a file system that is known to be a network's."""
    import psutil

    mounts = {one.mountpoint: one.fstype for one in psutil.disk_partitions(all=True)}
    holder = max((mount for mount in mounts if _is_under(path, [mount])), key=len, default="")
    return mounts.get(holder, "").startswith(_NETWORK)
